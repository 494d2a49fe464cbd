package agent

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// TestMain opens a message before any test: the decoder that package envelope keeps then belongs to no synctest bubble.
func TestMain(m *testing.M) {
	var b envelope.Batch
	b.Append(&event.Event{})
	if _, err := b.Seal(envelope.Source{}, time.Now()).Events(nil); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestPacking holds the agent's messages against those that the same events make unencoded.
func TestPacking(t *testing.T) {
	source, now := envelope.Source{AgentID: "c/n", Cluster: "c"}, time.Now()
	for _, c := range []struct {
		name       string
		namespaces []string
		severities []event.Severity
	}{
		{"one", []string{"a"}, []event.Severity{event.Info}},
		{"no namespace", []string{""}, []event.Severity{event.Low}},
		{"several of one namespace", []string{"a", "a", "a"}, []event.Severity{event.Critical, event.Low, event.Info}},
		{"several namespaces", []string{"a", "b", "a"}, []event.Severity{event.High, event.Low, event.Low}},
		{"a namespace and none", []string{"", "b"}, []event.Severity{event.High, event.Low}},
	} {
		t.Run(c.name, func(t *testing.T) {
			buf := buffer.New(buffer.Limits{Count: 10, Bytes: 1 << 20})
			var batch envelope.Batch
			for i, ns := range c.namespaces { // the most severe first, as the buffer hands them out
				e := &event.Event{ID: event.NewID(), Severity: c.severities[i], PodNamespace: ns, Timestamp: now}
				batch.Append(e)
				buf.Put(e.Severity, ns, e.AppendJSON(nil))
			}
			want := batch.Seal(source, now)
			payload, items := newEnvelopes(source, Seal{Count: 100, Bytes: 1 << 20}).pack(buf, now)
			if items != len(c.namespaces) {
				t.Errorf("got %d items, want %d", items, len(c.namespaces))
			}
			got, err := envelope.ParseMessage(payload)
			if err != nil {
				t.Fatal(err)
			}
			gotEvents, err := got.Events(nil)
			if err != nil {
				t.Fatal(err)
			}
			wantEvents, err := want.Events(nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantEvents, gotEvents); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			delete(want.Attributes, "ce-id")
			delete(got.Attributes, "ce-id")
			if diff := cmp.Diff(want.Attributes, got.Attributes); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
		})
	}
}
