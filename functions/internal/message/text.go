package message

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxMarks is how many combining marks may follow each other: the most that a language stacks (Vietnamese two, Hebrew
// with cantillation three). More of them are drawn over the lines above.
const maxMarks = 3

// Line makes s fit to be shown on one line: what would not show, or would change how something else shows (line ends,
// control characters, escape sequences, directions, zero width, blanks other than the space), becomes a visible escape
// such as \u202e. It says when it cut s to limit characters, see [Cut]. Markup and mentions stay: they are the receiver's.
func Line(s string, limit int) string { return clean(s, limit, false) }

// Text is [Line] for texts of more than one line: their line ends and tabs stay.
func Text(s string, limit int) string { return clean(s, limit, true) }

func clean(s string, limit int, lines bool) string {
	// What is beyond limit is cut either way: no escape is shorter than what it stands for.
	var b strings.Builder
	i, marks, units := 0, 0, 0
	for i < len(s) && units <= limit {
		r, size := utf8.DecodeRuneInString(s[i:])
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
		}
		n := b.Len()
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case lines && (r == '\n' || r == '\t'):
			b.WriteRune(r)
		case lines && r == '\r' && strings.HasPrefix(s[i+1:], "\n"): // a line end of Windows
		case !unicode.IsPrint(r), blank(r), marks > maxMarks:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
		units += length(b.String()[n:])
		i += size
	}
	return cut(b.String(), limit, utf8.RuneCountInString(s[i:]))
}

// blank reports whether r shows nothing although unicode.IsPrint takes it: fillers, the braille blank, the grapheme
// joiner and the selectors of variations.
func blank(r rune) bool {
	switch {
	case r == 0x034f, r == 0x115f, r == 0x1160, r == 0x2800, r == 0x3164, r == 0xffa0,
		r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0100 && r <= 0xe01ef:
		return true
	}
	return false
}

// length is the length of s in UTF-16 code units: what most receivers count, and never less than runes.
func length(s string) int {
	n := 0
	for _, r := range s {
		n += max(utf16.RuneLen(r), 1)
	}
	return n
}

// Cut shortens s to limit UTF-16 code units, between runes, and says how much is missing: "abc… (+12 characters)".
func Cut(s string, limit int) string { return cut(s, limit, 0) }

// cut is Cut of a text of which missing characters are cut already.
func cut(s string, limit, missing int) string {
	if missing == 0 && length(s) <= limit {
		return s
	}
	return fit(s, limit, missing, func(s string) string { return s })
}

// Fit is escape(s), shortened like [Cut] when it is longer than limit. The length of what escape returns must grow with s.
func Fit(s string, limit int, escape func(string) string) string {
	if whole := escape(s); length(whole) <= limit {
		return whole
	}
	return fit(s, limit, 0, escape)
}

func fit(s string, limit, missing int, escape func(string) string) string {
	limit = max(limit, 0)
	ends := make([]int, 0, min(len(s), limit)+1) // of prefixes that may fit
	for i := range s {
		if ends = append(ends, i); len(ends) > limit {
			break
		}
	}
	runes := utf8.RuneCountInString(s) + missing
	low, high := 0, len(ends) // the longest prefix that fits has at least low runes, and less than high
	for high-low > 1 {
		if middle := (low + high) / 2; length(escape(s[:ends[middle]])+mark(runes-middle)) <= limit {
			low = middle
		} else {
			high = middle
		}
	}
	kept := ""
	if low < len(ends) {
		kept = escape(s[:ends[low]])
	}
	if m := mark(runes - low); length(kept+m) <= limit {
		return kept + m
	}
	if limit > 0 {
		return "…"
	}
	return ""
}

func mark(missing int) string { return fmt.Sprintf("… (+%d characters)", missing) }

// List joins as many items, which are whole lines, as fit into limit, and says how many are left out: "… 12 more". An item
// longer than a third of limit is cut. escape is as in [Fit]; nil changes nothing.
func List(items []string, limit int, escape func(string) string) string {
	if escape == nil {
		escape = func(s string) string { return s }
	}
	lines, total := make([]string, len(items)), 0
	for i, item := range items {
		lines[i] = Fit(item, limit/3, escape)
		total += length(lines[i]) + len("\n")
	}
	if kept := len(items); total-1 > limit {
		for total += length(more(kept)); kept > 0 && total > limit; kept-- {
			total -= length(lines[kept-1]) + len("\n")
		}
		lines = append(lines[:kept], more(len(items)-kept))
	}
	return strings.Join(lines, "\n")
}

func more(n int) string { return fmt.Sprintf("… %d more", n) }

// Code makes s fit for a code span or block of Markdown and of Slack, where the backtick alone means something and
// cannot be escaped: it becomes the modifier letter that looks like it.
func Code(s string) string { return strings.ReplaceAll(s, "`", "ˋ") }
