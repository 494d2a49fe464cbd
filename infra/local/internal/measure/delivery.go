package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// deeds are programs run, one after the other.
	deeds = 100
	// Of one phase of the isolation's measurement; phases alternate.
	phaseAlerts = 300
	phaseEvery  = 10 * time.Millisecond
	phases      = 5 // of each kind
	hangs       = phaseAlerts*phaseEvery + 2*time.Second
	recovery    = time.Minute // at most, for what a receiver did not take while it hung
)

// deliveries holds when something first arrived at each receiver: by what marks it, the mark being part of what arrives.
type deliveries struct {
	mu      sync.Mutex
	awaited map[string]map[string]time.Time // by mark, then receiver
	changed chan struct{}                   // closed and replaced at each arrival
}

func newDeliveries() *deliveries {
	return &deliveries{awaited: map[string]map[string]time.Time{}, changed: make(chan struct{})}
}

// alert is Sweet Security's. It is known by its id, or by its program.
func (d *deliveries) alert(a *event.Alert, at time.Time) {
	d.arrived(system.SweetSecurity, at, func(mark string) bool {
		return a.ID == mark || a.RuleID == deedRule && a.Event != nil && a.Event.Process != nil && a.Event.Process.Exe == mark
	})
}

// shown is a message to people: it says the id of its first alert, and the program.
func (d *deliveries) shown(receiver string, m standin.Message) {
	d.arrived(receiver, m.Changed, func(mark string) bool {
		return strings.Contains(m.Text, mark) && (!strings.Contains(mark, "/") || strings.Contains(m.Text, deedRule))
	})
}

func (d *deliveries) arrived(receiver string, at time.Time, is func(mark string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for mark, arrivals := range d.awaited {
		if arrivals[receiver].IsZero() && is(mark) {
			arrivals[receiver] = at
			close(d.changed)
			d.changed = make(chan struct{})
			return
		}
	}
}

func (d *deliveries) await(mark string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.awaited[mark] = map[string]time.Time{}
}

// take waits until what is marked is at all of receivers, forgets it, and returns when it came there.
func (d *deliveries) take(ctx context.Context, mark string, receivers []string) (map[string]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	for {
		d.mu.Lock()
		changed, arrivals := d.changed, d.awaited[mark]
		missing := slices.IndexFunc(receivers, func(r string) bool { return arrivals[r].IsZero() })
		if missing < 0 {
			delete(d.awaited, mark)
			d.mu.Unlock()
			return arrivals, nil
		}
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("the alert of %s did not arrive at %s within %v", mark, receivers[missing], arrival)
		}
	}
}

// deedRule is of CRITICAL severity: a program by the name of a miner.
const (
	deedRule = "APSS-002"
	deedName = "xmrig"
)

// deeds runs programs that are CRITICAL alerts, each of an incident of its own, and prints how long these took to each
// receiver, from the start of the program.
func (d *deliveries) deeds(ctx context.Context, out io.Writer) (err error) {
	programs, err := newRenamed(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, programs.close()) }()
	receivers := []string{system.SweetSecurity, system.Slack, system.PagerDuty, system.Webhook}
	took := map[string][]time.Duration{}
	for i := range deeds {
		name, err := programs.link(filepath.Join(fmt.Sprintf("%03d", i), deedName))
		if err != nil {
			return err
		}
		d.await(name)
		since, err := programs.start(name)
		if err != nil {
			return err
		}
		at, err := d.take(ctx, name, receivers)
		if err != nil {
			return err
		}
		for _, r := range receivers {
			took[r] = append(took[r], at[r].Sub(since))
		}
		if err := pause(ctx, spacing+time.Duration(i%17)*time.Millisecond); err != nil {
			return err
		}
	}
	for _, r := range receivers {
		printQuantiles(out, "critical-exec-to-"+r, took[r])
	}
	return nil
}

// isolation publishes alerts at a steady pace, in turns with Slack well and with Slack hanging, and prints how long they
// took to the others: of each kind of phase the one in the middle, as other work on the machine comes in bursts.
func (d *deliveries) isolation(ctx context.Context, s *system.System, out io.Writer) error {
	others := []string{system.SweetSecurity, system.PagerDuty, system.Webhook}
	alone, beside := map[string][]quantiles{}, map[string][]quantiles{}
	slack := s.Receiver(system.Slack)
	for range phases {
		if err := d.phase(ctx, s, others, alone); err != nil {
			return err
		}
		slack.Switches.Set(standin.Faults{Hang: true, For: standin.Duration(hangs)})
		if err := d.phase(ctx, s, others, beside); err != nil {
			return err
		}
		if !strings.Contains(slack.Switches.Faults().String(), "hangs") {
			return fmt.Errorf("the alerts took longer than Slack's hanging, %v: this machine is too busy to measure", hangs)
		}
		slack.Switches.Set(standin.Faults{})
		limit := time.Now().Add(recovery)
		for slack.Held() > 0 {
			if time.Now().After(limit) {
				return fmt.Errorf("the stand-in of Slack did not get all that waited for it within %v", recovery)
			}
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		}
	}
	for _, r := range others {
		a, b := typical(alone[r]), typical(beside[r])
		a.report(out, "alert-to-"+r)
		b.report(out, "alert-to-"+r+"-beside-a-hang")
		fmt.Fprintf(out, "BENCH alert-to-%s-p99-beside-a-hang-by-alone %.2f ratio\n", r, b.p99.Seconds()/a.p99.Seconds())
	}
	return nil
}

// typical is the median of medians, and that of 99th percentiles.
func typical(all []quantiles) quantiles {
	medians, p99s := make([]time.Duration, len(all)), make([]time.Duration, len(all))
	for i, q := range all {
		medians[i], p99s[i] = q.median, q.p99
	}
	return quantiles{quantilesOf(medians).median, quantilesOf(p99s).median}
}

func (d *deliveries) phase(ctx context.Context, s *system.System, receivers []string, came map[string][]quantiles) error {
	tick := time.NewTicker(phaseEvery)
	defer tick.Stop()
	sent := map[string]time.Time{}
	for i := range phaseAlerts {
		now := time.Now()
		id := event.NewID()
		a := &event.Alert{
			ID: id, Timestamp: now.UTC(), Severity: event.High, RuleID: "BENCH-001", RuleName: "A measurement", NodeName: "n", Cluster: "local",
			Fingerprint: strings.ReplaceAll(id, "-", ""), Count: 1, FirstSeen: now.UTC(), LastSeen: now.UTC(),
		}
		m := envelope.SealAlert(a, envelope.Source{AgentID: "local/n", Cluster: "local"}, now.UTC())
		d.await(id)
		sent[id] = now
		if err := s.Broker.Publish(ctx, s.Broker.TopicName(system.AlertsTopic), dispatch.Message{Data: m.Data, Attributes: m.Attributes}); err != nil {
			return err
		}
		if i == phaseAlerts-1 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	took := map[string][]time.Duration{}
	for id, since := range sent {
		at, err := d.take(ctx, id, receivers)
		if err != nil {
			return err
		}
		for _, r := range receivers {
			took[r] = append(took[r], at[r].Sub(since))
		}
	}
	for _, r := range receivers {
		came[r] = append(came[r], quantilesOf(took[r]))
	}
	return nil
}
