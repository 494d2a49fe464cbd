package faults_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// patience bounds each wait: these are real programs on a machine that may be busy.
const patience = 2 * time.Minute

// rig is a running system.
type rig struct {
	*system.System
	t    *testing.T
	sent int // alerts
	// hidden are integrations that need not feel the fault.
	hidden map[string]bool
	// stall is the longest time in nanoseconds for which nothing ran here.
	stall atomic.Int64
}

// stalled reports whether the machine stood still for so long that calls may have been given up which were answered, and
// a program that ends may not have had its time.
func (r *rig) stalled() bool { return r.stall.Load() >= int64(time.Second) }

// watch measures stalls until the test ends.
func (r *rig) watch() {
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			now := time.Now()
			r.stall.Store(max(r.stall.Load(), int64(now.Sub(last))))
			last = now
		}
	})
	r.t.Cleanup(func() { close(ended); watching.Wait() })
}

func start(t *testing.T, change func(*system.Config)) *rig {
	t.Helper()
	c := system.Defaults()
	c.Bin, c.Dir = bin, t.TempDir()
	c.MinBackoff, c.MaxBackoff, c.MaxPushBackoff = 100*time.Millisecond, time.Second, 500*time.Millisecond
	c.IncidentWindow, c.ResolveAfter, c.NoRate = time.Second, time.Hour, true
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
	r := &rig{System: s, t: t}
	r.watch()
	return r
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
			ID: event.NewID(), Timestamp: now, Severity: event.High, RuleID: "APSS-001", RuleName: "Reverse shell",
			Description: strings.Repeat("A shell has a connection to a suspicious port. ", 40), NodeName: "n", Cluster: "local",
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

// again makes alerts repeats of a few incidents.
func again(i int) string { return fmt.Sprintf("5%031x", i%kinds) }

const kinds = 5

// until waits for a condition.
func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	for limit := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			for _, to := range r.Receivers() {
				r.t.Log(r.cell(to))
			}
			r.t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func (r *rig) stopFunctions() {
	r.t.Helper()
	err := r.StopFunctions()
	if err != nil && r.stalled() {
		r.t.Skipf("SKIPPED: the machine stood still for %v, and the functions did not end in the time they have: %v; run it again",
			time.Duration(r.stall.Load()), err)
	}
	if err != nil {
		r.t.Errorf("SIGTERM: %v", err)
	}
}

func (r *rig) startFunctions() {
	r.t.Helper()
	if err := r.StartFunctions(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// cell is what the books say of an integration.
type cell struct {
	name     string
	balance  system.Balance // of alerts
	events   system.Balance // of events, where it takes some
	untold   int64          // incidents of which it told nothing
	doubled  int64          // incidents with more than one message
	requests int64          // of Pub/Sub
	returned int64          // of those, not acknowledged
	refused  int64          // calls, by the receiver
}

func (c cell) String() string {
	s := fmt.Sprintf("%s: alerts: published %d = delivered %d + dead %d + waiting %d - twice %d; %d of %d pushes came again, calls refused %d",
		c.name, c.balance.Published, c.balance.Delivered, c.balance.Dead, c.balance.Waiting, c.balance.Twice, c.returned, c.requests, c.refused)
	if e := c.events; e.Published > 0 {
		s += fmt.Sprintf("; events: published %d = delivered %d + dead %d + waiting %d, twice %d", e.Published, e.Delivered, e.Dead, e.Waiting, e.Twice)
	}
	return s
}

func (r *rig) cell(to *system.Receiver) cell {
	n := to.Switches.Counts()
	c := cell{name: to.Kind, balance: to.Balance(), refused: n.Refused + n.Unauthorized}
	if to.Name == system.SweetSecurity {
		t := r.Ledger.Totals()
		c.events = system.Balance{Published: t.Published, Delivered: t.Delivered, Dead: t.Dead, Waiting: t.InFlight, Twice: t.DeliveredTwice}
	}
	if to.Incidents != nil {
		t := to.Incidents.Totals()
		c.untold, c.doubled = t.Untold, t.Doubled
	} else {
		c.balance.Delivered += c.balance.Twice // by id: each was counted once
	}
	for _, p := range to.Pushes {
		s := p.Stats()
		c.requests += s.Requests
		c.returned += s.Failed + s.Expired
	}
	return c
}

// ended reports whether all that was published has come to an end at to.
func (r *rig) ended(to *system.Receiver) bool {
	c := r.cell(to)
	whole := c.balance.Published == int64(r.sent) && c.balance.Waiting == 0 && c.untold == 0 && to.Held() == 0
	if to.Name == system.SweetSecurity {
		whole = whole && c.events.Published == int64(10*r.sent) && c.events.Waiting == 0
	}
	return whole
}

// whole waits until all that was published has come to an end everywhere.
func (r *rig) whole() {
	r.t.Helper()
	for _, to := range r.Receivers() {
		r.until("everything published ends at "+to.Name, func() bool { return r.ended(to) })
	}
}

// balanced checks the books of an integration: nothing is lost, nothing is dead, and nothing came twice unless it may.
func (r *rig) balanced(t *testing.T, to *system.Receiver, mayTwice bool) {
	t.Helper()
	c := r.cell(to)
	t.Log(c)
	if b := c.balance; b.Published != int64(r.sent) || b.Published != b.Delivered+b.Dead-b.Twice || b.Dead > 0 || c.untold > 0 {
		t.Errorf("got %+v and %d incidents untold, want %d alerts delivered", b, c.untold, r.sent)
	}
	if e := c.events; to.Name == system.SweetSecurity && (e.Published != int64(10*r.sent) || e.Published != e.Delivered || e.Dead > 0) {
		t.Errorf("got %+v, want %d events delivered", e, 10*r.sent)
	}
	twice := c.balance.Twice + c.events.Twice
	if twice > 0 && !mayTwice && r.stalled() {
		t.Logf("got %d twice: the machine stood still for %v, and answers came too late", twice, time.Duration(r.stall.Load()))
	} else if twice > 0 && !mayTwice {
		t.Errorf("got %d twice, want none", twice)
	}
}
