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

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestAnswers: what a receiver says to an alert, and what becomes of the push.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		says  *outcome.Error
		class outcome.Class // of the answer
		dead  string        // the reason in the dead letter
	}{
		{"accepted", nil, outcome.OK, ""},
		{"down", retry(503, 0), outcome.Retry, ""},
		{"slow down", retry(429, time.Second), outcome.Retry, ""},
		{"key refused", &outcome.Error{Class: outcome.Auth, Status: 401}, outcome.Auth, ""},
		{"refused", &outcome.Error{Class: outcome.Permanent, Status: 400, Reason: "bad"}, outcome.OK, "bad"},
		{"too large", &outcome.Error{Class: outcome.Split, Status: 413, Reason: "large"}, outcome.OK, "large"},
		{"another one rejected", &outcome.Error{Class: outcome.Partial, Rejected: []outcome.Rejection{{ID: "x"}}}, outcome.OK, ""},
		{"rejected", &outcome.Error{Class: outcome.Partial, Rejected: []outcome.Rejection{{ID: alert(1, "f", 0).ID, Reason: "old"}}}, outcome.OK, "old"},
		{"a class of the future", &outcome.Error{Class: 99}, outcome.Retry, ""},
	} {
		for _, to := range []string{"program", "people"} {
			t.Run(tt.name+" to "+to, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					box, receiver := receivers(to)
					box.set(always(tt.says))
					s := start(t, receiver, nil)
					e := s.hand(t.Context(), alert(1, "f", event.High))
					class := outcome.OK
					if e != nil {
						class = e.Class
					}
					want := tt.class
					if to == "people" && tt.says != nil && tt.says.Status == 429 {
						want = outcome.OK // it waits for a digest
					}
					if class != want {
						t.Errorf("got %v, want class %v", e, want)
					}
					letters := s.dead.all()
					if (len(letters) == 1) != (tt.dead != "") || len(letters) == 1 && letters[0].Reason != tt.dead {
						t.Errorf("got dead letters %+v, want reason %q", letters, tt.dead)
					}
					box.set(nil)
					s.closes(t)
				})
			})
		}
	}
}

func receivers(kind string) (*inbox, integration.Integration) {
	if kind == "program" {
		p := &program{}
		return &p.inbox, p
	}
	p := &people{}
	return &p.inbox, p
}

type mute struct{}

func (mute) Check(context.Context) (integration.Status, error) { return integration.Status{}, nil }

func TestNewRefusesWhatTakesNoAlerts(t *testing.T) {
	if _, err := New(Config{Name: "mute", To: mute{}}); err == nil {
		t.Error("got no error")
	}
}

func TestDuplicates(t *testing.T) {
	for _, to := range []string{"program", "people"} {
		t.Run(to, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box, receiver := receivers(to)
				s := start(t, receiver, nil)
				p := pushOf(alert(1, "f", event.High))
				again := p
				again.ID = "published twice"
				for _, p := range []envelope.Push{p, p, again} {
					if err := s.Handle(t.Context(), p); err != nil {
						t.Error(err)
					}
				}
				if n := len(box.got()); n != 1 {
					t.Errorf("got %d messages, want 1", n)
				}
				if got := s.Stats(); got.Duplicate != 2 || got.Sent != 1 || got.Messages != 1 {
					t.Errorf("got %+v, want 1 sent and 2 duplicates", got)
				}
				s.closes(t)
			})
		})
	}
}

// TestRedeliveredMeanwhile: an alert that comes again while it is under way is not sent beside, and not taken for done
// when the first try fails.
func TestRedeliveredMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(5 * time.Second)
			return retry(500, 0)
		})
		s := start(t, p, nil)
		a := alert(1, "f", event.High)
		var wg sync.WaitGroup
		wg.Go(func() { s.hand(t.Context(), a) })
		synctest.Wait()
		if e := s.hand(t.Context(), a); e == nil || p.calls != 1 {
			t.Errorf("got %v after %d calls, want a retry after one", e, p.calls)
		}
		wg.Wait()
		p.set(nil)
		s.done(t, a, a)
		if diff := cmp.Diff([]string{"alert " + a.ID}, p.lines()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		s.closes(t)
	})
}

// TestLeaseOfTheDead: an alert that an instance died over is dealt with by another when the lease is over.
func TestLeaseOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		s := start(t, p, nil)
		a := alert(1, "f", event.High)
		other := s.seen
		other.owner = "dead"
		if err := other.claim(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for s.hand(t.Context(), a) != nil {
			time.Sleep(time.Second)
		}
		if took := time.Since(begin); took < 30*time.Second || took > 60*time.Second {
			t.Errorf("got it after %v, want after the lease", took)
		}
		// The dead one's late release must not take what is another's.
		if err := other.release(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if err := s.seen.claim(t.Context(), a.ID); !errors.Is(err, errDone) {
			t.Errorf("got %v, want that it was dealt with", err)
		}
		s.closes(t)
	})
}

func TestRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		s := start(t, p, func(c *Config) { c.Route = func(a *event.Alert) bool { return a.Severity >= event.High } })
		p.set(always(retry(503, 0)))
		s.done(t, alert(1, "f", event.Low)) // also while the receiver is down
		p.set(nil)
		s.done(t, alert(2, "f", event.High))
		if got := s.Stats(); got.Unrouted != 1 || got.Sent != 1 {
			t.Errorf("got %+v, want one of each", got)
		}
		s.closes(t)
	})
}

func TestPoison(t *testing.T) {
	whole := pushOf(alert(1, "f", event.High))
	with := func(data string, attributes map[string]string) envelope.Push {
		return envelope.Push{Message: envelope.Message{Data: []byte(data), Attributes: attributes}, ID: "m"}
	}
	for name, p := range map[string]envelope.Push{
		"no JSON":          with("{", whole.Attributes),
		"empty":            with("", whole.Attributes),
		"events":           with(`{"id":"1"}`, map[string]string{"ce-type": envelope.TypeEvents}),
		"unknown encoding": with("{}", map[string]string{"ce-type": envelope.TypeAlert, "content-encoding": "br"}),
		"corrupt zstd":     with("{}", map[string]string{"ce-type": envelope.TypeAlert, "content-encoding": "zstd"}),
	} {
		t.Run(name, func(t *testing.T) {
			r := &program{}
			s := start(t, r, nil)
			s.dead.fail(errors.New("Pub/Sub is away"))
			if e := outcome.From(s.Handle(t.Context(), p)); e == nil || e.Class != outcome.Retry {
				t.Errorf("without dead letters: got %v, want a retry", e)
			}
			s.dead.fail(nil)
			if err := s.Handle(t.Context(), p); err != nil {
				t.Error(err)
			}
			letters := s.dead.all()
			if len(letters) != 1 || letters[0].Reason == "" || string(letters[0].Message.Data) != string(p.Data) || letters[0].MessageID != p.ID {
				t.Errorf("got dead letters %+v, want the message with a reason", letters)
			}
			if r.calls != 0 {
				t.Errorf("got %d calls, want none", r.calls)
			}
			s.closes(t)
		})
	}
}

// TestReplay: what is in the dead letters is not taken for done when it comes again.
func TestReplay(t *testing.T) {
	p := &program{}
	p.set(always(&outcome.Error{Class: outcome.Permanent, Status: 404}))
	s := start(t, p, nil)
	a := alert(1, "f", event.High)
	s.done(t, a)
	p.set(nil)
	s.done(t, a, a)
	if got := s.Stats(); got.DeadLettered != 1 || got.Sent != 1 || got.Duplicate != 1 {
		t.Errorf("got %+v, want one of each", got)
	}
	s.closes(t)
}

// TestPanic: it costs the alert that made it, not the program nor the place of a call.
func TestPanic(t *testing.T) {
	for _, to := range []string{"program", "people"} {
		box, receiver := receivers(to)
		s := start(t, receiver, func(c *Config) { c.MaxConns = 1 })
		box.set(func(context.Context, message) *outcome.Error { panic("hostile") })
		s.done(t, alert(1, "f", event.High))
		box.set(nil)
		s.done(t, alert(2, "f", event.High))
		if got := s.Stats(); got.DeadLettered != 1 || got.Sent != 1 {
			t.Errorf("%s: got %+v, want one dead letter and one sent", to, got)
		}
		s.closes(t)
	}
}

// TestRefusesEverything: a receiver with which something is wrong does not send the whole stream to the dead letters.
func TestRefusesEverything(t *testing.T) {
	for _, to := range []string{"program", "people"} {
		synctest.Test(t, func(t *testing.T) {
			box, receiver := receivers(to)
			box.set(always(&outcome.Error{Class: outcome.Permanent, Status: 404, Reason: "no such channel"}))
			s := start(t, receiver, nil)
			var left []*event.Alert
			const alerts = 60
			for i := range alerts {
				a := alert(i, fmt.Sprint("f", i), event.High)
				if s.hand(t.Context(), a) != nil {
					left = append(left, a)
				}
			}
			if n := len(s.dead.all()); n != refusals {
				t.Errorf("%s: got %d dead letters, want %d", to, n, refusals)
			}
			// For an hour everything comes again and again: one in each pause is refused as well.
			for range 120 {
				time.Sleep(30 * time.Second)
				left = slices.DeleteFunc(left, func(a *event.Alert) bool { return s.hand(t.Context(), a) == nil })
			}
			if n := len(s.dead.all()); n > refusals+22 {
				t.Errorf("%s: after an hour: got %d dead letters", to, n)
			}
			if got := s.Stats().Breaker; !strings.Contains(got.Reason, "no such channel") {
				t.Errorf("%s: got %+v, want the reason", to, got)
			}
			box.set(nil)
			time.Sleep(5 * time.Minute)
			s.done(t, left...)
			if got := len(s.dead.all()) + len(box.got()); got != alerts {
				t.Errorf("%s: %d of %d are somewhere", to, got, alerts)
			}
			s.closes(t)
		})
	}
}

// TestHang: a receiver that hangs holds a few calls for their time, then one at a time, and nobody else.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(10 * time.Second) // the integration's limit of a call
			return &outcome.Error{Class: outcome.Retry, Reason: "no answer"}
		})
		s := start(t, p, nil)
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if s.hand(t.Context(), alert(i, "f", event.High)) == nil {
					t.Error("got it delivered")
				}
			})
		}
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		// A few came in for those that ended before the last of the failures in a row.
		if got := s.Stats().Returned; got < 200-failures+1 || p.calls > 16+failures-1 {
			t.Errorf("after one call's time: got %d answers and %d calls", got, p.calls)
		}
		now := time.Now()
		if e := s.hand(t.Context(), alert(1000, "f", event.High)); e == nil || e.After <= 0 || time.Since(now) > 0 {
			t.Errorf("while it is down: got %v after %v, want an answer at once that says when", e, time.Since(now))
		}
		wg.Wait()
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("got the last answer after %v", took)
		}
		wg.Go(func() { s.hand(t.Context(), alert(1001, "f", event.High)) }) // asks whether it is well again
		synctest.Wait()
		now = time.Now()
		if e := s.hand(t.Context(), alert(1002, "f", event.High)); e == nil || e.After <= 0 || time.Since(now) > 0 {
			t.Errorf("beside a probe: got %v after %v, want an answer at once that says when", e, time.Since(now))
		}
		wg.Wait()
		s.closes(t)
	})
}

// TestRateOfPrograms: beyond the rate a push waits a little, then is told when to come again; critical ones pass.
func TestRateOfPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		s := start(t, p, func(c *Config) { c.Rate = Rate{PerMinute: 120, Burst: 10} })
		begin := time.Now()
		s.done(t, slices.Collect(func(yield func(*event.Alert) bool) {
			for i := range 12 {
				if !yield(alert(i, "f", event.Low)) {
					return
				}
			}
		})...)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("12 with a burst of 10 and 2 a second took %v, want 1 s", took)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		passed, slower := 0, 0
		for i := range 20 {
			wg.Go(func() {
				e := s.hand(t.Context(), alert(100+i, "f", event.Low))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case e == nil:
					passed++
				case e.Status == 429 && e.After > time.Second:
					slower++
				default:
					t.Errorf("got %+v, want a 429 with a time", e)
				}
			})
		}
		wg.Wait()
		if passed != 2 || slower != 18 {
			t.Errorf("got %d that waited and %d that were told to, want 2 and 18", passed, slower)
		}
		begin = time.Now()
		for i := range 20 {
			s.done(t, alert(200+i, "f", event.Critical))
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("critical ones took %v", took)
		}
		s.closes(t)
	})
}

// TestMaxConns: so many calls at once and no more, the most severe first.
func TestMaxConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(50 * time.Millisecond)
			return nil
		})
		s := start(t, p, func(c *Config) { c.MaxConns = 8 })
		var wg sync.WaitGroup
		for i := range 80 {
			wg.Go(func() { s.done(t, alert(i, "f", event.Low)) })
		}
		synctest.Wait()
		begin := time.Now()
		s.done(t, alert(1000, "f", event.Critical))
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("a critical one waited %v behind others", took)
		}
		wg.Wait()
		if p.most != 8 {
			t.Errorf("got %d calls at once, want 8", p.most)
		}
		s.closes(t)
	})
}

func TestBudget(t *testing.T) {
	p := &program{}
	inHand := budget.New(100)
	s := start(t, p, func(c *Config) { c.InHand = inHand })
	if e := s.hand(t.Context(), alert(1, "f", event.Low)); e == nil || e.Status != 429 {
		t.Errorf("got %v, want 429", e)
	}
	if inHand.Used() != 0 {
		t.Errorf("%d bytes are not given back", inHand.Used())
	}
	s.closes(t)
}

// TestStateDown: without its store delivery does not guess; the program gives it a Fallback.
func TestStateDown(t *testing.T) {
	p := &program{}
	s := start(t, p, func(c *Config) { c.State = brokenStore{c.State} })
	if e := s.hand(t.Context(), alert(1, "f", event.Low)); e == nil || e.Class != outcome.Retry || !errors.Is(e, state.ErrDown) {
		t.Errorf("got %v, want a retry for the store's sake", e)
	}
	s.closes(t)
}

type brokenStore struct{ state.Store }

func (brokenStore) Update(context.Context, string, string, func(state.Record) (state.Record, error)) error {
	return state.ErrDown
}

// TestClose: what is in hand is waited for, what comes later is refused.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		p.set(func(context.Context, message) *outcome.Error {
			time.Sleep(3 * time.Second)
			return nil
		})
		s := start(t, p, nil)
		var wg sync.WaitGroup
		wg.Go(func() { s.done(t, alert(1, "f", event.Low)) })
		synctest.Wait()
		wg.Go(func() { s.closes(t) })
		synctest.Wait()
		if e := s.hand(t.Context(), alert(2, "f", event.Low)); e == nil || e.Class != outcome.Retry {
			t.Errorf("while it closes: got %v, want a retry", e)
		}
		wg.Wait()
		if len(p.got()) != 1 {
			t.Error("what was in hand is not delivered")
		}
		s.closes(t) // twice is no harm
	})
}

func TestTest(t *testing.T) {
	for _, to := range []string{"program", "people"} {
		t.Run(to, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box, receiver := receivers(to)
				box.set(func(context.Context, message) *outcome.Error {
					time.Sleep(30 * time.Millisecond)
					return nil
				})
				s := start(t, receiver, nil)
				receipt, err := s.Test(t.Context())
				if err != nil || receipt.Latency < 30*time.Millisecond {
					t.Errorf("got %+v and %v, want a latency", receipt, err)
				}
				for _, m := range box.got() {
					if m.kind == kindAlert && m.alert.Event.Type != event.IntegrationTest || m.kind != kindAlert && !m.incident.Test {
						t.Errorf("got %+v, want it marked", m)
					}
				}
				if to == "people" {
					if got := box.got(); len(got) != 2 || got[1].kind != kindResolved || got[1].incident.Ref == "" {
						t.Errorf("got %q, want a begin and an end", box.lines())
					}
				}
				box.set(always(&outcome.Error{Class: outcome.Auth, Status: 401, Reason: "key refused"}))
				receipt, err = s.Test(t.Context())
				if e := outcome.From(err); e == nil || e.Class != outcome.Auth || receipt.Status != 401 || receipt.Answer != "key refused" {
					t.Errorf("got %+v and %v, want what the receiver said", receipt, err)
				}
				box.set(func(context.Context, message) *outcome.Error { panic("x") })
				if _, err = s.Test(t.Context()); err == nil {
					t.Error("a panic passes for a success")
				}
				if got := s.Stats().Breaker.State.String(); got != "closed" {
					t.Errorf("after tests: got the breaker %s", got)
				}
				s.closes(t)
			})
		})
	}
}
