package notify

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestStorm: 100,000 alerts of 50 fingerprints, in ten minutes, to a chat that takes 50 ms for a message and one a second:
// some hundred messages, every critical fingerprint within a second of its first alert, and all are counted.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const alerts, incidents, every = stormAlerts, 50, 10 // each tenth incident is critical
		p := &people{}
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(50 * time.Millisecond)
			return nil
		})
		s := start(t, p, func(c *Config) { c.Rate = Rate{PerMinute: 60, Burst: 10} })
		begin := time.Now()
		var wg sync.WaitGroup
		const callers = 100
		for c := range callers {
			wg.Go(func() {
				for i := c; i < alerts; i += callers {
					severity := event.Medium
					if i%incidents%every == 0 {
						severity = event.Critical
					}
					a := alert(i, fmt.Sprintf("f%02d", i%incidents), severity)
					for s.hand(t.Context(), a) != nil {
						time.Sleep(time.Second)
					}
					time.Sleep(10 * time.Minute * callers / alerts)
				}
			})
		}
		wg.Go(func() { s.run(t, 12*time.Minute) })
		wg.Wait()
		s.run(t, 10*time.Minute)
		kinds, counts, firsts := map[kind]int{}, map[string]int64{}, map[string]time.Time{}
		for _, m := range p.got() {
			kinds[m.kind]++
			for _, i := range append(m.digest.Incidents, m.incident) {
				counts[i.Fingerprint] = max(counts[i.Fingerprint], i.Count)
			}
			if fp := m.incident.Fingerprint; firsts[fp].IsZero() {
				firsts[fp] = m.at
			}
		}
		t.Logf("messages for %d alerts: %v", alerts, kinds)
		if n := len(p.got()); n > 300 {
			t.Errorf("got %d messages, want at most a few hundred", n)
		}
		for i := range incidents {
			fp := fmt.Sprintf("f%02d", i)
			// Each was in the list of a digest, at least: none is always beyond it.
			if counts[fp] != alerts/incidents {
				t.Errorf("%s: got a count of %d, want %d", fp, counts[fp], alerts/incidents)
			}
			if i%every == 0 && (firsts[fp].IsZero() || firsts[fp].Sub(begin) > time.Second) {
				t.Errorf("critical %s was told at %v, want within a second of %v", fp, firsts[fp], begin)
			}
		}
		got := s.Stats()
		if got.Sent+got.Counted+got.Digested != alerts {
			t.Errorf("got %+v, want %d in all", got, alerts)
		}
		s.closes(t)
	})
}

// TestOutage: 500 for 60 s under a steady stream: the receiver gets few calls meanwhile, is found well again soon after,
// and nothing is lost or sent twice.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		s := start(t, p, nil)
		const alerts = 1000
		begin := time.Now()
		down := func() bool { return time.Since(begin) > 10*time.Second && time.Since(begin) < 70*time.Second }
		inVain := 0
		p.set(func(context.Context, message) *outcome.Error {
			if down() {
				inVain++ // under way are one at a time: the answer takes no time
				return retry(500, 0)
			}
			return nil
		})
		var wg sync.WaitGroup
		for i := range alerts {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				for s.hand(t.Context(), alert(i, "f", event.High)) != nil {
					time.Sleep(10 * time.Second)
				}
			})
		}
		wg.Wait()
		seen := map[string]int{}
		var again time.Duration
		for _, m := range p.got() {
			seen[m.alert.ID]++
			if at := m.at.Sub(begin); at > 70*time.Second && (again == 0 || at < again) {
				again = at
			}
		}
		if len(seen) != alerts || len(p.got()) != alerts {
			t.Errorf("got %d messages of %d alerts, want %d of each", len(p.got()), len(seen), alerts)
		}
		if inVain > failures+7 { // and one after each pause of 1, 2, 4, 8, 16, 32 s
			t.Errorf("got %d calls in vain", inVain)
		}
		if again > 105*time.Second {
			t.Errorf("the receiver is found well again after %v", again)
		}
		s.closes(t)
	})
}
