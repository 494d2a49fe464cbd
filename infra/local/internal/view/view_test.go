package view

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/infra/local/internal/ledger"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

func TestPrintable(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"/etc/passwd äöü 日本 🙂", "/etc/passwd äöü 日本 🙂"},
		{"\x1b[2J\x1b]0;title\a", `\x1b[2J\x1b]0;title\a`},
		{"a\nb\r\tc\x00\x7f", `a\nb\r\tc\x00\x7f`},
		{"\u009b31m", `\u009b31m`}, // CSI in one character
		{"\u202egnp.exe", `\u202egnp.exe`},
		{"a\u2028b", `a\u2028b`},
		{"\xff\xfe", `\xff\xfe`},
		{"\uFFFD", `\ufffd`},
		{"\u200b\u00ad", `\u200b\u00ad`},
	}
	for _, tt := range tests {
		if got := Printable(tt.in); got != tt.want {
			t.Errorf("Printable(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[31m\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		for _, r := range got {
			if !unicode.IsPrint(r) || r == utf8.RuneError {
				t.Fatalf("Printable(%q): got %q with %U in it", s, got, r)
			}
		}
	})
}

func TestCut(t *testing.T) {
	tests := []struct {
		in    string
		cells int
		want  string
	}{
		{"hello", 5, "hello"},
		{"hello", 4, "hel…"},
		{"hello", 1, "…"},
		{"hello", 0, ""},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
		{"e\u0301e\u0301", 2, "e\u0301e\u0301"},
		{"", 0, ""},
	}
	for _, tt := range tests {
		if got := cut(tt.in, tt.cells); got != tt.want {
			t.Errorf("cut(%q, %d): got %q, want %q", tt.in, tt.cells, got, tt.want)
		}
	}
	if got := pad("日本", 6); got != "日本  " {
		t.Errorf("got %q, want two spaces behind", got)
	}
}

func state(t *testing.T) (before, now State) {
	t.Helper()
	at := time.Date(2026, 11, 22, 10, 0, 10, 0, time.Local)
	encode := func(e *event.Event) event.Raw { return e.AppendJSON(nil) }
	hostile := encode(&event.Event{
		ID: event.NewID(), Type: "\x1b[8m", Severity: event.Critical, Timestamp: at.Add(-250 * time.Millisecond),
		File:      &event.File{Path: "/tmp/\x1b[2J\u202e" + strings.Repeat("日本", 200), Diff: "+\x1b[8m\u202e" + strings.Repeat("日", 90)},
		Container: &event.Container{Name: "\x1b[2J"}, Metadata: map[string]any{"renamed_from": "/\x1b[2J" + strings.Repeat("日本", 200)},
	})
	dialled := encode(&event.Event{
		ID: event.NewID(), Type: event.NetworkConnect, Severity: event.High, Timestamp: at.Add(-1500 * time.Millisecond),
		Network: &event.Network{Protocol: "tcp", Direction: "outbound", DstIP: "203.0.113.7", DstPort: 4444},
	})
	before = State{At: at.Add(-2 * time.Second), Agent: system.AgentCounts{Sensed: 100}, Books: ledger.Totals{Published: 90}}
	now = State{
		At: at, Started: at.Add(-65 * time.Second), Demo: "/tmp/x/watched", Log: "/tmp/x/log",
		Addresses: system.Addresses{PubSub: "127.0.0.1:1", Functions: "127.0.0.1:2", Agent: "127.0.0.1:3"},
		Agent:     system.AgentCounts{Sensed: 120, Sealed: 110, Dropped: 3},
		Books:     ledger.Totals{Published: 100, Delivered: 80, Dead: 2, InFlight: 18, DeliveredTwice: 1},
		Receivers: []Receiver{
			{
				Name: "sweetsecurity", Kind: "Sweet Security", Addr: "127.0.0.1:4", Alerts: system.Balance{Published: 9, Delivered: 9}, Held: 2,
				LastFailure: "HTTP status 503", Faults: standin.Faults{Status: 503, For: standin.Duration(3 * time.Second), Refuse: "\x1b[0m"}.String(),
			},
			{
				Name: "slack", Kind: "Slack", Addr: "127.0.0.1:5", Alerts: system.Balance{Published: 9, Delivered: 6, Waiting: 3, Twice: 1}, People: true, Shows: true,
				Messages: []standin.Message{
					{At: at, Title: "A shell\x1b[2J", Text: "A shell\x1b[2J\nCluster: \u202elocal\n" + strings.Repeat("日本\n", 40), Edits: 2, Thread: []string{"Again\a"}},
					{At: at, Title: "A miner", Text: "A miner\nwith more", State: "resolved"},
				},
			},
			{Name: "pagerduty", Kind: "PagerDuty", Addr: "127.0.0.1:6", People: true, Shows: true},
		},
		Arrivals: []system.Arrival{{Event: hostile, At: at}, {Event: dialled, At: at}, {Event: event.Raw("{\x1b"), At: at},
			{Event: encode(&event.Event{ID: event.NewID(), Type: event.AgentHeartbeat, AgentID: "local/n"}), At: at}},
		DeadReason: "HTTP 422\x1b]0;gotcha\a", Trouble: "agent\nended",
	}
	return before, now
}

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestFrame: in every size a frame fits, and nothing that an event or a receiver wrote works on the terminal.
func TestFrame(t *testing.T) {
	before, now := state(t)
	for _, cols := range []int{1, 20, 80, 120, 300} {
		for _, height := range []int{0, 5, 24, 90} {
			lines := Frame(before, now, Style{Width: cols, Height: height, Color: true})
			if len(lines) > height {
				t.Errorf("%dx%d: got %d lines", cols, height, len(lines))
			}
			for _, line := range lines {
				plain := sgr.ReplaceAllString(line, "")
				cells := 0
				for _, r := range plain {
					if !unicode.IsPrint(r) {
						t.Errorf("%dx%d: got %U in %q", cols, height, r, plain)
					}
					cells += width(r)
				}
				if cells > max(cols, 23) { // an arrival's time and severity are never cut
					t.Errorf("%dx%d: got %d cells: %q", cols, height, cells, plain)
				}
			}
		}
	}
}

func TestFrameSays(t *testing.T) {
	before, now := state(t)
	text := strings.Join(Frame(before, now, Style{Width: 120, Height: 90}), "\n")
	if strings.Contains(text, "\x1b") {
		t.Error("got escapes in a frame without color")
	}
	for _, want := range []string{
		"for 1m5s", "http://127.0.0.1:3/metrics", "/tmp/x/watched", "curl http://127.0.0.1:4/_faults",
		" 10/s", " 5/s", " Sweet Security: status 503, refuses", "for 3s more",
		"push to Sweet Security: 2 messages wait, last failure: HTTP status 503", "Slack's stand-in",
		"published 9 = told 6 + dead 0 + waiting 3 of repeats too; 1 twice", "Slack shows", `A shell\x1b[2J  (edited 2×)  (1 in its thread)`,
		`Cluster: \u202elocal`, "lines more", "[resolved] A miner", "PagerDuty shows\n nothing yet", "3 events dropped", `HTTP 422\x1b]0;gotcha\a`, `agent\nended`,
		`CRITICAL  \x1b[8m          250ms   /tmp/\x1b[2J\u202e日`, "HIGH      network_connect  1.5s    tcp outbound 203.0.113.7:4444",
		"agent_heartbeat of local/n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got no %q in\n%s", want, text)
		}
	}
	want := "sensed 120, sealed 110, published 100, delivered 80, dead letters 2, in flight 18, twice 1; Sweet Security: status 503"
	if got := Line(now); !strings.HasPrefix(got, want) {
		t.Errorf("got the line %q, want it to start with %q", got, want)
	}
}

func TestEssence(t *testing.T) {
	tests := []struct {
		e    event.Event
		want string
	}{
		{event.Event{Process: &event.Process{Cmdline: "bash -i", Exe: "/bin/bash"}}, "bash -i"},
		{event.Event{Process: &event.Process{Exe: "/bin/bash"}}, "/bin/bash"},
		{event.Event{Process: &event.Process{PID: 7}}, "pid 7"},
		{event.Event{File: &event.File{Path: "/a"}, Process: &event.Process{Exe: "/b"}}, "/a"},
		{event.Event{Network: &event.Network{Protocol: "tcp", Direction: "listen", SrcIP: "::", SrcPort: 80}}, "tcp listens on [::]:80"},
		{event.Event{Network: &event.Network{Protocol: "tcp", Direction: "outbound", DstIP: "::1", DstPort: 80}}, "tcp outbound [::1]:80"},
		{event.Event{Type: event.AgentHeartbeat, AgentID: "c/n"}, "agent_heartbeat of c/n"},
	}
	got, want := make([]string, len(tests)), make([]string, len(tests))
	for i, tt := range tests {
		got[i], want[i] = Essence(&tt.e), tt.want
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDetail(t *testing.T) {
	shell := &event.Process{
		PID: 9, Exe: "/bin/sh", Cmdline: "sh /tmp/x.sh", Capture: event.CaptureFull, Parent: &event.Ancestor{PID: 7, Exe: "/usr/sbin/sshd"},
		Ancestors: []event.Ancestor{{PID: 1, Cmdline: "/sbin/init splash"}},
	}
	for want, e := range map[string]*event.Event{
		"": {Type: event.AgentHeartbeat},
		"in default/web/app · script /tmp/x.sh · from sshd[7] ← init[1]": {
			Type: event.ProcessExec, Process: shell, Metadata: map[string]any{"script": "/tmp/x.sh"},
			PodName: "web", PodNamespace: "default", Container: &event.Container{ID: "abc", Name: "app"},
		},
		"in 0123456789ab · known by name only": {
			Process: &event.Process{Exe: "/bin/x", Capture: event.CaptureName}, Container: &event.Container{ID: "0123456789abcdef"},
		},
		"in default/web · mode 0666, was 0644 · +2 −1 lines +eve::0:0 · perhaps by sed[9] 50%, pid 8 20% · found by a rescan": {
			File: &event.File{
				Path: "/etc/passwd", FileState: event.FileState{Mode: "0666"}, Previous: &event.FileState{Mode: "0644"},
				Diff:    "--- before\n+++ after\n@@ -1 +1,2 @@\n-a\n+eve::0:0\n+b\n",
				Writers: []event.Writer{{PID: 9, Exe: "/bin/sed", Confidence: .5}, {PID: 8, Confidence: .2}},
			}, PodName: "web", PodNamespace: "default", Metadata: map[string]any{"rescan": true},
		},
		"by sh[9] · talks over a socket · from sshd[7] ← init[1]": {
			Network: &event.Network{Direction: "outbound"}, Process: shell, Metadata: map[string]any{"stdio_socket": true},
		},
	} {
		if got := Detail(e); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	before, now := state(&testing.T{})
	for b.Loop() {
		var out bytes.Buffer
		for _, line := range Frame(before, now, Style{Width: 120, Height: 40, Color: true}) {
			out.WriteString(line)
		}
	}
}
