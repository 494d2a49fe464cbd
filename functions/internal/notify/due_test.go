package notify

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
)

// slow is a store of which each operation takes a while, as one far away does.
type slow struct {
	state.Store
	takes time.Duration
}

func (s slow) Update(ctx context.Context, collection, key string, change func(state.Record) (state.Record, error)) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Store.Update(ctx, collection, key, change)
}

func (s slow) Get(ctx context.Context, collection, key string) (state.Record, error) {
	if err := s.wait(ctx); err != nil {
		return state.Record{}, err
	}
	return s.Store.Get(ctx, collection, key)
}

func (s slow) wait(ctx context.Context) error {
	select {
	case <-time.After(s.takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestDigestOfASlowStore: what waits goes out although the store takes its time for each of many records.
func TestDigestOfASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const incidents = 1000
		p := &people{}
		shared := state.NewMemory(10_000, 64<<20)
		quick := start(t, p, func(c *Config) { c.State, c.Rate = lasting{shared}, Rate{PerMinute: 60, Burst: 1} })
		for i := range incidents {
			quick.done(t, alert(i, fmt.Sprintf("f%04d", i), event.High))
		}
		quick.closes(t)
		s := start(t, p, func(c *Config) { c.State, c.Rate = slow{shared, 50 * time.Millisecond}, Rate{PerMinute: 60, Burst: 1} })
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); { // they are due after one
			time.Sleep(time.Second)
			_ = s.Tick(t.Context()) // it may be late, and say so
		}
		count := int64(0)
		for _, m := range p.got() {
			count += m.digest.Alerts
		}
		if count != incidents-1 {
			t.Errorf("digests stand for %d alerts, want %d; messages: %q", count, incidents-1, p.lines())
		}
		s.closes(t)
	})
}

// TestUnreadableRecords: records of a newer version stay as they are, and keep nothing else from being told.
func TestUnreadableRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		c := &counting{Store: state.NewMemory(10_000, 64<<20)}
		s := start(t, p, func(cfg *Config) { cfg.State = c })
		newer := []byte(`{"version":2}` + "\n{}")
		for i := range maxDue {
			err := c.Update(t.Context(), s.incidents, fmt.Sprint("newer", i), func(state.Record) (state.Record, error) {
				return state.Record{Value: newer, Due: time.Now(), Expires: time.Now().Add(time.Hour)}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		s.done(t, alert(1, "f", event.High), alert(2, "f", event.High))
		c.reads = 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Tick(ctx); err != nil {
			t.Error(err)
		}
		s.run(t, 6*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x2 HIGH")
		if c.reads > 10*maxDue {
			t.Errorf("got %d reads", c.reads)
		}
		if r, err := c.Get(t.Context(), s.incidents, "newer7"); err != nil || string(r.Value) != string(newer) {
			t.Errorf("got %q and %v, want it as it was", r.Value, err)
		}
		s.closes(t)
	})
}

// TestDigestsKeepTheRate: a storm of thousands of different incidents is no burst of digests.
func TestDigestsKeepTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const incidents = 60 * maxDue
		p := &people{}
		s := start(t, p, func(c *Config) { c.Rate = Rate{PerMinute: 30, Burst: 5} })
		begin := time.Now()
		for i := range incidents {
			s.done(t, alert(i, fmt.Sprintf("f%05d", i), event.High))
		}
		s.run(t, 5*time.Minute)
		count := int64(0)
		for _, m := range p.got() {
			count += m.digest.Alerts + m.incident.Count
		}
		if count != incidents {
			t.Errorf("got %d alerts told in 5 minutes, want %d", count, incidents)
		}
		for i, m := range p.got() {
			// The bucket, and what a digest may take that waited for its time.
			if most := 5 + 30*m.at.Sub(begin).Minutes() + 2; float64(i+1) > most+m.at.Sub(begin).Minutes() {
				t.Fatalf("got %d messages within %v, want at most %.0f", i+1, m.at.Sub(begin), most)
			}
		}
		s.closes(t)
	})
}
