package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// bin is where the program under test is.
var bin string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "building apss-functions:", err)
		code = 1
	}
	os.Exit(code)
}

func build(m *testing.M) (code int, err error) {
	bin, err = os.MkdirTemp("", "apss-faults-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	functions, err := filepath.Abs("../../../functions")
	if err != nil {
		return 1, err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(bin, "apss-functions"), "./cmd/apss-functions")
	cmd.Dir = functions
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("%w: %s", err, out)
	}
	return m.Run(), nil
}

// patience bounds each wait: these are real programs on a machine that may be busy.
const patience = 50 * time.Second

// rig is a running system.
type rig struct {
	*system.System
	t    *testing.T
	sent int // alerts, each of an incident of its own
}

func start(t *testing.T, change func(*system.Config)) *rig {
	t.Helper()
	c := system.Defaults()
	c.Bin, c.Dir = bin, t.TempDir()
	c.MinBackoff, c.MaxBackoff, c.MaxPushBackoff = 100*time.Millisecond, time.Second, 500*time.Millisecond
	c.CallTimeout, c.IncidentWindow, c.ResolveAfter, c.NoRate = time.Second, time.Second, time.Hour, true
	if change != nil {
		change(&c)
	}
	s, err := system.Start(t.Context(), c, system.Watcher{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			if log, err := os.ReadFile(c.LogFile()); err == nil {
				t.Logf("the log's end:\n%s", log[max(0, len(log)-8_000):])
			}
		}
	})
	return &rig{System: s, t: t}
}

// publish publishes messages of n alerts and as many envelopes of ten events.
func (r *rig) publish(n int, fingerprint func(i int) string) {
	r.t.Helper()
	now := time.Now().UTC()
	source := envelope.Source{AgentID: "local/n", Cluster: "local"}
	send := func(topic string, m envelope.Message) {
		if err := r.Broker.Publish(r.t.Context(), r.Broker.TopicName(topic), dispatch.Message{Data: m.Data, Attributes: m.Attributes}); err != nil {
			r.t.Fatal(err)
		}
	}
	for i := range n {
		e := &event.Event{ID: event.NewID(), AgentID: "local/n", Type: event.ProcessExec, Severity: event.High, Timestamp: now}
		send(system.AlertsTopic, envelope.SealAlert(&event.Alert{
			ID: event.NewID(), Timestamp: now, Severity: event.High, RuleID: "APSS-001", RuleName: "Reverse shell", NodeName: "n", Cluster: "local",
			EventIDs: []string{e.ID}, Fingerprint: fingerprint(i), Count: 1, FirstSeen: now, LastSeen: now, Event: e,
		}, source, now))
		var b envelope.Batch
		for range 10 {
			e.ID = event.NewID()
			b.Append(e)
		}
		send(system.EventsTopic, b.Seal(source, now))
	}
	r.sent += n
}

// fresh makes each alert an incident of its own.
func (r *rig) fresh(i int) string { return fmt.Sprintf("%032x", r.sent+i) }

func same(i int) string { return fmt.Sprintf("%032x", i%5) }

// until waits for a condition.
func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	for limit := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			r.books()
			r.t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// books prints what the books say.
func (r *rig) books() {
	r.t.Helper()
	b := r.Ledger.Totals()
	r.t.Logf("events to Sweet Security: published %d = delivered %d + dead %d + in flight %d; twice %d", b.Published, b.Delivered, b.Dead, b.InFlight, b.DeliveredTwice)
	for _, to := range r.Receivers() {
		b := to.Balance()
		doubled := int64(0)
		if to.Incidents != nil {
			doubled = to.Incidents.Totals().Doubled
		}
		r.t.Logf("alerts to %s: published %d = delivered %d + dead %d + waiting %d; twice %d, incidents with two messages %d",
			to.Kind, b.Published, b.Delivered, b.Dead, b.Waiting, b.Twice, doubled)
	}
}

// whole waits until everything that was published has ended, and checks the books. It returns how much came twice.
func (r *rig) whole() (twice int64) {
	r.t.Helper()
	r.until("everything published ends", func() bool {
		b := r.Ledger.Totals()
		whole := b.Published == int64(10*r.sent) && b.Balanced() && b.InFlight == 0
		for _, to := range r.Receivers() {
			a := to.Balance()
			whole = whole && a.Published == int64(r.sent) && a.Waiting == 0 && to.Held() == 0
		}
		return whole
	})
	r.books()
	b := r.Ledger.Totals()
	if b.Dead > 0 {
		r.t.Errorf("events to Sweet Security: got %d dead letters, want none", b.Dead)
	}
	twice = b.DeliveredTwice
	for _, to := range r.Receivers() {
		a := to.Balance()
		if a.Published != a.Delivered+a.Dead-a.Twice && to.Incidents != nil || a.Published != a.Delivered && to.Incidents == nil || a.Dead > 0 {
			r.t.Errorf("alerts to %s: got %+v, want all delivered", to.Kind, a)
		}
		twice += a.Twice
		if to.Incidents != nil {
			if t := to.Incidents.Totals(); t.Untold > 0 {
				r.t.Errorf("%s: got nothing of %d incidents", to.Kind, t.Untold)
			}
		}
	}
	return twice
}

// TestReceiversFail: all receivers do the same for a while, under load; afterwards all of it is there.
func TestReceiversFail(t *testing.T) {
	const lasts = standin.Duration(time.Second)
	for name, tt := range map[string]struct {
		faults standin.Faults
		may    bool // come twice: the receiver took it and did not say so
	}{
		"hang":               {faults: standin.Faults{Hang: true}},
		"500":                {faults: standin.Faults{Status: http.StatusInternalServerError}},
		"429 for a second":   {faults: standin.Faults{Status: http.StatusTooManyRequests, RetryAfter: "1"}},
		"429 without a time": {faults: standin.Faults{Status: http.StatusTooManyRequests}},
		"cut":                {faults: standin.Faults{Cut: true}},
		"garbage":            {faults: standin.Faults{Garbage: true}, may: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, nil)
			r.publish(10, r.fresh)
			tt.faults.For = lasts
			for _, to := range r.Receivers() {
				to.Switches.Set(tt.faults)
			}
			r.publish(30, r.fresh)
			if twice := r.whole(); twice > 0 && !tt.may {
				t.Errorf("got %d twice, want none", twice)
			}
		})
	}
}

// TestFunctionsAreKilled: kill -9 while calls are under way. What had no answer yet may come twice, and is counted.
func TestFunctionsAreKilled(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	for _, to := range r.Receivers() {
		to.Switches.Set(standin.Faults{Latency: standin.Duration(50 * time.Millisecond)})
	}
	r.publish(60, r.fresh)
	for range 2 {
		before := r.Receiver(system.Slack).Board.Posted()
		r.publish(60, r.fresh)
		r.until("something is under way", func() bool { return r.Receiver(system.Slack).Board.Posted() > before })
		r.KillFunctions()
		if err := r.StartFunctions(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d came twice", r.whole())
}

// TestFunctionsEnd: SIGTERM under load. They answer what they have and end in time; nothing comes twice, and repeats that
// were counted are told before the end.
func TestFunctionsEnd(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *system.Config) { c.IncidentWindow = 30 * time.Minute })
	for _, to := range r.Receivers() {
		to.Switches.Set(standin.Faults{Latency: standin.Duration(20 * time.Millisecond)})
	}
	r.publish(20, func(i int) string { return "5" + same(i)[1:] })
	r.until("repeats are taken", func() bool {
		taken := true
		for _, to := range r.Receivers() {
			for _, p := range to.Pushes {
				taken = taken && p.Stats().Acked == 20
			}
		}
		return taken
	})
	for range 2 {
		r.publish(60, r.fresh)
		if err := r.StopFunctions(); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
		if err := r.StartFunctions(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if twice := r.whole(); twice > 0 {
		t.Errorf("got %d twice, want none", twice)
	}
}

// TestStateIsLost: functions that know nothing of the incidents that they opened open them anew; nothing is lost, and
// PagerDuty, which knows them by their fingerprints, has each once.
func TestStateIsLost(t *testing.T) {
	t.Parallel()
	r := start(t, nil)
	r.publish(10, same)
	r.whole()
	r.KillFunctions()
	if err := r.StartFunctions(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.publish(10, same)
	r.whole()
	for name, want := range map[string]int64{system.Slack: 5, system.PagerDuty: 0} {
		if got := r.Receiver(name).Incidents.Totals().Doubled; got != want {
			t.Errorf("%s: got %d incidents with two messages, want %d", name, got, want)
		}
	}
	if got := r.Receiver(system.PagerDuty).Board.Posted(); got != 5 {
		t.Errorf("got %d incidents at PagerDuty, want 5", got)
	}
}
