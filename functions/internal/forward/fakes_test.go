package forward

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// receiver is a sink that does what answer says, and keeps what it accepted.
type receiver struct {
	mu       sync.Mutex
	answer   func(ctx context.Context, call int, events []event.Raw) *outcome.Error
	calls    int
	accepted map[string]int // by id
}

func (r *receiver) SendEvents(ctx context.Context, events []event.Raw) error {
	r.mu.Lock()
	r.calls++
	call := r.calls
	r.mu.Unlock()
	var e *outcome.Error
	if r.answer != nil { // without the lock: it may take its time, and synctest's clock does not pass for who waits for a lock
		e = r.answer(ctx, call, events)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e == nil || e.Class == outcome.Partial {
		for _, ev := range events {
			id, _ := ev.ID()
			if e == nil || !slices.ContainsFunc(e.Rejected, func(x outcome.Rejection) bool { return x.ID == id }) {
				if r.accepted == nil {
					r.accepted = map[string]int{}
				}
				r.accepted[id]++
			}
		}
	}
	if e == nil {
		return nil
	}
	return e
}

// graveyard keeps dead letters, and fails while err is set.
type graveyard struct {
	mu      sync.Mutex
	err     error
	letters []deadletter.Letter
}

func (g *graveyard) Publish(_ context.Context, l deadletter.Letter) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return g.err
	}
	g.letters = append(g.letters, l)
	return nil
}

// ids are those of the events in the letters, sorted.
func (g *graveyard) ids(t *testing.T) (ids []string) {
	t.Helper()
	for _, l := range g.letters {
		events, err := l.Message.Events(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			id, err := e.ID()
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func newForward(t *testing.T, r *receiver, g *graveyard) *Forward {
	t.Helper()
	f, err := New(Config{
		Name: "test", Sink: r, Dead: g,
		MaxEvents: 100, MaxBytes: 1 << 20, Linger: 50 * time.Millisecond, Flushes: 2,
		Deliver: 30 * time.Second, Bury: 5 * time.Second, InHand: budget.New(64 << 20),
		Log: slog.New(slog.DiscardHandler), Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// newPush is push number i with n events, whose ids are i and their place.
func newPush(i, n int) envelope.Push {
	var data bytes.Buffer
	for k := range n {
		fmt.Fprintf(&data, "{\"id\":%q}\n", id(i, k))
	}
	return pushOf(fmt.Sprint("m", i), data.Bytes())
}

func pushOf(messageID string, data []byte) envelope.Push {
	return envelope.Push{
		Message:      envelope.Message{Data: data, Attributes: map[string]string{"ce-type": envelope.TypeEvents, "ce-id": "x", "cluster": "c1"}},
		ID:           messageID,
		Subscription: "projects/p/subscriptions/s",
	}
}

func id(push, place int) string { return fmt.Sprintf("%08d-0000-7000-8000-%012d", push, place) }

func ids(push, from, to int) (all []string) {
	for k := from; k < to; k++ {
		all = append(all, id(push, k))
	}
	return all
}

// has is a test for events that holds one with an id.
func has(id string) func([]event.Raw) bool {
	return func(events []event.Raw) bool {
		return slices.ContainsFunc(events, func(e event.Raw) bool { return strings.Contains(string(e), id) })
	}
}

func class(t *testing.T, err error) outcome.Class {
	t.Helper()
	if err == nil {
		return outcome.OK
	}
	return outcome.From(err).Class
}
