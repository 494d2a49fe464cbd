package envelope_test

import (
	"net/url"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func TestNamespaceAndSeverityOfABatch(t *testing.T) {
	for _, tt := range []struct {
		name                string
		events              []*event.Event
		namespace, severity string
	}{
		{"one", []*event.Event{newEvent("shop", event.Info)}, "shop", "INFO"},
		{"shared", []*event.Event{newEvent("shop", event.Critical), newEvent("shop", event.Low)}, "shop", "CRITICAL"},
		{"mixed", []*event.Event{newEvent("shop", event.Low), newEvent("data", event.Medium)}, "", "MEDIUM"},
		{"mixed, first again", []*event.Event{newEvent("a", 0), newEvent("b", 0), newEvent("a", 0)}, "", "INFO"},
		{"none", []*event.Event{newEvent("", event.High), newEvent("", event.Low)}, "", "HIGH"},
		{"none first", []*event.Event{newEvent("", event.Low), newEvent("shop", event.Low)}, "", "LOW"},
		{"none last", []*event.Event{newEvent("shop", event.Low), newEvent("", event.Low)}, "", "LOW"},
	} {
		m := seal(tt.events...)
		if got := m.Attributes["namespace"]; got != tt.namespace {
			t.Errorf("%s: got namespace %q, want %q", tt.name, got, tt.namespace)
		}
		if _, there := m.Attributes["namespace"]; there != (tt.namespace != "") {
			t.Errorf("%s: the attribute namespace is there: %v", tt.name, there)
		}
		if got := m.Attributes["severity"]; got != tt.severity {
			t.Errorf("%s: got severity %q, want %q", tt.name, got, tt.severity)
		}
	}
}

// TestHeartbeats: who wants heartbeats can filter for them, whoever encoded the events, and is not told of them by names.
func TestHeartbeats(t *testing.T) {
	beat := &event.Event{ID: event.NewID(), AgentID: "c/n", Type: event.AgentHeartbeat, Timestamp: noon}
	liar := newEvent("shop", event.Low)
	liar.Process = &event.Process{Cmdline: `x "type":"agent_heartbeat"`, Args: []string{`"type":"agent_heartbeat"`}}
	liar.Metadata = map[string]any{"agent_heartbeat": "type"}
	for _, tt := range []struct {
		name   string
		events []*event.Event
		want   string
	}{
		{"none", []*event.Event{newEvent("shop", event.Low)}, ""},
		{"one of three", []*event.Event{newEvent("shop", event.Low), beat, newEvent("shop", event.Low)}, "1"},
		{"two", []*event.Event{beat, beat}, "2"},
		{"in texts", []*event.Event{liar}, ""},
	} {
		var encoded, raw envelope.Batch
		for _, e := range tt.events {
			encoded.Append(e)
			raw.AppendRaw(e.AppendJSON(nil), e.Severity, e.PodNamespace)
		}
		for way, b := range map[string]*envelope.Batch{"Append": &encoded, "AppendRaw": &raw} {
			m := b.Seal(source, noon)
			if got, there := m.Attributes["heartbeats"]; got != tt.want || there != (tt.want != "") {
				t.Errorf("%s, %s: got heartbeats %q, want %q", tt.name, way, got, tt.want)
			}
			b.Append(newEvent("", event.Low))
			if got, there := b.Seal(source, noon).Attributes["heartbeats"]; there {
				t.Errorf("%s, %s: the next message has heartbeats %q, want none", tt.name, way, got)
			}
		}
	}
}

func TestBatchIsReused(t *testing.T) {
	var b envelope.Batch
	if b.Len() != 0 || b.Size() != 0 {
		t.Errorf("a new batch has %d events of %d bytes", b.Len(), b.Size())
	}
	first := newEvent("shop", event.Critical)
	b.Append(first)
	if want := len(first.AppendJSON(nil)) + 1; b.Len() != 1 || b.Size() != want {
		t.Errorf("got %d events of %d bytes, want 1 of %d", b.Len(), b.Size(), want)
	}
	m := b.Seal(source, noon)
	kept := string(m.Data)
	if b.Len() != 0 || b.Size() != 0 {
		t.Errorf("a sealed batch has %d events of %d bytes", b.Len(), b.Size())
	}
	b.Append(newEvent("", event.Low))
	b.Append(newEvent("", event.Low))
	again := b.Seal(source, noon)
	if string(m.Data) != kept {
		t.Error("sealing the second message changed the first")
	}
	want := map[string]string{"severity": "LOW", "count": "2", "namespace": ""}
	for name, value := range want {
		if got := again.Attributes[name]; got != value {
			t.Errorf("second message: got %s %q, want %q", name, got, value)
		}
	}
	if m.Attributes["ce-id"] == again.Attributes["ce-id"] {
		t.Error("two messages have the same ce-id")
	}
	defer func() {
		if recover() == nil {
			t.Error("an empty batch was sealed")
		}
	}()
	b.Seal(source, noon)
}

// Whatever the names are, Pub/Sub must take the attributes: one that it refuses fails a whole publish request.
func TestAttributesAreWithinLimits(t *testing.T) {
	for name, hostile := range map[string]string{
		"long":             strings.Repeat("x", 5000),
		"long in runes":    strings.Repeat("é", 2000),
		"long, odd runes":  "x" + strings.Repeat("€", 2000),
		"long in escapes":  "x" + strings.Repeat("%", 2000),
		"invalid UTF-8":    "node\xff\xfe",
		"cut by the limit": strings.Repeat("x", 1023) + "é",
		"separators":       "a//b?c#d e@f:g[h]",
		"controls":         "a\x00b\nc\x1b",
	} {
		e := newEvent(hostile, event.Low)
		var b envelope.Batch
		b.Append(e)
		s := envelope.Source{AgentID: hostile, Cluster: hostile}
		a := eventtest.Alert()
		a.RuleID, a.PodNamespace = hostile, hostile
		for _, m := range []envelope.Message{b.Seal(s, noon), envelope.SealAlert(a, s, noon)} {
			for key, value := range m.Attributes {
				if len(value) > 1024 || len(value) == 0 || !utf8.ValidString(value) {
					t.Errorf("%s: attribute %s of %d bytes, valid UTF-8: %v", name, key, len(value), utf8.ValidString(value))
				}
			}
			uri, err := url.Parse(m.Attributes["ce-source"])
			if err != nil || uri.Host != "apss" || uri.RawQuery != "" || uri.Fragment != "" {
				t.Errorf("%s: got ce-source %q and error %v, want a URI of host apss", name, m.Attributes["ce-source"], err)
			} else if path := strings.TrimPrefix(uri.Path, "/"); !strings.HasPrefix(hostile, path) {
				t.Errorf("%s: ce-source stands for %q, want the start of %q", name, path, hostile)
			}
		}
	}
}

func TestSealedAlertOpens(t *testing.T) {
	want := eventtest.Alert()
	m := envelope.SealAlert(want, source, noon)
	got, err := m.Alert()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alert (-want +got):\n%s", diff)
	}
	attributes := map[string]string{
		"ce-specversion": "1.0", "ce-id": m.Attributes["ce-id"], "ce-type": "apss.alert.v1", "ce-source": "//apss/prod-1/node-a",
		"ce-time": "2026-11-22T12:00:00.123456789Z", "content-type": "application/json",
		"cluster": "prod-1", "namespace": "default", "severity": "CRITICAL", "count": "3", "rule": "APSS-001", "agent_id": "prod-1/node-a",
	}
	if diff := cmp.Diff(attributes, m.Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
}

func TestSealingConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			for range 20 {
				events := eventtest.Many(20, seed)
				got, err := seal(events...).Events(nil)
				if err != nil {
					t.Error(err)
					return
				}
				for i, raw := range got {
					if want := events[i].AppendJSON(nil); string(raw) != string(want) {
						t.Errorf("event %d: got %s, want %s", i, raw, want)
					}
				}
			}
		})
	}
	wg.Wait()
}
