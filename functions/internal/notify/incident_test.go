package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

func wantLines(t *testing.T, b *inbox, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, b.lines()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// TestLifeOfAnIncident: the first alert at once, repeats in one message when the window closes, the end after quiet.
func TestLifeOfAnIncident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		s.done(t, alert(0, "f", event.High))
		wantLines(t, &p.inbox, "opened f x1 HIGH")
		for i := range 10 {
			time.Sleep(10 * time.Second)
			a := alert(1+i, "f", event.High)
			a.Count, a.Metadata.Summary, a.Metadata.Suppressed = 4, true, 3 // its first match was told before
			s.done(t, a)
		}
		wantLines(t, &p.inbox, "opened f x1 HIGH")
		s.run(t, 5*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x31 HIGH")
		last := p.got()[1]
		if wait := last.at.Sub(p.got()[0].at); wait < 5*time.Minute || wait > 5*time.Minute+time.Second {
			t.Errorf("got the count after %v, want when the window closes", wait)
		}
		if i := last.incident; i.Ref != "ref-f" || !i.FirstSeen.Equal(p.got()[0].incident.FirstSeen) || i.LastSeen.Sub(i.FirstSeen) != 100*time.Second {
			t.Errorf("got %+v, want the reference and the incident's own times", i)
		}
		// After a quiet window the next one need not wait.
		s.run(t, 10*time.Minute)
		s.done(t, alert(100, "f", event.High))
		s.run(t, time.Second)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x31 HIGH", "repeated f x32 HIGH")
		s.run(t, time.Hour+time.Second)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x31 HIGH", "repeated f x32 HIGH", "resolved f x32 HIGH")
		if i := p.got()[3].incident; i.Ref != "ref-f" {
			t.Errorf("got reference %q", i.Ref)
		}
		// A new one of the same fingerprint is a new incident.
		s.done(t, alert(200, "f", event.Low))
		if got := p.lines()[4:]; !slices.Equal(got, []string{"opened f x1 LOW"}) {
			t.Errorf("got %q, want a new incident", got)
		}
		if got := s.Stats(); got.Sent != 2 || got.Counted != 11 || got.Messages != 5 {
			t.Errorf("got %+v, want 2 sent, 11 counted, 5 messages", got)
		}
		s.closes(t)
	})
}

// TestHigherSeverity passes at once; a lower one does not take it back.
func TestHigherSeverity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		s.done(t, alert(1, "f", event.Low), alert(2, "f", event.Low), alert(3, "f", event.High), alert(4, "f", event.Medium),
			alert(5, "f", event.Critical), alert(6, "f", event.Critical))
		wantLines(t, &p.inbox, "opened f x1 LOW", "repeated f x3 HIGH", "repeated f x5 CRITICAL")
		s.run(t, 6*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 LOW", "repeated f x3 HIGH", "repeated f x5 CRITICAL", "repeated f x6 CRITICAL")
		if a := p.got()[3].incident.Alert; a.ID != alert(5, "", 0).ID {
			t.Errorf("got alert %s, want the first of the highest severity", a.ID)
		}
		s.closes(t)
	})
}

// TestFirstOnce: 100 goroutines on four instances get alerts of one fingerprint at the same moment, from a receiver that
// takes its time, and one message is sent. All are counted.
func TestFirstOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(700 * time.Millisecond)
			return nil
		})
		shared := state.NewMemory(10_000, 64<<20)
		var all []setup
		for range 4 {
			all = append(all, start(t, p, func(c *Config) { c.State = shared }))
		}
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { all[i%4].done(t, alert(i, "f", event.High)) })
		}
		wg.Wait()
		wantLines(t, &p.inbox, "opened f x1 HIGH")
		for range 400 {
			time.Sleep(time.Second)
			for _, s := range all {
				wg.Go(func() {
					if err := s.Tick(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x100 HIGH")
		for _, s := range all {
			s.closes(t)
		}
	})
}

// TestFirstFails: when the first message cannot be sent, those who waited for it hear the same, and the next one opens.
func TestFirstFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(time.Second)
			return retry(502, 0)
		})
		s := start(t, p, nil)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if e := s.hand(t.Context(), alert(i, "f", event.High)); e == nil || e.Status != 502 {
					t.Errorf("got %v, want what the first one's message came to", e)
				}
			})
		}
		wg.Wait()
		if p.calls > 2 {
			t.Errorf("got %d calls, want one for all", p.calls)
		}
		p.set(nil)
		for i := range 50 {
			s.done(t, alert(i, "f", event.High))
		}
		wantLines(t, &p.inbox, "opened f x1 HIGH")
		s.run(t, 5*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x50 HIGH")
		s.closes(t)
	})
}

// TestDeadOpener: an instance that died over an incident's first message keeps others from it for its lease only.
func TestDeadOpener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		err := s.change(t.Context(), "f", func(r *record) (*record, error) {
			r, what := r.join(alert(0, "f", event.High), time.Now(), "dead", s.lease())
			if what != send {
				t.Errorf("got %v, want the turn", what)
			}
			return r, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for s.hand(t.Context(), alert(1, "f", event.High)) != nil {
			time.Sleep(time.Second)
		}
		if took := time.Since(begin); took < s.lease()-time.Second || took > s.lease()+2*time.Second {
			t.Errorf("got it after %v, want after the lease of %v", took, s.lease())
		}
		wantLines(t, &p.inbox, "opened f x1 HIGH")
		s.closes(t)
	})
}

// TestDigest: what the rate does not let through is in one message, critical ones are sent, and nothing is sent twice.
func TestDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, func(c *Config) { c.Rate = Rate{PerMinute: 6, Burst: 2} })
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		for i := range 60 {
			s.done(t, alert(i, fmt.Sprintf("f%02d", i), event.Medium))
		}
		s.done(t, alert(60, "f29", event.High), alert(61, "f28", event.Critical), alert(62, "c", event.Critical))
		want := []string{"opened f00 x1 MEDIUM", "opened f01 x1 MEDIUM", "opened f28 x2 CRITICAL", "opened c x1 CRITICAL"}
		wantLines(t, &p.inbox, want...)
		s.run(t, time.Minute)
		want = append(want, "digest of 57, 58 alerts")
		wantLines(t, &p.inbox, want...)
		d := p.got()[4].digest
		if got := d.Incidents[0]; got.Fingerprint != "f29" || got.Count != 2 || got.Alert.Severity != event.High || got.Change != integration.Opened {
			t.Errorf("got %+v first, want the most severe", got)
		}
		if len(d.Incidents) != integration.MaxDigest || d.More != 57-integration.MaxDigest || d.To.Sub(d.From) != time.Minute {
			t.Errorf("got %d listed and %d more from %v to %v", len(d.Incidents), d.More, d.From, d.To)
		}
		// What stood in a digest is told by itself when there is more of it, and ends without a word when there is not.
		s.run(t, 4*time.Minute)
		s.done(t, alert(70, "f10", event.Medium))
		s.run(t, 2*time.Minute)
		want = append(want, "opened f10 x2 MEDIUM")
		wantLines(t, &p.inbox, want...)
		s.run(t, 2*time.Hour)
		var ends []string
		for _, l := range p.lines()[len(want):] {
			ends = append(ends, strings.Fields(l)[0]+" "+strings.Fields(l)[1])
		}
		slices.Sort(ends)
		if diff := cmp.Diff([]string{"resolved c", "resolved f00", "resolved f01", "resolved f10", "resolved f28"}, ends); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
		s.closes(t)
	})
}

// TestSlowDown: while the receiver asks for a pause everything goes into a digest, critical ones too, and that goes out
// when the pause is over.
func TestSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		p.set(always(retry(429, 20*time.Second)))
		s := start(t, p, nil)
		begin := time.Now()
		for i := range 5 {
			s.done(t, alert(i, fmt.Sprint("f", i), event.Critical))
		}
		if p.calls != 1 {
			t.Errorf("got %d calls, want one", p.calls)
		}
		p.set(nil)
		s.run(t, time.Minute)
		wantLines(t, &p.inbox, "digest of 5, 5 alerts")
		if wait := p.got()[0].at.Sub(begin); wait < 20*time.Second || wait > 22*time.Second {
			t.Errorf("got the digest after %v, want 20 s", wait)
		}
		// One alone is no digest.
		p.set(always(retry(429, 20*time.Second)))
		s.done(t, alert(10, "alone", event.Critical))
		p.set(nil)
		s.run(t, time.Minute)
		if got := p.lines()[1:]; !slices.Equal(got, []string{"opened alone x1 CRITICAL"}) {
			t.Errorf("got %q, want the incident itself", got)
		}
		s.closes(t)
	})
}

// TestReceiverDown: repeats of a known incident need no receiver, new incidents wait in Pub/Sub, and what is due is sent
// when the receiver is back.
func TestReceiverDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		s.done(t, alert(0, "f", event.High))
		p.set(always(retry(500, 0)))
		s.done(t, alert(1, "f", event.High))
		if e := s.hand(t.Context(), alert(2, "g", event.High)); e == nil {
			t.Error("got a new incident delivered")
		}
		s.run(t, 20*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH")
		p.set(nil)
		s.run(t, 6*time.Minute) // the pause before another try has grown
		s.done(t, alert(2, "g", event.High))
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x2 HIGH", "opened g x1 HIGH")
		s.closes(t)
	})
}

// TestRefused: an incident that the receiver refuses is a dead letter; news that it refuses become a new message.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		no := &outcome.Error{Class: outcome.Permanent, Status: 404, Reason: "message_not_found"}
		s := start(t, p, nil)
		s.done(t, alert(0, "f", event.High), alert(1, "f", event.High), alert(2, "f", event.High))
		p.set(func(_ context.Context, m message) *outcome.Error {
			if m.kind == kindRepeated {
				return no
			}
			return nil
		})
		s.run(t, 6*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "opened f x3 HIGH")
		s.done(t, alert(3, "f", event.High), alert(4, "f", event.High))
		p.set(always(no))
		s.run(t, 6*time.Minute)
		letters := s.dead.all()
		if len(letters) != 1 {
			t.Fatalf("got %d dead letters, want 1", len(letters))
		}
		a, err := letters[0].Message.Alert()
		if err != nil || a.Count != 2 || a.Fingerprint != "f" || letters[0].Reason != "message_not_found" || letters[0].Status != 404 {
			t.Errorf("got %+v of %+v, want the count that was not told", letters[0], a)
		}
		p.set(nil)
		s.done(t, alert(5, "f", event.High))
		if got := p.lines()[2:]; !slices.Equal(got, []string{"opened f x1 HIGH"}) {
			t.Errorf("got %q, want a new incident", got)
		}
		s.closes(t)
	})
}

// TestDigestRefused: each of its incidents is a dead letter, once they can be published.
func TestDigestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		p.set(func(_ context.Context, m message) *outcome.Error {
			if m.kind == kindDigest {
				return &outcome.Error{Class: outcome.Permanent, Status: 400, Reason: "invalid_blocks"}
			}
			return nil
		})
		s := start(t, p, func(c *Config) { c.Rate = Rate{PerMinute: 1, Burst: 1} })
		s.dead.fail(errors.New("Pub/Sub is away"))
		for i := range 4 {
			s.done(t, alert(i, fmt.Sprint("f", i), event.High))
		}
		s.run(t, 2*time.Minute)
		s.dead.fail(nil)
		s.run(t, 2*time.Minute)
		wantLines(t, &p.inbox, "opened f0 x1 HIGH")
		if got := len(s.dead.all()); got != 3 {
			t.Errorf("got %d dead letters, want 3", got)
		}
		s.closes(t)
	})
}

// TestEndMeetsRepeat: an alert that comes while the incident's end is being sent begins a new incident.
func TestEndMeetsRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		s.done(t, alert(0, "f", event.High))
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(5 * time.Second)
			return nil
		})
		time.Sleep(time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Tick(t.Context()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		s.done(t, alert(1, "f", event.High))
		wg.Wait()
		wantLines(t, &p.inbox, "opened f x1 HIGH", "resolved f x1 HIGH", "opened f x1 HIGH")
		s.closes(t)
	})
}

// TestCloseEmptiesMemory: what waits in a store that ends with the program is sent at its end; what another instance can
// send is left.
func TestCloseEmptiesMemory(t *testing.T) {
	for _, volatile := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := &people{}
			s := start(t, p, func(c *Config) {
				c.Rate = Rate{PerMinute: 1, Burst: 1}
				if !volatile {
					c.State = lasting{c.State}
				}
			})
			s.done(t, alert(0, "f", event.High), alert(1, "f", event.High), alert(2, "g", event.High))
			s.closes(t)
			want := []string{"opened f x1 HIGH"}
			if volatile {
				want = append(want, "digest of 2, 2 alerts")
			}
			wantLines(t, &p.inbox, want...)
		})
	}
}

// lasting is a store that another instance sees as well.
type lasting struct{ state.Store }

// TestPushesServeWhatIsDue: without a Tick, any push does it, before it is answered.
func TestPushesServeWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		s.done(t, alert(0, "f", event.High), alert(1, "f", event.High))
		time.Sleep(6 * time.Minute)
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(5 * time.Second)
			return nil
		})
		s.done(t, alert(2, "g", event.High))
		wantLines(t, &p.inbox, "opened f x1 HIGH", "opened g x1 HIGH", "repeated f x2 HIGH")
		s.closes(t)
	})
}

// TestHugeAlerts are sent whole at first and kept shortened, which the text says.
func TestHugeAlerts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		a := alert(0, "f", event.High)
		a.Description = strings.Repeat("<!channel> \x00\u202e ", 1<<16)
		a.Metadata.RecommendedActions = slices.Repeat([]string{a.Description[:1<<10]}, 100)
		s.done(t, a, alert(1, "f", event.High))
		s.run(t, 6*time.Minute)
		got := p.got()
		if len(got) != 2 || len(got[0].incident.Alert.Description) != len(a.Description) {
			t.Fatalf("got %q", p.lines())
		}
		short := got[1].incident.Alert
		if len(short.Description) > 3<<10 || !strings.Contains(short.Description, "too large") || short.RuleID != a.RuleID || short.ID != a.ID {
			t.Errorf("got %d bytes of description of %s, want it cut and saying so", len(short.Description), short.ID)
		}
		s.closes(t)
	})
}
