package forward

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

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
	t.Helper()
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
