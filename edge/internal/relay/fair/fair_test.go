package fair_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/edge/internal/relay/fair"
)

const kib = 1 << 10

func take(t *testing.T, g *fair.Gate, flow string, bytes int) *fair.Grant {
	t.Helper()
	r, err := g.Acquire(t.Context(), flow, bytes)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNobodyWaitsWhileThereIsRoom(t *testing.T) {
	g := fair.New(100)
	a, b := take(t, g, "a", 60), take(t, g, "a", 40)
	if g.Held() != 100 {
		t.Errorf("got %d held, want 100", g.Held())
	}
	a.Release()
	a.Release()
	b.Release()
	if g.Held() != 0 {
		t.Errorf("got %d held, want none", g.Held())
	}
	all := take(t, g, "a", 1000)
	if g.Held() != 100 {
		t.Errorf("got %d held by one that wants more than all, want 100", g.Held())
	}
	all.Release()
}

// TestALoudFlowDoesNotPushOutAQuietOne has one flow wait with a hundred requests and another come after it with one.
func TestALoudFlowDoesNotPushOutAQuietOne(t *testing.T) {
	for name, size := range map[string]int{"small requests": kib, "ordinary ones": 60 * kib, "large ones": 300 * kib} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := fair.New(300 * kib)
				all := take(t, g, "first", 300*kib)
				var mu sync.Mutex
				var order []string
				var waiting sync.WaitGroup
				ask := func(flow string) {
					waiting.Go(func() {
						r := take(t, g, flow, size)
						mu.Lock()
						order = append(order, flow)
						mu.Unlock()
						time.Sleep(time.Second)
						r.Release()
					})
					synctest.Wait()
				}
				for range 400 {
					ask("loud")
				}
				ask("quiet")
				all.Release()
				waiting.Wait()
				at := 0
				for order[at] != "quiet" {
					at++
				}
				// A round of the loud flow's own, and what there is room for at once.
				if most := 2*64*kib/size + 300*kib/size + 1; at > most || len(order) != 401 {
					t.Errorf("the quiet flow's request was number %d of %d, want it among the first %d", at+1, len(order), most)
				}
			})
		})
	}
}

// TestShares has two flows wait all the time, one with large requests and one with small ones: in bytes they get the same.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := fair.New(128 * kib)
		got := map[string]int{}
		var mu sync.Mutex
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for flow, size := range map[string]int{"large": 100 * kib, "small": 2 * kib} {
			for range 200 {
				all.Go(func() {
					for {
						r, err := g.Acquire(ctx, flow, size)
						if err != nil {
							return
						}
						mu.Lock()
						got[flow] += size
						mu.Unlock()
						select {
						case <-time.After(time.Second):
						case <-ctx.Done():
						}
						r.Release()
					}
				})
			}
		}
		all.Wait()
		if share := float64(got["large"]) / float64(got["large"]+got["small"]); share < 0.4 || share > 0.6 {
			t.Errorf("got a share of %.2f for large requests, want half", share)
		}
	})
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := fair.New(100)
		most := take(t, g, "a", 90)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := g.Acquire(ctx, "b", 50); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
		})
		synctest.Wait()
		got := false
		all.Go(func() {
			defer take(t, g, "c", 10).Release()
			got = true
		})
		synctest.Wait()
		if got {
			t.Error("a small request overtook a large one whose turn it is")
		}
		cancel()
		all.Wait()
		if !got {
			t.Error("what was behind the one that gave up still waits")
		}
		most.Release()
	})
}

func TestGrow(t *testing.T) {
	g := fair.New(100)
	a := take(t, g, "a", 50)
	if !a.Grow(40) || !a.Grow(200) || g.Held() != 200 {
		t.Errorf("got %d held, want to grow to twice the room", g.Held())
	}
	if a.Grow(201) {
		t.Error("grew beyond twice the room")
	}
	a.Release()
	if g.Held() != 0 {
		t.Errorf("got %d held, want none", g.Held())
	}
}

// TestStorm has many come, wait, grow, give up and go; in the end all room is free and nobody waits.
func TestStorm(t *testing.T) {
	g := fair.New(1000)
	var all sync.WaitGroup
	for i := range 50 {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		all.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(300))*time.Microsecond)
				r, err := g.Acquire(ctx, fmt.Sprint(random.IntN(7)), random.IntN(400))
				if err == nil {
					r.Grow(random.IntN(800))
					r.Release()
				}
				cancel()
			}
		})
	}
	all.Wait()
	if g.Held() != 0 {
		t.Errorf("got %d held, want none", g.Held())
	}
	take(t, g, "last", 1000).Release()
}
