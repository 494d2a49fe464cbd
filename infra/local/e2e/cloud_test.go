package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

// cloud is the other side of Pub/Sub as it is deployed: subscriptions, functions, and the stand-ins of who is told; with all
// that has reached each of them.
type cloud struct {
	*cluster
	*system.System
	addr string // Pub/Sub, as pods reach it

	mu        sync.Mutex
	published []arrival[*event.Alert]               // on the topic
	events    []arrival[*event.Event]               // at Sweet Security
	alerts    []arrival[*event.Alert]               // at Sweet Security
	told      map[string][]arrival[standin.Message] // at Slack and PagerDuty: a message for each change
	line      []string                              // the timeline
	more      chan struct{}                         // closed and replaced when something arrives
}

// arrival is something and when it was here.
type arrival[T any] struct {
	what T
	at   time.Time
}

// cloud starts it.
func (c *cluster) cloud() *cloud {
	c.t.Helper()
	config := system.Defaults()
	config.Bin, config.Dir = bin, c.t.TempDir()
	config.PubSubHost = c.hostAddress()
	// People are told of our namespaces alone: an agent of a node sees whatever else runs there, which has rates to itself here.
	config.Receivers = func(all []*system.Receiver) []*system.Receiver {
		for _, r := range all {
			if r.Incidents != nil {
				r.Settings["route"] = map[string]any{"namespaces": []string{"apss-*"}}
			}
		}
		return all
	}
	in := &cloud{cluster: c, more: make(chan struct{}), told: map[string][]arrival[standin.Message]{}}
	s, err := system.Start(c.t.Context(), config, system.Watcher{
		Alerted:        in.alerted,
		Delivered:      in.delivered,
		AlertDelivered: in.alertDelivered,
		Shown:          in.shown,
		Dead: func(e event.Raw, reason string) {
			in.note(time.Now(), "dead letter", "%s: %s", reason, e)
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	in.System, in.addr = s, s.Broker.Addr()
	c.t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			c.t.Errorf("ending the functions: %v", err)
		}
		if c.t.Failed() {
			c.t.Logf("what happened:\n%s", strings.Join(in.line, "\n"))
		}
	})
	return in
}

// longest is how much of the timeline is kept.
const longest = 2_000

// note puts something into the timeline, that is printed when the test fails. It is called with in.mu held, or before
// anything is shared.
func (in *cloud) note(at time.Time, where, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	in.line = append(in.line, fmt.Sprintf("%s %-12s %.200s", at.UTC().Format("15:04:05.000"), where, text))
	if len(in.line) > longest {
		in.line = slices.Delete(in.line, 0, longest/2)
	}
}

// happened is note for the tests themselves.
func (in *cloud) happened(format string, args ...any) {
	in.t.Helper()
	in.t.Logf(format, args...)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.note(time.Now(), "test", format, args...)
}

func (in *cloud) alerted(a *event.Alert, at time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.arrived()
	in.published = append(in.published, arrival[*event.Alert]{a, at})
	in.note(at, "Pub/Sub", "%s of %s/%s", a.RuleID, a.PodNamespace, a.PodName)
}

func (in *cloud) alertDelivered(a *event.Alert, at time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.arrived()
	in.alerts = append(in.alerts, arrival[*event.Alert]{a, at})
}

func (in *cloud) delivered(raw event.Raw, at time.Time) {
	e, err := event.Decode(slices.Clone(raw))
	in.mu.Lock()
	defer in.mu.Unlock()
	if err != nil {
		in.t.Errorf("an event at Sweet Security: %v", err)
		return
	}
	in.arrived()
	in.events = append(in.events, arrival[*event.Event]{e, at})
	if len(e.Rules) > 0 || e.Type == event.AgentHeartbeat {
		in.note(at, "SweetSec", "%s of %s/%s %v", e.Type, e.PodNamespace, e.PodName, e.Rules)
	}
}

func (in *cloud) shown(receiver string, m standin.Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.arrived()
	in.told[receiver] = append(in.told[receiver], arrival[standin.Message]{m, m.Changed})
	in.note(m.Changed, receiver, "%s (changed %d times)", m.Title, m.Edits)
}

// arrived wakes who waits. It is called with in.mu held.
func (in *cloud) arrived() {
	close(in.more)
	in.more = make(chan struct{})
}

// first waits for something of a list that grows under in.mu, and returns it.
func first[T any](in *cloud, what string, list func() []arrival[T], is func(T) bool) arrival[T] {
	in.t.Helper()
	ctx := in.patience()
	for from := 0; ; {
		in.mu.Lock()
		all, more := list(), in.more
		in.mu.Unlock()
		for ; from < len(all); from++ {
			if is(all[from].what) {
				return all[from]
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			in.t.Fatalf("waiting for %s: it is not among the %d that came within %v", what, from, within)
		}
	}
}

// event waits for one at Sweet Security.
func (in *cloud) event(what string, is func(*event.Event) bool) arrival[*event.Event] {
	in.t.Helper()
	return first(in, what+" at Sweet Security", func() []arrival[*event.Event] { return in.events }, is)
}

// alert waits for one on its topic.
func (in *cloud) alert(what string, is func(*event.Alert) bool) arrival[*event.Alert] {
	in.t.Helper()
	return first(in, what+" on the topic", func() []arrival[*event.Alert] { return in.published }, is)
}

// message waits for what a person sees.
func (in *cloud) message(receiver, what string, is func(standin.Message) bool) arrival[standin.Message] {
	in.t.Helper()
	return first(in, what+" at "+receiver, func() []arrival[standin.Message] { return in.told[receiver] }, is)
}
