// Package view shows a running system: on a terminal as one screen, elsewhere as lines. What events carry was written by
// whoever made them happen; it reaches the terminal through [Printable] only.
package view

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/ledger"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

// State is everything that is shown, at one moment.
type State struct {
	At         time.Time
	Started    time.Time
	Addresses  system.Addresses
	Emulator   bool
	Demo, Log  string
	Agent      system.AgentCounts
	AgentError error
	Books      ledger.Totals
	Receivers  []Receiver
	Arrivals   []system.Arrival // newest first
	Alerts     int64
	Raised     []system.Raised // newest first
	DeadReason string
	Trouble    string
}

// Look reads the state of s.
func Look(s *system.System, started time.Time, agent system.AgentCounts, agentErr error) State {
	arrivals, alerts, dead := s.Feed.Recent()
	return State{
		At: time.Now(), Started: started, Addresses: s.Addresses(), Emulator: s.Broker.Emulator(),
		Demo: s.Config.Demo(), Log: s.Config.LogFile(), Agent: agent, AgentError: agentErr,
		Books: s.Ledger.Totals(), Receivers: receivers(s),
		Arrivals: arrivals, Alerts: alerts, Raised: s.Feed.Raised(), DeadReason: dead,
	}
}

const (
	reset  = "\x1b[0m"
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
	hot    = "\x1b[1;97;41m"
)

// Style says how to draw.
type Style struct {
	Width, Height int
	Color         bool
}

func (st Style) paint(color, s string) string {
	if !st.Color || color == "" {
		return s
	}
	return color + s + reset
}

// Head draws where things are.
func Head(now State, st Style) []string {
	var lines []string
	add := func(color, format string, args ...any) {
		lines = append(lines, st.paint(color, cut(fmt.Sprintf(format, args...), st.Width)))
	}
	broker := "Pub/Sub in this process"
	if now.Emulator {
		broker = "Google's Pub/Sub emulator"
	}
	a := now.Addresses
	add(bold, "APSS on this machine, for %v · Ctrl-C ends it", now.At.Sub(now.Started).Truncate(time.Second))
	add("", " agent      http://%s/metrics   watches %s and the usual paths", a.Agent, now.Demo)
	add("", " broker     %s   %s", a.PubSub, broker)
	add("", " functions  http://%s/metrics   and /health, with the token %s", a.Functions, a.Token)
	for i, r := range now.Receivers {
		name := "receivers"
		if i > 0 {
			name = ""
		}
		add("", " %-9s  http://%s   %s's stand-in", name, r.Addr, r.Kind)
	}
	add("", " log        %s", now.Log)
	add(dim, " try        echo hello >> %s/notes", now.Demo)
	add(dim, "            echo hello >> %s/.ssh/authorized_keys   as intruders do", now.Demo)
	for _, r := range now.Receivers[:min(1, len(now.Receivers))] {
		add(dim, `            curl http://%s/_faults -d '{"status":503,"for":"20s"}'   each stand-in has its own`, r.Addr)
	}
	add(dim, `            or {"latency":"2s"} {"hang":true,"for":"9s"} {"refuse":"secret"} {"refuse":"secret","refuse_with":422} {}`)
	add(dim, " ask        . %s   once in a shell, and then:", a.Control)
	add(dim, "            %s status    or  test slack    or  dlq list    or  dlq replay -all", a.Apssctl)
	add(dim, `            curl -H "Authorization: Bearer $APSS_ADMIN_TOKEN" $APSS_URL/health`)
	return lines
}

// Frame draws now; before is an earlier moment, which rates are reckoned from. It returns at most Height lines of at
// most Width cells.
func Frame(before, now State, st Style) []string {
	lines := append(Head(now, st), "")
	lines = append(lines, counts(before, now, st)...)
	lines = append(lines, condition(now, st)...)
	lines = append(lines, "")
	lines = append(lines, receiverLines(now, st)...)
	lines = append(lines, "")
	lines = append(lines, alertLines(now, st)...)
	lines = append(lines, messageLines(now, st)...)
	lines = append(lines, "", st.paint(bold, cut("arrived last", st.Width)))
	if len(now.Arrivals) == 0 {
		lines = append(lines, st.paint(dim, cut(" nothing yet", st.Width)))
	}
	for _, arrival := range now.Arrivals {
		lines = append(lines, arrivalLines(arrival, st)...)
	}
	return lines[:min(len(lines), max(st.Height, 0))]
}

// counts are the stages' counters with their rates.
func counts(before, now State, st Style) []string {
	type stage struct {
		name  string
		count int64
		last  int64
		rated bool
	}
	stages := []stage{
		{"sensed", now.Agent.Sensed, before.Agent.Sensed, true},
		{"sealed", now.Agent.Sealed, before.Agent.Sealed, true},
		{"published", now.Books.Published, before.Books.Published, true},
		{"delivered", now.Books.Delivered, before.Books.Delivered, true},
		{"dead letters", now.Books.Dead, before.Books.Dead, true},
		{"in flight", now.Books.InFlight, 0, false},
		{"twice", now.Books.DeliveredTwice, 0, false},
	}
	cells := max(st.Width/len(stages), 9)
	var names, numbers, rates strings.Builder
	seconds := now.At.Sub(before.At).Seconds()
	for _, s := range stages {
		names.WriteString(pad(" "+s.name, cells))
		numbers.WriteString(pad(fmt.Sprintf(" %d", s.count), cells))
		rate := ""
		if s.rated && seconds > 0 && s.count >= s.last {
			rate = fmt.Sprintf(" %.0f/s", float64(s.count-s.last)/seconds)
		}
		rates.WriteString(pad(rate, cells))
	}
	return []string{
		st.paint(dim, cut(names.String(), st.Width)),
		st.paint(bold, cut(numbers.String(), st.Width)),
		st.paint(dim, cut(rates.String(), st.Width)),
	}
}

// condition are the lines about what is not as it should be.
func condition(now State, st Style) []string {
	var lines []string
	add := func(color, format string, args ...any) {
		lines = append(lines, st.paint(color, cut(fmt.Sprintf(format, args...), st.Width)))
	}
	for _, r := range now.Receivers {
		if r.Faults != "" {
			add(yellow, " %s: %s", r.Kind, Printable(r.Faults))
		}
		if r.Held > 0 && r.LastFailure != "" {
			add(yellow, " push to %s: %d messages wait, last failure: %s", r.Kind, r.Held, Printable(r.LastFailure))
		}
	}
	if now.Agent.Spooled > 0 {
		add(yellow, " agent: %d messages in its spool", now.Agent.Spooled)
	}
	if now.Agent.Dropped > 0 {
		add(red, " agent: %d events dropped", now.Agent.Dropped)
	}
	if now.AgentError != nil {
		add(red, " agent: %s", Printable(now.AgentError.Error()))
	}
	if now.DeadReason != "" {
		add(red, " last dead letter: %s", Printable(now.DeadReason))
	}
	if now.Trouble != "" {
		add(red, " %s", Printable(now.Trouble))
	}
	return lines
}

// arrivalLines are one line of an event, and a second where it has more to tell.
func arrivalLines(a system.Arrival, st Style) []string {
	e, err := event.Decode(a.Event)
	if err != nil {
		return []string{cut(" "+Printable(err.Error()), st.Width)}
	}
	head := fmt.Sprintf(" %s  ", a.At.Local().Format("15:04:05.000"))
	severity := pad(e.Severity.String(), 8)
	rest := fmt.Sprintf("  %s  %s  %s", pad(Printable(string(e.Type)), 15), pad(latency(a.At.Sub(e.Timestamp)), 6), Printable(Essence(e)))
	rest = cut(rest, st.Width-len(head)-8)
	lines := []string{st.paint(dim, head) + st.paint(severityColor(e.Severity), severity) + rest}
	if detail := Detail(e); detail != "" {
		lines = append(lines, st.paint(dim, cut(strings.Repeat(" ", len(head))+Printable(detail), st.Width)))
	}
	return lines
}

func severityColor(s event.Severity) string {
	switch s {
	case event.Critical:
		return hot
	case event.High:
		return red
	case event.Medium:
		return yellow
	case event.Low:
		return cyan
	default:
		return dim
	}
}

func latency(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	default:
		return d.Truncate(time.Second).String()
	}
}

// Essence is what an event is about, in a few words: as untrusted as the event.
func Essence(e *event.Event) string {
	switch {
	case e.Network != nil:
		n := e.Network
		if n.Direction == "listen" {
			return n.Protocol + " listens on " + net.JoinHostPort(n.SrcIP, strconv.Itoa(int(n.SrcPort)))
		}
		return n.Protocol + " " + n.Direction + " " + net.JoinHostPort(n.DstIP, strconv.Itoa(int(n.DstPort)))
	case e.File != nil:
		return e.File.Path
	case e.Process != nil && e.Process.Cmdline != "":
		return e.Process.Cmdline
	case e.Process != nil && e.Process.Exe != "":
		return e.Process.Exe
	case e.Process != nil:
		return fmt.Sprintf("pid %d", e.Process.PID)
	}
	return string(e.Type) + " of " + e.AgentID
}

// Line is the state in one line.
func Line(s State) string {
	b := s.Books
	line := fmt.Sprintf("sensed %d, sealed %d, published %d, delivered %d, dead letters %d, in flight %d, twice %d",
		s.Agent.Sensed, s.Agent.Sealed, b.Published, b.Delivered, b.Dead, b.InFlight, b.DeliveredTwice)
	for _, more := range condition(s, Style{Width: 200}) {
		line += ";" + more
	}
	return line
}
