package notify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// dice are random numbers for many goroutines.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// trouble is an answer of a receiver that does anything at any time.
func (d *dice) trouble(ctx context.Context, poison bool) *outcome.Error {
	switch d.roll(14) {
	case 0:
		return retry(500+d.roll(5), 0)
	case 1:
		return retry(429, time.Duration(d.roll(20_000))*time.Millisecond)
	case 2:
		return &outcome.Error{Class: outcome.Auth, Status: 401, Reason: "key refused"}
	case 3: // hangs, or is slow
		select {
		case <-time.After(time.Duration(d.roll(15_000)) * time.Millisecond):
		case <-ctx.Done():
			return &outcome.Error{Class: outcome.Retry, Reason: "no answer", Err: ctx.Err()}
		}
	case 4:
		return &outcome.Error{Class: outcome.Retry, Status: 200, Reason: "the answer is garbage"}
	}
	if poison {
		return &outcome.Error{Class: outcome.Permanent, Status: 400, Reason: "poison"}
	}
	return nil
}

// world is a receiver, two instances of the function with one state, and Pub/Sub, which brings each alert until it is
// done with.
type world struct {
	*dice
	box   *inbox
	dead  *graveyard
	nodes []setup
	wg    sync.WaitGroup
}

func newWorld(t *testing.T, seed uint64, to string) *world {
	t.Helper()
	w := &world{dice: &dice{r: rand.New(rand.NewPCG(seed, 2))}}
	var receiver integration.Integration
	w.box, receiver = receivers(to)
	shared := state.NewMemory(10_000, 64<<20)
	w.dead = &graveyard{}
	for range 2 {
		w.nodes = append(w.nodes, start(t, receiver, func(c *Config) {
			c.State, c.Dead, c.Rate = shared, w.dead, Rate{PerMinute: 30, Burst: 5}
		}))
	}
	return w
}

// publish brings alerts, each at a time of its own, and waits until all are done with.
func (w *world) publish(t *testing.T, alerts []*event.Alert) {
	t.Helper()
	for _, a := range alerts {
		w.wg.Go(func() {
			time.Sleep(time.Duration(w.roll(600_000)) * time.Millisecond)
			for attempt := 1; ; attempt++ {
				if attempt > 2000 {
					t.Errorf("alert %s does not end", a.ID)
					return
				}
				var fault error
				if w.roll(5) == 0 {
					fault = errors.New("Pub/Sub is away")
				}
				w.dead.fail(fault)
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
				err := w.nodes[w.roll(2)].Handle(ctx, pushOf(a))
				cancel()
				if err == nil {
					return
				}
				time.Sleep(time.Duration(1000+w.roll(9000)) * time.Millisecond)
			}
		})
	}
	w.wg.Wait()
	w.dead.fail(nil)
}

// TestInvariantPrograms: through any trouble each alert is delivered or a dead letter in the end, and twice never, as the
// receiver lost no answer.
func TestInvariantPrograms(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, "program")
			const n = 200
			poison := map[string]bool{}
			var alerts []*event.Alert
			for i := range n {
				a := alert(i, fmt.Sprint("f", i%20), event.Severity(w.roll(5)))
				poison[a.ID] = w.roll(10) == 0
				alerts = append(alerts, a)
			}
			w.box.set(func(ctx context.Context, m message) *outcome.Error { return w.trouble(ctx, poison[m.alert.ID]) })
			w.publish(t, alerts)
			fates := map[string]string{}
			for _, m := range w.box.got() {
				fates[m.alert.ID] += "delivered "
			}
			for _, l := range w.dead.all() {
				a, err := l.Message.Alert()
				if err != nil {
					t.Fatal(err)
				}
				fates[a.ID] += "buried "
			}
			for _, a := range alerts {
				want := "delivered "
				if poison[a.ID] {
					want = "buried "
				}
				if fates[a.ID] != want {
					t.Errorf("alert %s: got %q, want %q", a.ID, fates[a.ID], want)
				}
			}
			for _, s := range w.nodes {
				s.closes(t)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestInvariantPeople: through any trouble each alert is in the count of a message in the end, or in that of a dead letter,
// and in none twice. The counts tell: each alert's is a power of two of its own within the incident.
func TestInvariantPeople(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, "people")
			const n, incidents = 300, 25
			published := map[string]int64{}
			bad := func(fp string) bool { return fp == "f03" || fp == "f07" }
			var alerts []*event.Alert
			for i := range n {
				a := alert(i, fmt.Sprintf("f%02d", w.roll(incidents)), event.Severity(w.roll(5)))
				a.Count = int(published[a.Fingerprint] + 1)
				published[a.Fingerprint] |= int64(a.Count)
				alerts = append(alerts, a)
			}
			w.box.set(func(ctx context.Context, m message) *outcome.Error {
				return w.trouble(ctx, m.kind != kindDigest && bad(m.incident.Fingerprint))
			})
			for _, s := range w.nodes {
				w.wg.Go(func() { s.run(t, 20*time.Minute) })
			}
			w.publish(t, alerts)
			w.box.set(nil)
			for range 300 { // the store is shared: any instance sends what is due, but for the ends
				time.Sleep(10 * time.Second)
				for _, s := range w.nodes {
					if err := s.Tick(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			told := w.told()
			for fp, want := range published {
				if got := told[fp]; got != want {
					t.Errorf("incident %s: of alerts %b these are told of or buried: %b; messages %q", fp, want, got, w.box.lines())
				}
			}
			for _, s := range w.nodes {
				s.closes(t)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// told are the alerts that people were told of or that were buried, by incident.
func (w *world) told() map[string]int64 {
	all := map[string]int64{}
	for _, m := range w.box.got() {
		if m.kind != kindDigest {
			all[m.incident.Fingerprint] |= m.incident.Count
		}
		for _, i := range m.digest.Incidents {
			all[i.Fingerprint] |= i.Count
		}
	}
	for _, l := range w.dead.all() {
		if a, err := l.Message.Alert(); err == nil {
			all[a.Fingerprint] |= weight(a)
		}
	}
	return all
}
