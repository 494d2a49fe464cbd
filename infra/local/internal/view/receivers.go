package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
)

// Receiver is an integration, and what is seen at its stand-in.
type Receiver struct {
	Name, Kind, Addr string
	Alerts           system.Balance
	Held             int    // messages of its subscriptions
	LastFailure      string // of a push
	Faults           string // switched, in words
	People           bool   // its books are of incidents
	Shows            bool   // it shows messages
	Messages         []standin.Message
}

// shownMessages is how many messages of a receiver are shown, shownLines how many lines of the newest.
const (
	shownMessages = 4
	shownLines    = 24
)

func receivers(s *system.System) []Receiver {
	list := make([]Receiver, 0, len(s.Receivers()))
	for _, r := range s.Receivers() {
		v := Receiver{
			Name: r.Name, Kind: r.Kind, Addr: r.Addr, Alerts: r.Balance(), Held: r.Held(), Faults: r.Switches.Faults().String(),
			People: r.Incidents != nil, Shows: r.Board != nil,
		}
		for _, p := range r.Pushes {
			if stats := p.Stats(); stats.Held > 0 && stats.LastFailure != "" {
				v.LastFailure = stats.LastFailure
			}
		}
		if r.Board != nil {
			v.Messages = newest(r.Board.Messages(), shownMessages)
		}
		list = append(list, v)
	}
	return list
}

// newest are the n messages that changed last, the last one first.
func newest(all []standin.Message, n int) []standin.Message {
	slices.SortStableFunc(all, func(a, b standin.Message) int { return b.Changed.Compare(a.Changed) })
	return all[:min(n, len(all))]
}

// receiverLines are the books of alerts, a line for each receiver.
func receiverLines(now State, st Style) []string {
	lines := make([]string, 0, len(now.Receivers)+1)
	lines = append(lines, st.paint(bold, cut("alerts by receiver", st.Width)))
	for _, r := range now.Receivers {
		word, unit := "delivered", ""
		if r.People {
			word, unit = "told", " of repeats too"
		}
		b := r.Alerts
		line := fmt.Sprintf(" %s published %d = %s %d + dead %d + waiting %d%s", pad(r.Kind, 15), b.Published, word, b.Delivered, b.Dead, b.Waiting, unit)
		if b.Twice > 0 {
			line += fmt.Sprintf("; %d twice", b.Twice)
		}
		color := ""
		if b.Waiting > 0 || r.Held > 0 {
			color = yellow
		}
		lines = append(lines, st.paint(color, cut(line, st.Width)))
	}
	return lines
}

// messageLines show what people see: of each receiver the newest message whole, and the titles of those before it.
func messageLines(now State, st Style) []string {
	var lines []string
	for _, r := range now.Receivers {
		if !r.Shows {
			continue
		}
		lines = append(lines, "", st.paint(bold, cut(r.Kind+" shows", st.Width)))
		if len(r.Messages) == 0 {
			lines = append(lines, st.paint(dim, cut(" nothing yet", st.Width)))
		}
		for i, m := range r.Messages {
			text := []string{MessageTitle(m)}
			if i == 0 {
				text = MessageText(m, shownLines)
			}
			for _, line := range text {
				lines = append(lines, cut(" "+line, st.Width))
			}
		}
	}
	return lines
}

// MessageTitle is a message in a line.
func MessageTitle(m standin.Message) string {
	line := m.At.Local().Format("15:04:05") + "  "
	if m.State != "" {
		line += "[" + m.State + "] "
	}
	line += m.Title
	if m.Edits > 0 {
		line += fmt.Sprintf("  (edited %d×)", m.Edits)
	}
	if n := len(m.Thread); n > 0 {
		line += fmt.Sprintf("  (%d in its thread)", n)
	}
	return Printable(line)
}

// MessageText is a message as a person sees it, in at most the given number of lines.
func MessageText(m standin.Message, most int) []string {
	lines := []string{MessageTitle(m)}
	add := func(before, text string) {
		for line := range strings.Lines(text) {
			lines = append(lines, before+Printable(strings.TrimRight(line, "\n")))
		}
	}
	text, _ := strings.CutPrefix(m.Text, m.Title)
	add("    ", strings.TrimLeft(text, "\n"))
	for _, reply := range m.Thread {
		add("    ↳ ", reply)
	}
	if extra := len(lines) - most; extra > 0 {
		lines = append(lines[:most-1], fmt.Sprintf("    … %d lines more", extra+1))
	}
	return lines
}
