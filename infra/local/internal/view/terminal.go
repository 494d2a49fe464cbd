package view

import (
	"bytes"
	"os"

	"golang.org/x/term"
)

// Terminal draws frames over one another. Close gives the terminal back as it was.
type Terminal struct {
	out   *os.File
	color bool
}

const (
	enter = "\x1b[?1049h\x1b[?25l" // the alternate screen, no cursor
	leave = "\x1b[?25h\x1b[?1049l"
	begin = "\x1b[?2026h\x1b[H" // one update as a whole, where the terminal knows how; from the top
	end   = "\x1b[J\x1b[?2026l" // clear what is below
)

// IsTerminal reports whether a screen can be drawn on f.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" }

// OpenTerminal takes the terminal. Colors are left out where NO_COLOR (no-color.org) is set.
func OpenTerminal(out *os.File) *Terminal {
	_, _ = out.WriteString(enter)
	return &Terminal{out: out, color: os.Getenv("NO_COLOR") == ""}
}

// Draw draws a frame in the size that the terminal has now.
func (t *Terminal) Draw(before, now State) {
	w, h, err := term.GetSize(int(t.out.Fd()))
	if err != nil {
		w, h = 80, 24
	}
	var b bytes.Buffer
	b.WriteString(begin)
	for i, line := range Frame(before, now, Style{Width: w, Height: h, Color: t.color}) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line)
		b.WriteString("\x1b[K")
	}
	b.WriteString(end)
	_, _ = t.out.Write(b.Bytes()) // one write: no flicker
}

// Close restores the terminal.
func (t *Terminal) Close() { _, _ = t.out.WriteString(leave) }
