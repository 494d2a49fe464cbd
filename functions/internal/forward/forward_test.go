package forward

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

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
		want := deadletter.Letter{Integration: "test", Topic: "events", Subscription: "projects/p/subscriptions/s", MessageID: "m3",
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

// TestBadLinesOfARefusedPush are in one letter, not in that of the events as well: a replay would bring them twice.
func TestBadLinesOfARefusedPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(context.Context, int, []event.Raw) *outcome.Error {
			return &outcome.Error{Class: outcome.Permanent, Status: 400, Reason: "no"}
		}}
		g := &graveyard{}
		p := newPush(1, 2)
		events := len(p.Data)
		p.Data = append(p.Data, `{"id":"x"}],"events":[{}`...)
		if err := newForward(t, r, g).Handle(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, l := range g.letters {
			size += len(bytes.TrimSpace(l.Message.Data))
		}
		if want := len(bytes.TrimSpace(p.Data[:events])) + len(p.Data) - events; len(g.letters) != 2 || size != want {
			t.Errorf("got %d letters of %d bytes, want 2 of %d", len(g.letters), size, want)
		}
	})
}

// TestRedelivery: what was accepted is not sent again, what was buried is not buried again.
func TestRedelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		r.answer = func(_ context.Context, call int, events []event.Raw) *outcome.Error {
			switch call {
			case 1:
				return &outcome.Error{Class: outcome.Split, Status: 422, Reason: "bad"}
			case 2: // the first half
				return &outcome.Error{Class: outcome.Partial, Rejected: []outcome.Rejection{{ID: id(1, 1), Reason: "odd"}}}
			case 3:
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
		// It comes again while the call is still under way: neither sent twice nor taken for delivered.
		if err := f.Handle(t.Context(), newPush(1, 3)); class(t, err) != outcome.Retry {
			t.Fatalf("got %v, want a retry", err)
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
