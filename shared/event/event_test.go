package event_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func TestSeverity(t *testing.T) {
	for i, name := range []string{"INFO", "LOW", "MEDIUM", "HIGH", "CRITICAL"} {
		s := event.Severity(i)
		if s.String() != name {
			t.Errorf("got %q for %d, want %q", s, i, name)
		}
		if text, err := s.MarshalText(); err != nil || string(text) != name {
			t.Errorf("%s: got text %q and error %v", name, text, err)
		}
		for _, in := range []string{name, strings.ToLower(name), name[:1] + strings.ToLower(name[1:])} {
			got := event.Severity(99)
			if err := got.UnmarshalText([]byte(in)); err != nil || got != s {
				t.Errorf("%q: got %v and error %v, want %v", in, got, err, s)
			}
		}
	}
	if _, err := event.Severity(5).MarshalText(); err == nil {
		t.Error("severity 5 was marshaled")
	}
	if got, want := event.Severity(5).String(), "Severity(5)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, in := range []string{"", "WARN", "HIGH ", "5", "ıNFO"} {
		got := event.High
		if err := got.UnmarshalText([]byte(in)); err == nil || got != event.High {
			t.Errorf("%q: got %v and error %v, want an error and nothing changed", in, got, err)
		}
	}
}

func TestTypes(t *testing.T) {
	want := strings.Fields(`process_exec process_exit file_create file_modify file_delete file_rename file_chmod file_chown
		file_read network_connect network_listen network_close admission_pod admission_exec agent_heartbeat agent_coverage
		integration_test agent_identity_conflict`)
	var got []string
	for _, typ := range event.Types() {
		got = append(got, string(typ))
		if !typ.Known() {
			t.Errorf("%q is not known", typ)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got types %v, want %v", got, want)
	}
	for _, typ := range []event.Type{"", "process", "PROCESS_EXEC", "process_exec "} {
		if typ.Known() {
			t.Errorf("%q is known", typ)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		from   func() *event.Event
		change func(*event.Event)
		want   []string // parts of the error, each about one fault; none: valid
	}{
		{"exec", eventtest.Exec, func(*event.Event) {}, nil},
		{"file", eventtest.FileModify, func(*event.Event) {}, nil},
		{"connect", eventtest.Connect, func(*event.Event) {}, nil},
		{"no process on a file event", eventtest.FileModify, func(e *event.Event) { e.Process = nil }, nil},
		{"heartbeat", eventtest.Exec, func(e *event.Event) { e.Type, e.Process = event.AgentHeartbeat, nil }, nil},
		{"IPv6", eventtest.Connect, func(e *event.Event) { e.Network.DstIP = "2001:db8::1" }, nil},
		{"no addresses", eventtest.Connect, func(e *event.Event) { e.Network.SrcIP, e.Network.DstIP = "", "" }, nil},
		{"unknown uid", eventtest.Exec, func(e *event.Event) { e.Process.UID = event.UnknownID }, nil},

		{"no id", eventtest.Exec, func(e *event.Event) { e.ID = "" }, []string{`id "" is not a UUID`}},
		{"id in another form", eventtest.Exec, func(e *event.Event) { e.ID = strings.ReplaceAll(e.ID, "-", "") }, []string{"is not a UUID"}},
		{"no agent", eventtest.Exec, func(e *event.Event) { e.AgentID = "" }, []string{"agent_id is empty"}},
		{"unknown type", eventtest.Exec, func(e *event.Event) { e.Type = "process_dream" }, []string{`type "process_dream" is unknown`}},
		{"severity", eventtest.Exec, func(e *event.Event) { e.Severity = 9 }, []string{"severity 9 does not exist"}},
		{"no time", eventtest.Exec, func(e *event.Event) { e.Timestamp = time.Time{} }, []string{"timestamp is missing"}},
		{"no process", eventtest.Exec, func(e *event.Event) { e.Process = nil }, []string{"a process_exec event has no process"}},
		{"no file", eventtest.FileModify, func(e *event.Event) { e.File = nil }, []string{"a file_modify event has no file"}},
		{"no network", eventtest.Connect, func(e *event.Event) { e.Network = nil }, []string{"a network_connect event has no network"}},
		{"negative pid", eventtest.Exec, func(e *event.Event) { e.Process.PID = -1 }, []string{"negative pid"}},
		{"capture", eventtest.Exec, func(e *event.Event) { e.Process.Capture = "" }, []string{`process.capture ""`}},
		{"no path", eventtest.FileModify, func(e *event.Event) { e.File.Path = "" }, []string{"file.path is empty"}},
		{"operation", eventtest.FileModify, func(e *event.Event) { e.File.Operation = "delete" }, []string{`file.operation "delete" contradicts type "file_modify"`}},
		{"address", eventtest.Connect, func(e *event.Event) { e.Network.DstIP = "1.2.3" }, []string{`network.dst_ip "1.2.3"`}},
		{"everything at once", func() *event.Event { return &event.Event{Type: event.ProcessExec} }, func(*event.Event) {},
			[]string{"is not a UUID", "agent_id", "timestamp", "has no process"}},
	} {
		e := tt.from()
		tt.change(e)
		checkFaults(t, tt.name, e.Validate(), tt.want)
	}
}

func TestValidateAlert(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*event.Alert)
		want   []string
	}{
		{"full", func(*event.Alert) {}, nil},
		{"no event", func(a *event.Alert) { a.Event = nil }, nil},
		{"id", func(a *event.Alert) { a.ID = "x" }, []string{`id "x" is not a UUID`}},
		{"rule", func(a *event.Alert) { a.RuleID = "" }, []string{"rule_id is empty"}},
		{"severity", func(a *event.Alert) { a.Severity = 7 }, []string{"severity 7"}},
		{"time", func(a *event.Alert) { a.Timestamp = time.Time{} }, []string{"timestamp is missing"}},
		{"fingerprint", func(a *event.Alert) { a.Fingerprint = "" }, []string{"fingerprint is empty"}},
		{"count", func(a *event.Alert) { a.Count = 0 }, []string{"count 0"}},
		{"event", func(a *event.Alert) { a.Event.Type = "?"; a.Event.AgentID = "" }, []string{`event: agent_id is empty`, `type "?" is unknown`}},
	} {
		a := eventtest.Alert()
		tt.change(a)
		checkFaults(t, tt.name, a.Validate(), tt.want)
	}
}

func checkFaults(t *testing.T, name string, err error, want []string) {
	t.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d faults %q, want %d", name, len(got), got, len(want))
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%s: got fault %q, want one with %q", name, got[i], want[i])
		}
	}
}

func TestFingerprint(t *testing.T) {
	base := event.Fingerprint("APSS-001", eventtest.Connect(), "1.2.3.4", "4444")
	if len(base) != 32 || strings.Trim(base, "0123456789abcdef") != "" {
		t.Fatalf("got %q, want 32 hex digits", base)
	}
	for _, tt := range []struct {
		name     string
		rule     string
		change   func(*event.Event)
		grouping []string
		same     bool
	}{
		{"a repeat", "APSS-001", func(e *event.Event) {
			e.ID, e.Timestamp, e.Severity = event.NewID(), e.Timestamp.Add(time.Hour), event.Low
			e.AgentID, e.NodeName, e.PodName = "prod-1/n2", "n2", "my-app-7d4b9c6f5d-zzzzz"
			e.Process, e.Network, e.Container, e.Rules = nil, nil, nil, nil
		}, []string{"1.2.3.4", "4444"}, true},
		{"another rule", "APSS-002", func(*event.Event) {}, []string{"1.2.3.4", "4444"}, false},
		{"another cluster", "APSS-001", func(e *event.Event) { e.Cluster = "prod-2" }, []string{"1.2.3.4", "4444"}, false},
		{"another namespace", "APSS-001", func(e *event.Event) { e.PodNamespace = "shop" }, []string{"1.2.3.4", "4444"}, false},
		{"another workload", "APSS-001", func(e *event.Event) { e.Workload = "Deployment/other" }, []string{"1.2.3.4", "4444"}, false},
		{"no workload", "APSS-001", func(e *event.Event) { e.Workload = "" }, []string{"1.2.3.4", "4444"}, false},
		{"other values", "APSS-001", func(*event.Event) {}, []string{"1.2.3.4", "4445"}, false},
		{"the values in another order", "APSS-001", func(*event.Event) {}, []string{"4444", "1.2.3.4"}, false},
		{"a value fewer", "APSS-001", func(*event.Event) {}, []string{"1.2.3.4"}, false},
		{"an empty value more", "APSS-001", func(*event.Event) {}, []string{"1.2.3.4", "4444", ""}, false},
		{"values that join to the same text", "APSS-001", func(*event.Event) {}, []string{"1.2.3.44", "444"}, false},
	} {
		e := eventtest.Connect()
		tt.change(e)
		if got := event.Fingerprint(tt.rule, e, tt.grouping...); (got == base) != tt.same {
			t.Errorf("%s: got %s, the base is %s, want same %v", tt.name, got, base, tt.same)
		}
	}
	lone := func(pod string) string {
		e := eventtest.Connect()
		e.Workload, e.PodName = "", pod
		return event.Fingerprint("APSS-001", e)
	}
	if lone("a") == lone("b") {
		t.Error("two pods without a workload have the same fingerprint")
	}
	// Fingerprints outlive versions: an open incident must not become a new one by an upgrade.
	if want := "88d0db676673d5f4f83d371e5354fbe6"; base != want {
		t.Errorf("got %s, want %s as ever", base, want)
	}
}
