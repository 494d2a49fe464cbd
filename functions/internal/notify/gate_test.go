package notify

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/apss-sensor/apss/shared/event"
)

// TestGateLetsTheMostSevereIn: of those who wait, and in their order among equals.
func TestGateLetsTheMostSevereIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		if err := g.enter(t.Context(), event.Info); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i, s := range []event.Severity{event.Low, event.Critical, event.High, event.Low, event.Critical, 200} {
			wg.Go(func() {
				if err := g.enter(t.Context(), s); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				g.leave()
			})
			synctest.Wait() // it waits before the next one comes
		}
		g.leave()
		wg.Wait()
		if want := []int{1, 4, 5, 2, 0, 3}; !slices.Equal(order, want) {
			t.Errorf("got order %v, want %v", order, want)
		}
	})
}

// TestGateKeepsItsPlaces: those who give up take none with them.
func TestGateKeepsItsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 3
		g := newGate(places)
		for round := range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					if g.enter(ctx, event.Severity(i%5)) == nil {
						g.leave()
					}
				})
			}
			if round%2 == 0 {
				synctest.Wait()
			}
			cancel()
			wg.Wait()
		}
		for range places {
			if err := g.enter(t.Context(), event.Low); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if g.enter(ctx, event.Critical) == nil {
			t.Error("one more is in than there are places")
		}
	})
}
