package detect

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// source makes choices from bytes, so that a fuzzer can steer them; when they run out it goes on by itself.
type source struct {
	data  []byte
	state uint64
}

func (s *source) n(n int) int {
	if len(s.data) > 0 {
		b := s.data[0]
		s.data = s.data[1:]
		s.state = s.state*31 + uint64(b)
		return int(b) % n
	}
	s.state = s.state*6364136223846793005 + 1442695040888963407
	return int(s.state>>33) % n
}

func (s *source) chance(percent int) bool { return s.n(100) < percent }

func pick[T any](s *source, from ...T) T { return from[s.n(len(from))] }

// fragments are few, so that rules and events meet.
var fragments = []string{"bash", "BASH", "/bin/", "/tmp/", "-i", "curl ", "a", "b", "é", "É", "K", "ſh", "sh", ".", "10", "4444", "root", "x?y", "s*", `\`, "nc -e", "\xff"}

func (s *source) word() string {
	var b strings.Builder
	for range s.n(4) {
		b.WriteString(pick(s, fragments...))
	}
	return b.String()
}

// quoted is a word as a YAML text; bytes that YAML does not take are left out.
func (s *source) quoted(wild bool) string {
	w := s.word()
	if wild && s.chance(30) {
		w = pick(s, "*", "?", `\*`, `\\`, "**") + w + pick(s, "", "*", "?", `\?`)
		w += s.word()
	}
	return "'" + strings.ReplaceAll(strings.ToValidUTF8(w, ""), "'", "''") + "'"
}

var generatedFields = map[string][]string{
	"process_creation": {
		"Image", "CommandLine", "ParentImage", "CurrentDirectory", "User", "process.args", "process.args.1", "process.name",
		"process.ancestors.exe", "metadata.note", "metadata.a.b", "IntegrityLevel", "container.image",
	},
	"file_event":         {"TargetFilename", "Image", "file.name", "file.mode", "file.writers.exe", "file.previous.sha256"},
	"network_connection": {"DestinationIp", "SourceIp", "network.state", "Image", "DestinationHostname"},
	"auditd":             {"type", "a0", "a1", "a2", "name", "nametype", "exe", "comm", "SYSCALL", "key"},
}

var numberFields = map[string][]string{
	"process_creation":   {"LogonId", "ProcessId", "process.login_uid", "metadata.count", "process.session_id"},
	"file_event":         {"file.size", "file.uid", "file.previous.gid"},
	"network_connection": {"DestinationPort", "SourcePort", "network.bytes_sent"},
	"auditd":             {"uid", "pid", "ses"},
}

// rules writes n rules, and filters and exceptions for them, as YAML. They are always valid.
func (s *source) rules(n int) string {
	var docs []string
	var of []string // the rules' categories
	for i := range n {
		of = append(of, pick(s, "process_creation", "process_creation", "file_event", "network_connection", "auditd"))
		docs = append(docs, s.rule(fmt.Sprintf("r%d", i), of[i], "detection"))
	}
	for i := range s.n(4) {
		about := s.n(n)
		targets := pick(s, "any", fmt.Sprintf("[r%d]", about))
		if s.chance(50) {
			docs = append(docs, s.rule(fmt.Sprintf("f%d", i), of[about], "filter")+"    rules: "+targets+"\n")
		} else {
			docs = append(docs, "exceptions:\n    - rules: "+targets+"\n      reason: x\n"+s.places(of[about]))
		}
	}
	return strings.Join(docs, "---\n")
}

// places writes where an exception holds.
func (s *source) places(category string) string {
	keys := map[string][]string{
		"namespaces": {"a", "bash", "'*'", "'b*'", "'?'"}, "workloads": {"a/b", "'*/*'", "'?/b*'"}, "images": {"a:1", "'a:*'", "'**'", "'*'"},
		"exes": {"/bin/bash", "'/bin/*'", "/tmp/?", "'/**'", "/bin/BASH"},
	}
	switch category {
	case "file_event", "auditd":
		keys["paths"] = keys["exes"]
	case "network_connection":
		keys["addresses"] = []string{"10.0.0.1", "10.0.0.0/8", "'::ffff:10.1.2.3'", "fc00::/7"}
	}
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if s.chance(30) {
			fmt.Fprintf(&b, "      %s: [%s, %s]\n", key, pick(s, keys[key]...), pick(s, keys[key]...))
		}
	}
	if b.Len() == 0 {
		b.WriteString("      namespaces: a\n")
	}
	if s.chance(30) {
		fmt.Fprintf(&b, "      expires: 202%d-06-30\n", s.n(9))
	}
	return b.String()
}

// rule writes a rule or filter; section is its key.
func (s *source) rule(id, category, section string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "title: %s\nid: %s\nlogsource:\n    ", id, id)
	if category == "auditd" {
		b.WriteString("service: auditd\n")
	} else {
		fmt.Fprintf(&b, "category: %s\n", category)
	}
	b.WriteString(section + ":\n")
	names := []string{"sel_a", "sel_b", "flt_a", "flt_b"}[:1+s.n(4)]
	for _, name := range names {
		fmt.Fprintf(&b, "    %s:\n", name)
		switch {
		case s.chance(10):
			for range 1 + s.n(3) {
				fmt.Fprintf(&b, "        - %s\n", s.quoted(true))
			}
		case s.chance(25):
			for range 1 + s.n(3) {
				fmt.Fprintf(&b, "        - %s\n", strings.TrimSpace(s.item(category)))
			}
		default:
			seen := map[string]bool{}
			for range 1 + s.n(3) {
				item := s.item(category)
				if key, _, _ := strings.Cut(item, ":"); !seen[key] {
					seen[key] = true
					b.WriteString("        " + item + "\n")
				}
			}
		}
	}
	fmt.Fprintf(&b, "    condition: %s\n", s.condition(names, 2))
	return b.String()
}

func (s *source) condition(names []string, depth int) string {
	if depth == 0 || s.chance(30) {
		switch {
		case s.chance(20):
			return pick(s, "1 of ", "all of ") + "sel*"
		case s.chance(10):
			return pick(s, "1 of them", "all of them")
		case len(names) > 2 && s.chance(20):
			return "2 of them"
		}
		return pick(s, names...)
	}
	x, y := s.condition(names, depth-1), s.condition(names, depth-1)
	switch s.n(4) {
	case 0:
		return x + " and " + y
	case 1:
		return x + " or " + y
	case 2:
		return "not " + x
	default:
		return "(" + x + " or " + y + ") and not (" + x + ")"
	}
}

func (s *source) item(category string) string {
	if s.chance(15) {
		f := pick(s, numberFields[category]...)
		if s.chance(50) {
			return fmt.Sprintf("%s|%s: %d", f, pick(s, "lt", "lte", "gt", "gte"), s.n(12))
		}
		return fmt.Sprintf("%s%s: %d", f, pick(s, "", "", "|neq", "|contains"), pick(s, 0, 1, 4444, 10))
	}
	f := pick(s, generatedFields[category]...)
	switch s.n(14) {
	case 0:
		return fmt.Sprintf("%s: %s", f, pick(s, "null", "''", "'*'", "'?*'"))
	case 1:
		return fmt.Sprintf("%s|exists: %v", f, s.chance(50))
	case 2:
		return fmt.Sprintf("%s|re%s: '%s'", f, pick(s, "", "|i", "|s", "|i|m"), pick(s, "bash", "^/bin", "(sh|nc)", "[a-k]+.h$", `\.`, "(?:curl|b{2})", "é", "K", "(a|)b", "x?y"))
	case 3:
		return fmt.Sprintf("%s|fieldref%s: %s", f, pick(s, "", "|contains", "|startswith", "|endswith", "|cased", "|neq"), pick(s, generatedFields[category]...))
	case 4:
		return fmt.Sprintf("%s|cidr: %s", f, pick(s, "10.0.0.0/8", "'::/0'", "fc00::/7", "10.0.0.1/32"))
	case 5:
		return fmt.Sprintf("timestamp|%s: %d", pick(s, "hour", "minute|gt", "week|lte", "year|gte", "day|lt"), s.n(30))
	}
	modifiers := pick(s, "", "|contains", "|startswith", "|endswith", "|contains|cased", "|cased", "|endswith|neq", "|contains|windash", "|base64offset|contains", "|startswith|cased")
	wild := !strings.Contains(modifiers, "base64")
	one := func() string {
		v := s.quoted(wild)
		if strings.Contains(modifiers, "windash") && strings.Count(v, "/")+strings.Count(v, "-") > 4 {
			return "'-i'" // more dashes than Parse lets windash vary
		}
		if wild || v != "''" && !strings.ContainsAny(v, "*?") {
			return v
		}
		return "'curl'"
	}
	if s.chance(50) {
		return f + modifiers + ": " + one()
	}
	values := make([]string, 2+s.n(3))
	for i := range values {
		values[i] = one()
	}
	if s.chance(30) {
		modifiers += "|all"
	}
	return f + modifiers + ": [" + strings.Join(values, ", ") + "]"
}

// event makes an event that validates as far as detection cares.
func (s *source) event() *event.Event {
	e := &event.Event{
		ID: "0", Timestamp: time.Date(2020+s.n(8), time.Month(1+s.n(12)), 1+s.n(28), s.n(24), s.n(60), 0, 0, time.UTC),
		Type:    pick(s, event.ProcessExec, event.ProcessExec, event.FileCreate, event.FileModify, event.FileDelete, event.NetworkConnect, event.ProcessExit),
		PodName: s.word(), PodNamespace: pick(s, "", "a", "bash", s.word()), Workload: pick(s, "", "a/b", "a/"+s.word()),
	}
	if s.chance(80) || e.Type == event.ProcessExec {
		e.Process = &event.Process{
			PID: int32(s.n(12)), Exe: s.word(), Cmdline: s.word() + s.word(), Cwd: s.word(), User: s.word(),
			UID: pick[uint32](s, 0, 1, event.UnknownID, 4444), LoginUID: pick(s, uint32(event.UnknownID), 10), SessionID: uint32(s.n(12)),
		}
		for range s.n(4) {
			e.Process.Args = append(e.Process.Args, s.word())
		}
		if s.chance(50) {
			e.Process.Parent = &event.Ancestor{PID: 1, Exe: s.word(), Cmdline: s.word()}
			e.Process.Ancestors = []event.Ancestor{{Exe: s.word()}, {Exe: s.word()}}
		}
	}
	if family := string(e.Type); strings.HasPrefix(family, "file") || s.chance(5) {
		e.File = &event.File{Path: s.word(), FileState: event.FileState{Mode: pick(s, "", "0644"), UID: uint32(s.n(12)), Size: int64(s.n(12))}}
		if s.chance(50) {
			e.File.Previous = &event.FileState{Mode: pick(s, "", "0644"), GID: 10, SHA256: s.word()}
			e.File.Writers = []event.Writer{{Exe: s.word()}}
		}
	}
	if e.Type == event.NetworkConnect {
		e.Network = &event.Network{
			DstIP: pick(s, "10.0.0.1", "fc00::1", "::ffff:10.1.2.3", "192.168.1.1", ""), SrcIP: pick(s, "10.0.0.1", "fe80::1%eth0", "x"),
			DstPort: pick[uint16](s, 0, 10, 4444), SrcPort: uint16(s.n(12)), State: s.word(), BytesSent: uint64(s.n(12)),
			Direction: pick(s, "", "outbound", "inbound"),
		}
	}
	if s.chance(50) {
		e.Metadata = map[string]any{"note": s.word(), "count": pick[any](s, 10, 4444.0, "10", true, []string{s.word(), "10"}), "a": map[string]any{"b": s.word()}}
	}
	if s.chance(20) {
		e.Container = &event.Container{Image: pick(s, "a:1", s.word())}
	}
	return e
}
