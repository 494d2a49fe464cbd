package message

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
)

// How much of a list is shown.
const (
	maxAncestors  = 5 // before the parent
	maxItems      = 10
	maxReferences = 5
	maxEventIDs   = 3
	maxWriters    = 3
)

// maxName bounds names and ids: no longer one is valid in Kubernetes
// (kubernetes.io/docs/concepts/overview/working-with-objects/names), images and paths apart.
const maxName = 253

// Incident is what a person is told of an incident.
type Incident struct {
	Change   integration.Change
	Test     bool
	Severity event.Severity

	Rule        string // its id
	Title       string // its name, else its id
	Description string
	Place       string // in short: "prod-1 / default / Deployment/my-app"
	Where       []Fact
	// Tree is the process below its ancestors, oldest first, each one line; empty when no process is known.
	Tree []string
	// What is the file or the connection.
	What []Fact
	Diff string // of the file, may have several lines
	// Technique is "T1059.004", Tactic its tactic's name and TechniqueURL its page; each may be empty.
	Technique, Tactic, TechniqueURL string

	Actions    []string
	Harmless   []string // what may make the rule err
	References []string // see IsLink

	Count               int64
	FirstSeen, LastSeen time.Time
	IDs                 []Fact
}

// Fact is something that has a name. The name is of this package, the value may be of anybody.
type Fact struct{ Name, Value string }

// Of makes what is told of i. No text in it is longer than limit.
func Of(i integration.Incident, limit int) Incident {
	a := cmp.Or(i.Alert, &event.Alert{})
	e := cmp.Or(a.Event, &event.Event{})
	name := func(s string) string { return Line(s, min(limit, maxName)) }
	m := brief(i, a, limit)
	m.Rule, m.Description = name(a.RuleID), Text(a.Description, limit)
	m.Where, m.Tree = where(a, e, limit), tree(e.Process, limit)
	m.Technique, m.Tactic, m.TechniqueURL = name(a.MITREID), name(a.MITRETactic), techniqueURL(a.MITREID)
	m.Actions = lines(a.Metadata.RecommendedActions, maxItems, limit)
	m.Harmless = lines(a.Metadata.FalsePositives, maxItems, limit)
	m.References = lines(a.Metadata.References, maxReferences, limit)
	// Rules name the technique's page among their references: it is shown once.
	m.References = slices.DeleteFunc(m.References, func(r string) bool { return r == m.TechniqueURL })
	if f := e.File; f != nil {
		m.What, m.Diff = append(m.What, file(f, limit)...), Text(f.Diff, limit)
	}
	if n := e.Network; n != nil {
		m.What = append(m.What, network(n, limit)...)
	}
	ids := lines(a.EventIDs, maxEventIDs, min(limit, maxName))
	m.IDs = facts(limit, Fact{"Alert", a.ID}, Fact{"Fingerprint", i.Fingerprint}, Fact{"Events", strings.Join(ids, ", ")})
	return m
}

// brief is what a line of a digest needs.
func brief(i integration.Incident, a *event.Alert, limit int) Incident {
	return Incident{
		Change: i.Change, Test: i.Test, Severity: a.Severity,
		Title: Line(cmp.Or(a.RuleName, a.RuleID, "An alert without a rule"), min(limit, maxName)),
		Place: place(a), Count: i.Count, FirstSeen: i.FirstSeen, LastSeen: i.LastSeen,
	}
}

// Headline is what is read first: "CRITICAL: Reverse shell".
func (m Incident) Headline() string {
	s := m.Severity.String() + ": " + m.Title
	if m.Change == integration.Resolved {
		s = "Resolved: " + m.Title
	}
	if m.Test {
		s = "TEST " + s
	}
	return s
}

// Summary is the headline and the place: "CRITICAL: Reverse shell in prod-1 / default / Deployment/my-app".
func (m Incident) Summary() string {
	if m.Place == "" {
		return m.Headline()
	}
	return m.Headline() + " in " + m.Place
}

// Symbol stands for the severity, or for the end.
func (m Incident) Symbol() string {
	if m.Change == integration.Resolved {
		return "✅"
	}
	return symbol(m.Severity)
}

func symbol(s event.Severity) string {
	switch s {
	case event.Critical:
		return "🔴"
	case event.High:
		return "🟠"
	case event.Medium:
		return "🟡"
	case event.Low:
		return "🔵"
	default:
		return "⚪"
	}
}

// Seen is "seen 3 times, first 2026-11-22 10:00:00, last 10:00:05 UTC".
func (m Incident) Seen() string {
	s := "seen once"
	if m.Count > 1 {
		s = "seen " + thousands(m.Count) + " times"
	}
	switch {
	case m.FirstSeen.IsZero():
		return s
	case m.Count <= 1 || !m.LastSeen.After(m.FirstSeen):
		return s + ", " + Time(m.FirstSeen)
	default:
		return s + ", first " + Time(m.FirstSeen) + ", last " + Time(m.LastSeen)
	}
}

// SmallPrint is the rule, the counts and the ids on one line.
func (m Incident) SmallPrint() string {
	s := m.Seen()
	if m.Rule != "" {
		s = m.Rule + " · " + s
	}
	for _, f := range m.IDs {
		s += " · " + f.Name + " " + f.Value
	}
	return s
}

// TestNote says what a test is.
const TestNote = "This is a test of the way from APSS to you. Nothing happened."

// Time is t to the second in UTC.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// IsLink reports whether a reference is a web page's address and nothing else, so that it can be made a link.
func IsLink(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>"|\^{}[]()`+"`", r) })
}

func place(a *event.Alert) string {
	var parts []string
	for _, s := range []string{a.Cluster, a.PodNamespace, cmp.Or(a.Workload, a.PodName, a.NodeName)} {
		if s != "" {
			parts = append(parts, Line(s, maxName/3))
		}
	}
	return strings.Join(parts, " / ")
}

func where(a *event.Alert, e *event.Event, limit int) []Fact {
	c := cmp.Or(e.Container, &event.Container{})
	return facts(limit,
		Fact{"Cluster", a.Cluster}, Fact{"Namespace", a.PodNamespace}, Fact{"Workload", a.Workload}, Fact{"Pod", a.PodName},
		Fact{"Container", cmp.Or(c.Name, Line(c.ID, maxName))}, Fact{"Image", c.Image}, Fact{"Node", a.NodeName})
}

// tree shows how p came to be.
func tree(p *event.Process, limit int) []string {
	if p == nil {
		return nil
	}
	var generations []string
	older := p.Ancestors[min(maxAncestors, len(p.Ancestors)):]
	for _, a := range p.Ancestors[:len(p.Ancestors)-len(older)] {
		generations = append([]string{ancestor(a, limit)}, generations...)
	}
	if len(older) > 0 {
		generations = append([]string{fmt.Sprintf("(%d older)", len(older))}, generations...)
	}
	if p.Parent != nil {
		generations = append(generations, ancestor(*p.Parent, limit))
	}
	who := p.User
	if who == "" && p.UID != event.UnknownID {
		who = "uid " + strconv.FormatUint(uint64(p.UID), 10)
	}
	notes := ""
	if who != "" {
		notes = " as " + Line(who, maxName)
	}
	if p.ExeDeleted {
		notes += ", file deleted"
	}
	if p.Capture != event.CaptureFull && p.Capture != "" {
		notes += ", seen in part"
	}
	generations = append(generations, command(p.PID, p.Exe, notes, p.Cmdline, limit))
	for i := range generations {
		if i > 0 {
			generations[i] = strings.Repeat("   ", i-1) + "└─ " + generations[i]
		}
	}
	return generations
}

func ancestor(a event.Ancestor, limit int) string { return command(a.PID, a.Exe, "", a.Cmdline, limit) }

// command is "/bin/bash[4242] as root: bash -i".
func command(pid int32, exe, notes, cmdline string, limit int) string {
	s := Line(cmp.Or(exe, "?"), maxName) + "[" + strconv.Itoa(int(pid)) + "]" + notes
	if cmdline != "" {
		s += ": " + Line(cmdline, limit)
	}
	return Cut(s, limit)
}

func file(f *event.File, limit int) []Fact {
	was := cmp.Or(f.Previous, &f.FileState)
	change := func(old, now string) string {
		if old == "" || old == now {
			return now
		}
		return old + " → " + now
	}
	owner := func(s *event.FileState) string { return fmt.Sprintf("%s:%s", id(s.UID), id(s.GID)) }
	writers := make([]string, 0, len(f.Writers))
	for _, w := range f.Writers {
		confidence := "?"
		if w.Confidence >= 0 && w.Confidence <= 1 {
			confidence = strconv.Itoa(int(math.Round(w.Confidence*100))) + " %"
		}
		writers = append(writers, fmt.Sprintf("%s[%d] (%s sure)", w.Exe, w.PID, confidence))
	}
	return facts(limit,
		Fact{"File", f.Path}, Fact{"Operation", f.Operation}, Fact{"Mode", change(was.Mode, f.Mode)},
		Fact{"Owner", change(owner(was), owner(&f.FileState))},
		Fact{"Size", change(thousands(was.Size), thousands(f.Size)) + " bytes"},
		Fact{"SHA-256", f.SHA256}, Fact{"Written by", strings.Join(lines(writers, maxWriters, limit), ", ")})
}

func network(n *event.Network, limit int) []Fact {
	address := func(ip string, port uint16) string {
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		return ip + ":" + strconv.Itoa(int(port))
	}
	way := address(n.SrcIP, n.SrcPort) + " → " + address(n.DstIP, n.DstPort)
	if n.Direction == "listen" {
		way = address(n.SrcIP, n.SrcPort)
	}
	var notes []string
	if n.IsExternal {
		notes = append(notes, "outside of the cluster")
	}
	if n.IsSuspiciousPort {
		notes = append(notes, "suspicious port")
	}
	traffic := ""
	if n.BytesSent > 0 || n.BytesReceived > 0 {
		traffic = fmt.Sprintf("%d bytes sent, %d received", n.BytesSent, n.BytesReceived)
	}
	return facts(limit,
		Fact{"Connection", strings.TrimSpace(strings.Join([]string{n.Direction, n.Protocol, way}, " "))},
		Fact{"Note", strings.Join(notes, ", ")}, Fact{"State", n.State}, Fact{"Traffic", traffic})
}

func id(n uint32) string {
	if n == event.UnknownID {
		return "?"
	}
	return strconv.FormatUint(uint64(n), 10)
}

// facts are those that have a value, made fit to be shown.
func facts(limit int, all ...Fact) []Fact {
	var list []Fact
	for _, f := range all {
		if f.Value != "" {
			list = append(list, Fact{f.Name, Line(f.Value, limit)})
		}
	}
	return list
}

// lines are the first n of all, made fit to be shown, and what is left out.
func lines(all []string, n, limit int) []string {
	var list []string
	for _, s := range all[:min(n, len(all))] {
		list = append(list, Line(s, limit))
	}
	if left := len(all) - n; left > 0 {
		list = append(list, more(left))
	}
	return list
}

var (
	technique = regexp.MustCompile(`^T(\d{4})(?:\.(\d{3}))?$`)
	tactic    = regexp.MustCompile(`^TA\d{4}$`)
)

// techniqueURL is the page of a technique or tactic (attack.mitre.org/resources/faq: ids and pages).
func techniqueURL(id string) string {
	if tactic.MatchString(id) {
		return "https://attack.mitre.org/tactics/" + id + "/"
	}
	m := technique.FindStringSubmatch(id)
	switch {
	case m == nil:
		return ""
	case m[2] == "":
		return "https://attack.mitre.org/techniques/T" + m[1] + "/"
	default:
		return "https://attack.mitre.org/techniques/T" + m[1] + "/" + m[2] + "/"
	}
}

// thousands is n with a comma between groups of three digits.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	digits := strings.TrimPrefix(s, "-")
	var b strings.Builder
	b.WriteString(s[:len(s)-len(digits)])
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
