package notify

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
)

// failing is a store that all instances share, and that is down when told so.
type failing struct {
	*state.Memory
	down atomic.Bool
}

func (f *failing) Volatile() bool { return false }

func (f *failing) fault() error {
	if f.down.Load() {
		return fmt.Errorf("%w: connection refused", state.ErrDown)
	}
	return nil
}

func (f *failing) Update(ctx context.Context, collection, key string, change func(state.Record) (state.Record, error)) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.Memory.Update(ctx, collection, key, change)
}

func (f *failing) Get(ctx context.Context, collection, key string) (state.Record, error) {
	if err := f.fault(); err != nil {
		return state.Record{}, err
	}
	return f.Memory.Get(ctx, collection, key)
}

func (f *failing) Due(ctx context.Context, collection string, now time.Time, limit int) ([]string, error) {
	if err := f.fault(); err != nil {
		return nil, err
	}
	return f.Memory.Due(ctx, collection, now, limit)
}

// TestStoreReturns: what instances counted before an outage of their store and during it, each for itself, is told in the end.
func TestStoreReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &failing{Memory: state.NewMemory(10_000, 64<<20)}
		p := &people{}
		var nodes []setup
		for range 3 {
			f, err := state.NewFallback(state.FallbackConfig{
				First: shared, Memory: state.NewMemory(10_000, 64<<20), Merge: Merge, Timeout: time.Second,
				Log: slog.New(slog.DiscardHandler), Meter: metricnoop.Meter{},
			})
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, start(t, p, func(c *Config) { c.State = f }))
		}
		alerts := 0
		hand := func(n int) {
			for range n {
				nodes[alerts%len(nodes)].done(t, alert(alerts, "f", event.High))
				alerts++
			}
		}
		hand(20)
		shared.down.Store(true)
		hand(31)
		time.Sleep(2 * time.Second)
		hand(7) // each finds again that it is down
		shared.down.Store(false)
		time.Sleep(time.Minute)
		hand(4)
		synctest.Wait()
		var wg sync.WaitGroup
		for range 600 {
			time.Sleep(time.Second)
			for _, n := range nodes {
				wg.Go(func() {
					if err := n.Tick(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		last := p.got()[len(p.got())-1]
		if last.incident.Count != int64(alerts) {
			t.Errorf("got a count of %d in the end, want %d; messages %q", last.incident.Count, alerts, p.lines())
		}
		for _, n := range nodes {
			n.closes(t)
			if err := n.cfg.State.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestMerge: what is kept of an incident that was changed on both sides.
func TestMerge(t *testing.T) {
	in := func(change func(*record)) state.Record {
		r := &record{Phase: open, Ref: "1", Severity: event.High, Count: 10, Told: 8, Alerts: 2, First: 50, Last: 60, alert: []byte("{}")}
		if change != nil {
			change(r)
		}
		kept, err := r.keep(testGroup)
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	merged := func(there, base, mine state.Record) *record {
		return parse(Merge(incidentsCollection+"x", there, base, mine))
	}
	waits := in(func(r *record) {
		r.Phase, r.Ref, r.Count, r.Told, r.Digest, r.Severity = waiting, "", 3, 0, 99, event.Critical
	})
	if r := merged(in(nil), state.Record{}, waits); r.Count != 13 || r.Told != 8 || r.Phase != open || r.Ref != "1" || r.Digest != 99 || r.Severity != event.Critical {
		t.Errorf("got %+v, want the sum, and the message that there is", r)
	}
	// What was merged by a return that came to nothing is not added again.
	first := Merge(incidentsCollection+"x", in(nil), state.Record{}, waits)
	more := in(func(r *record) { r.Phase, r.Ref, r.Count, r.Told, r.Digest = waiting, "", 5, 0, 99 })
	if r := merged(first, waits, more); r.Count != 15 {
		t.Errorf("got a count of %d, want 15", r.Count)
	}
	if r := merged(state.Record{}, waits, more); r.Count != 5 {
		t.Errorf("of a store that lost everything: got a count of %d, want 5", r.Count)
	}
	if got := Merge(incidentsCollection+"x", in(nil), waits, state.Record{}); got.Value != nil {
		t.Errorf("of one that ended meanwhile: got %q", got.Value)
	}
	busy := state.Record{Value: []byte("other 1")}
	if got := Merge(seenCollection+"x", state.Record{Value: done}, state.Record{}, busy); string(got.Value) != "done" {
		t.Errorf("got %q, want that the alert was dealt with", got.Value)
	}
	if got := Merge("health", busy, state.Record{}, state.Record{Value: done}); string(got.Value) != "done" {
		t.Errorf("of another collection: got %q, want memory's", got.Value)
	}
}
