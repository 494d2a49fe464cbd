package health

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/functions/internal/breaker"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

// receiver is an integration that answers its check as told.
type receiver struct {
	mu     sync.Mutex
	checks int
	check  func(context.Context) (integration.Status, error)
}

func (r *receiver) Check(ctx context.Context) (integration.Status, error) {
	r.mu.Lock()
	r.checks++
	check := r.check
	r.mu.Unlock()
	if check == nil {
		return integration.Status{Latency: 3 * time.Millisecond}, nil
	}
	return check(ctx)
}

func (r *receiver) set(check func(context.Context) (integration.Status, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check = check
}

func fails(e *outcome.Error) func(context.Context) (integration.Status, error) {
	return func(context.Context) (integration.Status, error) { return integration.Status{}, e }
}

// topics are what was published.
type topics struct {
	mu       sync.Mutex
	messages map[string][]envelope.Message
	err      error
}

func (p *topics) publish(_ context.Context, topic string, m envelope.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	if p.messages == nil {
		p.messages = map[string][]envelope.Message{}
	}
	p.messages[topic] = append(p.messages[topic], m)
	return nil
}

func (p *topics) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func newHealth(t *testing.T, more func(*Config)) (*Health, *topics) {
	t.Helper()
	p := new(topics)
	c := Config{
		Version: "test", State: state.NewMemory(100_000, 64<<20), Publish: p.publish, Open: true,
		CheckEvery: time.Minute, CanaryEvery: 5 * time.Minute, Silence: 3 * time.Minute, Timeout: 10 * time.Second,
		Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{},
	}
	if more != nil {
		more(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h, p
}

// another is another instance that shares h's state.
func another(t *testing.T, h *Health) *Health {
	t.Helper()
	o, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func report(t *testing.T, h *Health) Report {
	t.Helper()
	r, err := h.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	well := checkRecord{At: now, OK: true}
	number := now.Unix() / 300
	open := map[string]openRecord{"a": {State: "open", Reason: "the receiver asked for a pause", Retry: now.Add(30 * time.Second), At: now}}
	for _, tt := range []struct {
		name  string
		facts facts
		want  Status
		say   []string // in this order
	}{
		{"disabled", facts{check: checkRecord{Failures: 9}}, Disabled, []string{"switched off"}},
		{"well", facts{enabled: true, check: well}, Healthy, nil},
		{"not checked", facts{enabled: true}, Warning, []string{"not checked yet"}},
		{"a blink", facts{enabled: true, check: checkRecord{At: now, Failures: 1, Class: "retry", Error: "HTTP 503"}}, Warning, []string{"last check: HTTP 503"}},
		{"down", facts{enabled: true, check: checkRecord{At: now, Failures: 2, Class: "retry", Error: "HTTP 503"}}, Failing, []string{"2 times in a row: HTTP 503"}},
		{"a wrong key", facts{enabled: true, check: checkRecord{At: now, Failures: 1, Class: "auth", Error: "HTTP 401"}}, Failing, []string{"once: HTTP 401"}},
		{"a breaker is open", facts{enabled: true, check: well, tally: tally{Breakers: open}}, Failing, []string{"asked for a pause; the next call is in 30s"}},
		{"half-open", facts{enabled: true, check: well, tally: tally{Breakers: map[string]openRecord{"a": {State: "half-open", Reason: "down", Retry: now, At: now}}}},
			Warning, []string{"down; the next call finds out"}},
		{"a breaker of long ago", facts{enabled: true, check: well, tally: tally{Breakers: map[string]openRecord{"a": {State: "open", Retry: now.Add(-3 * time.Minute), At: now.Add(-3 * time.Minute)}}}},
			Healthy, nil},
		{"dead letters", facts{enabled: true, check: well, tally: tally{Slots: []slot{{Number: number, Accepted: 1, Dead: 3}}}}, Warning, []string{"3 went to the dead letters"}},
		{"dead letters of long ago", facts{enabled: true, check: well, tally: tally{Slots: []slot{{Number: number - 12, Dead: 3}}}}, Healthy, nil},
		{"nothing accepted", facts{enabled: true, check: well, tally: tally{LastFailure: now, LastError: "HTTP 500", Slots: []slot{{Number: number, Failures: map[string]int64{"retry": 2, "auth": 1}}}}},
			Warning, []string{"the last call failed: HTTP 500", "calls failed (auth 1, retry 2)"}},
		{"failures and then success", facts{enabled: true, check: well, tally: tally{LastFailure: now.Add(-2), LastSuccess: now, Slots: []slot{{Number: number, Accepted: 1, Failures: map[string]int64{"retry": 2}}}}},
			Healthy, nil},
		{"a backlog that is young", facts{enabled: true, check: well, waiting: Waiting{Messages: 900, Oldest: 10 * time.Minute, Known: true}}, Healthy, nil},
		{"a backlog that is old", facts{enabled: true, check: well, waiting: Waiting{Messages: 9, Oldest: 17 * time.Minute, Known: true}},
			Warning, []string{"9 messages wait for it, the oldest for 17m0s"}},
		{"a canary that came out", facts{enabled: true, check: well, canaryEvery: time.Minute, canary: map[string]canaryRecord{"events": {Sent: now.Add(-time.Minute), Arrived: now}}}, Healthy, nil},
		{"a canary that is late", facts{enabled: true, check: well, canaryEvery: time.Minute, canary: map[string]canaryRecord{"events": {Sent: now.Add(-4 * time.Minute), Arrived: now}}},
			Failing, []string{"of events that came out was sent 4m0s ago"}},
		{"no canary, yet", facts{enabled: true, check: well, canaryEvery: time.Minute, canarySince: now.Add(-time.Minute), canary: map[string]canaryRecord{"alerts": {}}}, Healthy, nil},
		{"no canary", facts{enabled: true, check: well, canaryEvery: time.Minute, canarySince: now.Add(-time.Hour), canary: map[string]canaryRecord{"alerts": {}}}, Failing, []string{"no canary of alerts"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, reasons := judge(now, tt.facts)
			if got != tt.want || len(reasons) != len(tt.say) {
				t.Fatalf("got %s %q, want %s %q", got, reasons, tt.want, tt.say)
			}
			for i, want := range tt.say {
				if !strings.Contains(reasons[i], want) {
					t.Errorf("got %q, want it to say %q", reasons[i], want)
				}
			}
		})
	}
}

// TestChecks: each is made once in its time whoever ticks, none waits for another's, and a failure is known until the
// receiver is well.
func TestChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		well, hanging, bad, off := &receiver{}, &receiver{}, &receiver{}, &receiver{}
		hanging.set(func(ctx context.Context) (integration.Status, error) {
			<-ctx.Done()
			return integration.Status{}, &outcome.Error{Class: outcome.Retry, Reason: "no answer", Err: ctx.Err()}
		})
		bad.set(func(context.Context) (integration.Status, error) { panic("bad") })
		h, _ := newHealth(t, func(c *Config) {
			c.Instances = []Instance{
				{Name: "well", Enabled: true, To: well}, {Name: "hanging", Enabled: true, To: hanging}, {Name: "bad", Enabled: true, To: bad},
				{Name: "off"},
			}
		})
		other := another(t, h)
		begin := time.Now()
		if err := h.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("the round took %v, want the deadline of one check", took)
		}
		if err := other.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if well.checks != 1 {
			t.Errorf("got %d checks in one minute, want 1", well.checks)
		}
		statuses := func(h *Health) map[string]Status {
			got := map[string]Status{}
			for _, i := range report(t, h).Integrations {
				got[i.Name] = i.Status
			}
			return got
		}
		if diff := cmp.Diff(map[string]Status{"well": Healthy, "hanging": Warning, "bad": Failing, "off": Disabled}, statuses(other)); diff != "" {
			t.Errorf("after one round (-want +got):\n%s", diff)
		}
		if s := report(t, h).Status; s != Failing {
			t.Errorf("got %s for all, want the worst", s)
		}
		time.Sleep(time.Minute)
		bad.set(nil)
		if err := other.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]Status{"well": Healthy, "hanging": Failing, "bad": Healthy, "off": Disabled}, statuses(h)); diff != "" {
			t.Errorf("after two rounds (-want +got):\n%s", diff)
		}
		if off.checks != 0 || well.checks != 2 {
			t.Errorf("got %d and %d checks, want none of what is off, and 2", off.checks, well.checks)
		}
		if c := report(t, h).Integrations[1].Check; c.Failures != 2 || c.OK || !c.LastOK.IsZero() {
			t.Errorf("got %+v, want two failures in a row", c)
		}
	})
}

// TestFigures: what instances deliver is added up, also what could not be added when the state was down.
func TestFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var figures Figures
		h, _ := newHealth(t, func(c *Config) {
			c.Instances = []Instance{{Name: "i", Enabled: true, To: &receiver{}, Ways: []Way{{Topic: Events, Figures: func() Figures {
				mu.Lock()
				defer mu.Unlock()
				return figures
			}}}}}
		})
		other := another(t, h)
		down := &downStore{Store: h.cfg.State}
		h.cfg.State = down
		collect := func(h *Health) error { return h.Collect(t.Context()) }

		figures = Figures{Accepted: 10, DeadLettered: 1, Breaker: breaker.Status{LastSuccess: time.Now()}}
		figures.Failures[outcome.Retry] = 2
		if err := errors.Join(collect(h), collect(other), collect(h)); err != nil {
			t.Fatal(err)
		}
		down.down = true
		figures.Accepted = 15
		if err := collect(h); !errors.Is(err, state.ErrDown) {
			t.Errorf("got %v, want it to say that the state is down", err)
		}
		down.down = false
		time.Sleep(30 * time.Minute)
		figures.Breaker = breaker.Status{
			State: breaker.Open, Reason: "down", Retry: time.Now().Add(time.Minute), LastSuccess: figures.Breaker.LastSuccess,
			LastFailure: time.Now(), LastError: "HTTP 500",
		}
		if err := collect(h); err != nil {
			t.Fatal(err)
		}
		i := report(t, other).Integrations[0]
		if i.PerHour != 25 || i.DeadLetters != 2 || i.Failures["retry"] != 4 || i.Breaker.State != "open" || i.LastError != "HTTP 500" {
			t.Errorf("got %+v, want the figures of both instances", i)
		}
		time.Sleep(30 * time.Minute)
		figures.Breaker.State = breaker.Closed
		if err := collect(h); err != nil {
			t.Fatal(err)
		}
		if i := report(t, other).Integrations[0]; i.PerHour != 5 || i.DeadLetters != 0 || i.Breaker.State != "closed" {
			t.Errorf("got %+v, want those of the last hour", i)
		}
	})
}

// TestWaiting: when it is not known what waits the report says so, once in the log, and is whole but for that.
func TestWaiting(t *testing.T) {
	var mu sync.Mutex
	var log strings.Builder
	failure := errors.New("give the account roles/monitoring.viewer")
	h, _ := newHealth(t, func(c *Config) {
		c.Instances = []Instance{{Name: "a", Enabled: true, To: &receiver{}}, {Name: "b", Enabled: true, To: &receiver{}}}
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		c.Waiting = func(context.Context) (map[string]Waiting, error) {
			mu.Lock()
			defer mu.Unlock()
			return map[string]Waiting{"a": {Messages: 3, Oldest: time.Second, Known: failure == nil}}, failure
		}
	})
	for range 2 {
		r := report(t, h)
		if len(r.Integrations) != 2 || r.Integrations[0].Waiting != nil || r.WaitingError != failure.Error() {
			t.Errorf("got %+v, want both integrations, nothing of what waits, and why", r)
		}
	}
	if n := strings.Count(log.String(), "roles/monitoring.viewer"); n != 1 {
		t.Errorf("the log has it %d times, want once", n)
	}
	mu.Lock()
	failure = nil
	mu.Unlock()
	r := report(t, h)
	if a, b := r.Integrations[0], r.Integrations[1]; a.Waiting == nil || *a.Waiting != 3 || *a.WaitingAge != 1 || b.Waiting != nil || r.WaitingError != "" {
		t.Errorf("got %+v, want 3 that wait for a, and nothing known of b", r)
	}
}

// downStore is a state that can be away.
type downStore struct {
	state.Store
	down bool
}

func (s *downStore) Update(ctx context.Context, c, key string, f func(state.Record) (state.Record, error)) error {
	if s.down {
		return state.ErrDown
	}
	return s.Store.Update(ctx, c, key, f)
}
