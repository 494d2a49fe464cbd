// Package publishtest is the suite that every publisher passes.
package publishtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Publisher is what is tested.
type Publisher interface {
	Publish(ctx context.Context, m envelope.Message) error
	Close() error
}

// Harness is a publisher together with what it publishes to.
type Harness struct {
	Publisher Publisher
	// Received returns the events and alerts that the receiver got so far, as JSON, in any order.
	Received func() []event.Raw
}

// Run runs the suite; start begins anew for each test.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	t.Helper()
	t.Run("events and alerts arrive as they were", func(t *testing.T) {
		h := start(t)
		events, alert := []*event.Event{Event("plain"), Event("hostile \x1b[2J\n\xff\u2028\"")}, Alert()
		check(t, h.Publisher.Publish(t.Context(), Envelope(events...)))
		check(t, h.Publisher.Publish(t.Context(), envelope.SealAlert(alert, source, time.Now())))
		want := []string{string(events[0].AppendJSON(nil)), string(events[1].AppendJSON(nil)), string(alert.AppendJSON(nil))}
		got := received(h)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		h := start(t)
		var all sync.WaitGroup
		var mu sync.Mutex
		var want []string
		for i := range 8 {
			all.Go(func() {
				for j := range 10 {
					e := Event(fmt.Sprint(i, j))
					if err := h.Publisher.Publish(t.Context(), Envelope(e)); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					want = append(want, string(e.AppendJSON(nil)))
					mu.Unlock()
				}
			})
		}
		all.Wait()
		slices.Sort(want)
		if diff := cmp.Diff(want, received(h)); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
	})
	t.Run("an unknown type is permanent", func(t *testing.T) {
		h := start(t)
		err := h.Publisher.Publish(t.Context(), envelope.Message{Data: []byte("{}"), Attributes: map[string]string{"ce-type": "x"}})
		if o := outcome.From(err); o == nil || o.Class != outcome.Permanent {
			t.Errorf("got %v, want a permanent outcome", err)
		}
		if got := h.Received(); len(got) > 0 {
			t.Errorf("received %q, want nothing", got)
		}
	})
	t.Run("a context that ended publishes nothing", func(t *testing.T) {
		h := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.Publisher.Publish(ctx, Envelope(Event("late"))); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		h := start(t)
		check(t, h.Publisher.Publish(t.Context(), Envelope(Event("before"))))
		check(t, h.Publisher.Close())
		err := h.Publisher.Publish(t.Context(), Envelope(Event("after")))
		if o := outcome.From(err); o == nil || o.Class == outcome.Permanent {
			t.Errorf("publish after close: got %v, want an error that is not about the message", err)
		}
		check(t, h.Publisher.Close())
		if got := len(h.Received()); got != 1 {
			t.Errorf("received %d events, want the one from before", got)
		}
	})
}

var source = envelope.Source{AgentID: "prod-1/node-a", Cluster: "prod-1"}

// Envelope seals events.
func Envelope(events ...*event.Event) envelope.Message {
	var b envelope.Batch
	for _, e := range events {
		b.Append(e)
	}
	return b.Seal(source, time.Now())
}

// Event returns an event with a command line.
func Event(cmdline string) *event.Event {
	return &event.Event{
		ID: event.NewID(), AgentID: source.AgentID, Type: event.ProcessExec, Severity: event.Low, Timestamp: time.Now(),
		Cluster: source.Cluster, NodeName: "node-a", PodName: "p", PodNamespace: "default",
		Process: &event.Process{PID: 7, PPID: 1, Exe: "/bin/sh", Cmdline: cmdline, Capture: event.CaptureFull},
	}
}

// Alert returns an alert with its event.
func Alert() *event.Alert {
	e := Event("bash -i")
	return &event.Alert{
		ID: event.NewID(), Timestamp: e.Timestamp, Severity: event.Critical, RuleID: "APSS-001", RuleName: "Reverse shell",
		Cluster: e.Cluster, PodNamespace: e.PodNamespace, EventIDs: []string{e.ID}, Fingerprint: "f0", Count: 1,
		FirstSeen: e.Timestamp, LastSeen: e.Timestamp, Event: e, Metadata: event.AlertMetadata{Source: "apss"},
	}
}

func received(h Harness) (s []string) {
	for _, r := range h.Received() {
		s = append(s, string(r))
	}
	slices.Sort(s)
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
