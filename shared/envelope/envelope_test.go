package envelope_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

var (
	source = envelope.Source{AgentID: "prod-1/node-a", Cluster: "prod-1"}
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
)

func newEvent(namespace string, s event.Severity) *event.Event {
	return &event.Event{ID: event.NewID(), AgentID: "prod-1/node-a", Type: event.NetworkConnect, Severity: s, Timestamp: noon, PodNamespace: namespace, Network: &event.Network{DstIP: "1.2.3.4"}}
}

func seal(events ...*event.Event) envelope.Message {
	var b envelope.Batch
	for _, e := range events {
		b.Append(e)
	}
	return b.Seal(source, noon)
}

func TestSealedEventsOpen(t *testing.T) {
	events := []*event.Event{newEvent("shop", event.Low), newEvent("shop", event.High), newEvent("shop", event.Info)}
	m := seal(events...)
	got, err := m.Events(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(events) {
		t.Fatalf("got %d events, want %d", len(got), len(events))
	}
	for i, raw := range got {
		e, err := event.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(events[i], e); diff != "" {
			t.Errorf("event %d (-want +got):\n%s", i, diff)
		}
	}
	id := m.Attributes["ce-id"]
	want := map[string]string{
		"ce-specversion": "1.0", "ce-id": id, "ce-type": "apss.events.v1", "ce-source": "//apss/prod-1/node-a",
		"ce-time": "2026-11-22T12:00:00.123456789Z", "content-type": "application/x-ndjson", "content-encoding": "zstd",
		"cluster": "prod-1", "namespace": "shop", "severity": "HIGH", "count": "3", "agent_id": "prod-1/node-a",
	}
	if diff := cmp.Diff(want, m.Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if len(id) != 36 || id[14] != '7' {
		t.Errorf("got ce-id %q, want a UUIDv7", id)
	}
}

func TestWrappedPush(t *testing.T) {
	m := seal(newEvent("shop", event.Low))
	body, err := json.Marshal(map[string]any{
		"message": map[string]any{"data": m.Data, "attributes": m.Attributes, "messageId": "17", "message_id": "17",
			"publishTime": noon.Format(time.RFC3339Nano), "publish_time": noon.Format(time.RFC3339Nano), "orderingKey": "k"},
		"subscription": "projects/p/subscriptions/s", "deliveryAttempt": 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/events/sweet", strings.NewReader(string(body)))
	r.Header.Set("Content-Type", "application/json")
	got, err := envelope.ReadPush(r)
	if err != nil {
		t.Fatal(err)
	}
	want := envelope.Push{Message: m, ID: "17", Subscription: "projects/p/subscriptions/s", OrderingKey: "k", PublishTime: noon, DeliveryAttempt: 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("push (-want +got):\n%s", diff)
	}
}

func TestMessageAsBytes(t *testing.T) {
	want := seal(newEvent("shop", event.Low))
	b := want.AppendBinary(nil)
	got, err := envelope.ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	for n := range b {
		if _, err := envelope.ParseMessage(b[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(b))
		}
	}
}

func TestForeignMessages(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    envelope.Message
		want error
	}{
		{"no type", envelope.Message{Data: []byte("{}")}, envelope.ErrType},
		{"unknown encoding", envelope.Message{Data: []byte("{}"), Attributes: map[string]string{"ce-type": envelope.TypeEvents, "content-encoding": "br"}}, envelope.ErrEncoding},
		{"not zstd", envelope.Message{Data: []byte("{}{}{}{}{}{}{}{}"), Attributes: map[string]string{"ce-type": envelope.TypeEvents, "content-encoding": "zstd"}}, envelope.ErrCorrupt},
		{"empty", envelope.Message{Attributes: map[string]string{"ce-type": envelope.TypeEvents}}, envelope.ErrCorrupt},
		{"not JSON", envelope.Message{Data: []byte("hello\n"), Attributes: map[string]string{"ce-type": envelope.TypeEvents}}, envelope.ErrCorrupt},
	} {
		if got, err := tt.m.Events(nil); !errors.Is(err, tt.want) || got != nil {
			t.Errorf("%s: got %v events and error %v, want none and %v", tt.name, got, err, tt.want)
		}
	}
}
