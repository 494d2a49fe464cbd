package file

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
)

const (
	// maxDiff is how large an event's diff gets, in bytes: a batch of events has 256 KiB.
	maxDiff = 8 << 10
	// maxDiffLine is how much of one line a diff shows.
	maxDiffLine = 512
	// leftOut is more than the line that says what was left out takes.
	leftOut = 80
)

// unified returns what differs between two texts as a unified diff of at most maxDiff bytes; its last line says what
// did not fit. existed is false if there was nothing before. The work is bounded: the library gives up the smallest
// diff for a larger one where two texts have little in common.
func unified(before, after string, existed bool) string {
	if before == after {
		return "\\ only redacted values differ\n"
	}
	from := "before"
	if !existed {
		from = "/dev/null"
	}
	whole, err := udiff.ToUnified(from, "after", before, udiff.Lines(before, after), udiff.DefaultContextLines)
	if err != nil {
		return fmt.Sprintf("\\ no diff: %v\n", err) // its edits contradict each other, which it rules out
	}
	var b strings.Builder
	rest := whole
	for rest != "" {
		line, tail, _ := strings.Cut(rest, "\n")
		line = shorten(line)
		if b.Len()+len(line)+1 > maxDiff-leftOut {
			fmt.Fprintf(&b, "\\ left out: %d lines, %d bytes\n", strings.Count(rest, "\n"), len(rest))
			break
		}
		b.WriteString(line)
		b.WriteByte('\n')
		rest = tail
	}
	return b.String()
}

// shorten cuts a long line between two characters.
func shorten(line string) string {
	if len(line) <= maxDiffLine {
		return line
	}
	end := maxDiffLine
	for !utf8.RuneStart(line[end]) {
		end--
	}
	return fmt.Sprintf("%s [%d bytes more]", line[:end], len(line)-end)
}
