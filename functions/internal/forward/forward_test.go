package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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

func TestPushesShareACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g := &receiver{}, &graveyard{}
		f := newForward(t, r, g)
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if err := f.Handle(t.Context(), newPush(i, 5)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if r.calls != 1 || len(r.accepted) != 50 {
			t.Errorf("got %d calls with %d events, want 1 with 50", r.calls, len(r.accepted))
		}
		if took := time.Since(begin); took != 50*time.Millisecond {
			t.Errorf("it took %v, want the linger", took)
		}
	})
}

func TestAPushAboveTheLimitsIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g := &receiver{}, &graveyard{}
		if err := newForward(t, r, g).Handle(t.Context(), newPush(0, 950)); err != nil {
			t.Error(err)
		}
		if r.calls != 10 || len(r.accepted) != 950 {
			t.Errorf("got %d calls with %d events, want 10 with 950", r.calls, len(r.accepted))
		}
	})
}

// TestPoison: one event is refused; it alone is dead, its neighbours in the push and in the call are accepted once.
func TestPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poison := id(3, 7)
		r := &receiver{answer: func(_ context.Context, _ int, events []event.Raw) *outcome.Error {
			if has(poison)(events) {
				return &outcome.Error{Class: outcome.Split, Status: 422, Reason: "422: bad pid"}
			}
			return nil
		}}
		g := &graveyard{}
		f := newForward(t, r, g)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				p := newPush(i, 10)
				p.DeliveryAttempt = i
				if err := f.Handle(t.Context(), p); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if diff := cmp.Diff([]string{poison}, g.ids(t)); diff != "" {
			t.Fatalf("dead letters (-want +got):\n%s", diff)
		}
		l := g.letters[0]
		l.Message = envelope.Message{}
		want := deadletter.Letter{Integration: "test", Subscription: "projects/p/subscriptions/s", MessageID: "m3",
			DeliveryAttempt: 3, Status: 422, Reason: "422: bad pid"}
		if diff := cmp.Diff(want, l); diff != "" {
			t.Errorf("letter (-want +got):\n%s", diff)
		}
		if len(r.accepted) != 99 || slices.Max(slices.Collect(maps.Values(r.accepted))) != 1 {
			t.Errorf("got %d events accepted, the most frequent %d times, want 99 once each",
				len(r.accepted), slices.Max(slices.Collect(maps.Values(r.accepted))))
		}
	})
}

// TestWholePushRefused: the dead letter is the message as it came.
func TestWholePushRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(context.Context, int, []event.Raw) *outcome.Error {
			return &outcome.Error{Class: outcome.Permanent, Status: 410, Reason: "gone"}
		}}
		g := &graveyard{}
		p := newPush(1, 5)
		if err := newForward(t, r, g).Handle(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if len(g.letters) != 1 {
			t.Fatalf("got %d letters, want 1", len(g.letters))
		}
		if diff := cmp.Diff(p.Message, g.letters[0].Message); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestPartial: events with the same reason share a letter.
func TestPartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(context.Context, int, []event.Raw) *outcome.Error {
			return &outcome.Error{Class: outcome.Partial, Status: 207, Rejected: []outcome.Rejection{
				{ID: id(1, 0), Reason: "too old"}, {ID: id(1, 3), Reason: "too odd"}, {ID: id(1, 4), Reason: "too old"},
			}}
		}}
		g := &graveyard{}
		if err := newForward(t, r, g).Handle(t.Context(), newPush(1, 5)); err != nil {
			t.Fatal(err)
		}
		reasons := map[string]string{}
		for _, l := range g.letters {
			reasons[l.Reason] = string(l.Message.Data)
			if l.Message.Attributes["cluster"] != "c1" || l.Message.Attributes["ce-id"] == "x" {
				t.Errorf("got attributes %v, want those of the push with an id of its own", l.Message.Attributes)
			}
		}
		want := map[string]string{
			"too old": `{"id":"` + id(1, 0) + `"}` + "\n" + `{"id":"` + id(1, 4) + `"}`,
			"too odd": `{"id":"` + id(1, 3) + `"}`,
		}
		if diff := cmp.Diff(want, reasons); diff != "" {
			t.Errorf("letters (-want +got):\n%s", diff)
		}
		if len(r.accepted) != 2 {
			t.Errorf("got %d accepted, want 2", len(r.accepted))
		}
	})
}

func TestUnopenable(t *testing.T) {
	tests := []struct {
		name   string
		change func(*envelope.Push)
		reason error
	}{
		{"corrupt", func(p *envelope.Push) { p.Attributes["content-encoding"] = "zstd" }, envelope.ErrCorrupt},
		{"encoding", func(p *envelope.Push) { p.Attributes["content-encoding"] = "br" }, envelope.ErrEncoding},
		{"type", func(p *envelope.Push) { p.Attributes["ce-type"] = "apss.events.v9" }, envelope.ErrType},
		{"no attributes", func(p *envelope.Push) { p.Attributes = nil }, envelope.ErrType},
		{"empty", func(p *envelope.Push) { p.Data = nil }, envelope.ErrCorrupt},
		{"too many", func(p *envelope.Push) { p.Data = bytes.Repeat([]byte("{}\n"), envelope.MaxEvents+1) }, envelope.ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, g := &receiver{}, &graveyard{}
				p := newPush(1, 3)
				tt.change(&p)
				f := newForward(t, r, g)
				if err := f.Handle(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				if r.calls != 0 || len(g.letters) != 1 {
					t.Fatalf("got %d calls and %d letters, want none and 1", r.calls, len(g.letters))
				}
				if diff := cmp.Diff(p.Message, g.letters[0].Message); diff != "" {
					t.Errorf("message (-want +got):\n%s", diff)
				}
				if !strings.Contains(g.letters[0].Reason, tt.reason.Error()) {
					t.Errorf("got reason %q, want it to say %q", g.letters[0].Reason, tt.reason)
				}
				g.err = errors.New("Pub/Sub is away")
				if err := f.Handle(t.Context(), p); class(t, err) != outcome.Retry {
					t.Errorf("with no place for dead letters: got %v, want a retry", err)
				}
			})
		})
	}
}

// TestBadLines: the lines that are no events are dead once, also when the push has to come again.
func TestBadLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(_ context.Context, call int, _ []event.Raw) *outcome.Error {
			if call == 1 {
				return &outcome.Error{Class: outcome.Retry, Status: 503}
			}
			return nil
		}}
		g := &graveyard{}
		f := newForward(t, r, g)
		p := newPush(1, 2)
		p.Data = append(p.Data, `{"id":"x"}],"events":[{}`...)
		if err := f.Handle(t.Context(), p); class(t, err) != outcome.Retry {
			t.Errorf("got %v, want a retry", err)
		}
		if err := f.Handle(t.Context(), p); err != nil {
			t.Error(err)
		}
		if len(g.letters) != 1 || string(g.letters[0].Message.Data) != `{"id":"x"}],"events":[{}` {
			t.Errorf("got letters %+v, want the bad line once", g.letters)
		}
		if len(r.accepted) != 2 {
			t.Errorf("got %d accepted, want 2", len(r.accepted))
		}
	})
}

// TestRedelivery: what was accepted is not sent again, what was buried is not buried again.
func TestRedelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		r.answer = func(_ context.Context, call int, events []event.Raw) *outcome.Error {
			switch {
			case call == 1:
				return &outcome.Error{Class: outcome.Split, Status: 422, Reason: "bad"}
			case call == 2: // the first half
				return &outcome.Error{Class: outcome.Partial, Rejected: []outcome.Rejection{{ID: id(1, 1), Reason: "odd"}}}
			case call == 3:
				return &outcome.Error{Class: outcome.Retry, Status: 502}
			}
			return nil
		}
		g := &graveyard{}
		f := newForward(t, r, g)
		if err := f.Handle(t.Context(), newPush(1, 8)); class(t, err) != outcome.Retry {
			t.Fatalf("got %v, want a retry", err)
		}
		if diff := cmp.Diff([]string{id(1, 1)}, g.ids(t)); diff != "" {
			t.Errorf("dead letters (-want +got):\n%s", diff)
		}
		if err := f.Handle(t.Context(), newPush(1, 8)); err != nil {
			t.Fatal(err)
		}
		want := map[string]int{id(1, 0): 1, id(1, 2): 1, id(1, 3): 1, id(1, 4): 1, id(1, 5): 1, id(1, 6): 1, id(1, 7): 1}
		if diff := cmp.Diff(want, r.accepted); diff != "" {
			t.Errorf("accepted (-want +got):\n%s", diff)
		}
		if len(g.letters) != 1 {
			t.Errorf("got %d letters, want 1", len(g.letters))
		}
		// Answered with 2xx: a replay is sent whole.
		if err := f.Handle(t.Context(), newPush(1, 8)); err != nil {
			t.Fatal(err)
		}
		if r.accepted[id(1, 0)] != 2 {
			t.Errorf("a replay was not sent")
		}
	})
}

// TestCallerGone: the call ends after the push was given up; the redelivery does not repeat it.
func TestCallerGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		slow := func(context.Context, int, []event.Raw) *outcome.Error { time.Sleep(10 * time.Second); return nil }
		r.answer = slow
		f := newForward(t, r, &graveyard{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Handle(ctx, newPush(1, 3)); class(t, err) != outcome.Retry || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want a retry for want of time", err)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if err := f.Handle(t.Context(), newPush(1, 3)); err != nil {
			t.Fatal(err)
		}
		if r.calls != 1 {
			t.Errorf("got %d calls, want 1", r.calls)
		}
	})
}

func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next *outcome.Error
		r := &receiver{answer: func(context.Context, int, []event.Raw) *outcome.Error { return next }}
		f := newForward(t, r, &graveyard{})
		push := 0
		handle := func() *outcome.Error {
			push++
			return outcome.From(f.Handle(t.Context(), newPush(push, 1)))
		}
		// heldFor hands in pushes until the receiver is called again, and returns how long that took.
		heldFor := func() time.Duration {
			t.Helper()
			begin, calls := time.Now(), r.calls
			for r.calls == calls {
				time.Sleep(100 * time.Millisecond)
				handle()
			}
			return time.Since(begin).Round(time.Second)
		}

		next = &outcome.Error{Class: outcome.Retry, Status: 429, After: 20 * time.Second}
		if e := handle(); e.Status != 429 {
			t.Errorf("got %v, want the receiver's 429", e)
		}
		if e := handle(); e.Status != 429 || e.After < 19*time.Second || e.After > 20*time.Second {
			t.Errorf("while held: got %v after %v, want 429 with what is left of 20 s", e, e.After)
		}
		if got := heldFor(); got != 20*time.Second {
			t.Errorf("held for %v, want 20 s", got)
		}
		time.Sleep(time.Minute)

		next = &outcome.Error{Class: outcome.Auth, Status: 401}
		if e := handle(); e.Class != outcome.Auth {
			t.Errorf("got %v, want auth", e)
		}
		if e := handle(); e.Class != outcome.Auth {
			t.Errorf("while held: got %v, want auth", e)
		}
		var got []time.Duration
		for range 8 {
			got = append(got, heldFor())
		}
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
		for i := range want {
			want[i] *= time.Second
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("holds (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		next = nil
		if e := handle(); e != nil {
			t.Errorf("got %v, want nil", e)
		}
		next = &outcome.Error{Class: outcome.Auth, Status: 403}
		handle()
		if got := heldFor(); got != time.Second {
			t.Errorf("after a success: held for %v, want 1 s", got)
		}
	})
}

func TestTooMuchInHand(t *testing.T) {
	f := newForward(t, &receiver{}, &graveyard{})
	f.cfg.InHand = budget.New(10)
	e := outcome.From(f.Handle(t.Context(), newPush(1, 1)))
	if e == nil || e.Status != 429 || e.After <= 0 {
		t.Errorf("got %v, want to be told to slow down", e)
	}
	if n := f.cfg.InHand.Used(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		f := newForward(t, r, &graveyard{})
		result := make(chan error)
		go func() { result <- f.Handle(t.Context(), newPush(1, 1)) }()
		synctest.Wait()
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-result; err != nil || len(r.accepted) != 1 {
			t.Errorf("got %v and %d accepted, want what was in hand to be delivered", err, len(r.accepted))
		}
		if err := f.Handle(t.Context(), newPush(2, 1)); class(t, err) != outcome.Retry {
			t.Errorf("after Close: got %v, want a retry", err)
		}
	})
}

func TestPanicOfTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		r.answer = func(_ context.Context, call int, _ []event.Raw) *outcome.Error {
			if call == 1 {
				panic("oh")
			}
			return nil
		}
		f := newForward(t, r, &graveyard{})
		if err := f.Handle(t.Context(), newPush(1, 1)); class(t, err) != outcome.Retry {
			t.Errorf("got %v, want a retry", err)
		}
		if err := f.Handle(t.Context(), newPush(1, 1)); err != nil {
			t.Error(err)
		}
	})
}

// TestInvariant: against a receiver that does anything at any time, and dead letters that fail now and then, a push is
// answered with nil only when each of its events was accepted or buried, and redelivery brings all of them there.
func TestInvariant(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { invariant(t, rand.New(rand.NewPCG(seed, 1))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func invariant(t *testing.T, random *rand.Rand) {
	poison := map[string]bool{}
	const pushes, perPush = 60, 40
	for range 25 {
		poison[id(random.IntN(pushes), random.IntN(perPush))] = true
	}
	var mu sync.Mutex
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	r := &receiver{answer: func(ctx context.Context, _ int, events []event.Raw) *outcome.Error {
		switch roll(12) {
		case 0:
			return &outcome.Error{Class: outcome.Retry, Status: 500 + roll(5)}
		case 1:
			return &outcome.Error{Class: outcome.Retry, Status: 429, After: time.Duration(roll(3000)) * time.Millisecond}
		case 2:
			return &outcome.Error{Class: outcome.Auth, Status: 401}
		case 3:
			if len(events) > 5 {
				return &outcome.Error{Class: outcome.Split, Status: 413, Reason: "too large"}
			}
		case 4:
			select {
			case <-time.After(time.Duration(roll(40)) * time.Second):
			case <-ctx.Done():
				return &outcome.Error{Class: outcome.Retry, Reason: "no answer", Err: ctx.Err()}
			}
		}
		var bad []outcome.Rejection
		for _, e := range events {
			if id, _ := e.ID(); poison[id] {
				bad = append(bad, outcome.Rejection{ID: id, Reason: "poison"})
			}
		}
		switch {
		case len(bad) == 0:
			return nil
		case roll(2) == 0:
			return &outcome.Error{Class: outcome.Partial, Status: 207, Rejected: bad}
		default:
			return &outcome.Error{Class: outcome.Split, Status: 422, Reason: "poison"}
		}
	}}
	g := &graveyard{}
	f := newForward(t, r, g)
	fate := func(id string) (accepted, buried int) {
		r.mu.Lock()
		accepted = r.accepted[id]
		r.mu.Unlock()
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, l := range g.letters {
			buried += bytes.Count(l.Message.Data, []byte(id))
		}
		return accepted, buried
	}
	var wg sync.WaitGroup
	for i := range pushes {
		wg.Go(func() {
			for attempt := 1; ; attempt++ {
				if attempt > 500 {
					t.Errorf("push %d does not end", i)
					return
				}
				g.mu.Lock()
				g.err = nil
				if roll(4) == 0 {
					g.err = errors.New("Pub/Sub is away")
				}
				g.mu.Unlock()
				ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
				err := f.Handle(ctx, newPush(i, perPush))
				cancel()
				if err == nil {
					break
				}
				time.Sleep(time.Duration(roll(5000)) * time.Millisecond)
			}
			for _, id := range ids(i, 0, perPush) {
				accepted, buried := fate(id)
				if accepted == 0 && buried == 0 {
					t.Errorf("event %s was acknowledged and is nowhere", id)
				}
				if accepted > 0 && poison[id] || buried > 0 && !poison[id] {
					t.Errorf("event %s, poison: %t, was accepted %d times and buried %d times", id, poison[id], accepted, buried)
				}
				// The receiver never lost an answer here, so nothing had to be sent twice.
				if accepted > 1 {
					t.Errorf("event %s was sent %d times", id, accepted)
				}
			}
		})
	}
	wg.Wait()
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
