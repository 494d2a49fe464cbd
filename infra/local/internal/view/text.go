package view

import (
	"strconv"
	"strings"
	"unicode"
)

// Printable returns s as one line that does nothing to a terminal: what is not a graphic character (control characters,
// escape sequences, changes of direction, invalid UTF-8) is written as an escape.
func Printable(s string) string {
	clean := true
	for _, r := range s {
		if !harmless(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && s[i] != "\uFFFD"[0]:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i]), 16))
		case harmless(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

func harmless(r rune) bool {
	return r != unicode.ReplacementChar && r != '\u2028' && r != '\u2029' && unicode.IsPrint(r)
}

// width is how many cells of a terminal a rune takes, after the East Asian Width property (Unicode Annex 11) in the
// ranges that matter.
func width(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r < 0x1100:
		return 1
	case r <= 0x115F, 0x2E80 <= r && r <= 0xA4CF, 0xAC00 <= r && r <= 0xD7A3, 0xF900 <= r && r <= 0xFAFF,
		0xFE30 <= r && r <= 0xFE6F, 0xFF00 <= r && r <= 0xFF60, 0xFFE0 <= r && r <= 0xFFE6,
		0x1F300 <= r && r <= 0x1FAFF, 0x20000 <= r && r <= 0x3FFFD:
		return 2
	}
	return 1
}

// cut shortens s to at most cells cells, with an ellipsis where something is missing.
func cut(s string, cells int) string {
	used, end := 0, 0
	for i, r := range s {
		w := width(r)
		if used+w > cells {
			for used > cells-1 && end > 0 { // room for the ellipsis
				last := []rune(s[:end])
				used -= width(last[len(last)-1])
				end = len(string(last[:len(last)-1]))
			}
			if cells < 1 {
				return ""
			}
			return s[:end] + "…"
		}
		used += w
		end = i + len(string(r))
	}
	return s
}

// pad fills s with spaces up to cells cells, or cuts it there.
func pad(s string, cells int) string {
	s = cut(s, cells)
	used := 0
	for _, r := range s {
		used += width(r)
	}
	return s + strings.Repeat(" ", max(cells-used, 0))
}
