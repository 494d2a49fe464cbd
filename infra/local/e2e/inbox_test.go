package e2e

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// inbox is Pub/Sub in this process, with all that has reached it.
type inbox struct {
	*cluster
	addr string // as pods reach it

	mu     sync.Mutex
	events []arrival[*event.Event]
	alerts []arrival[*event.Alert]
}

// arrival is something and when it was here.
type arrival[T any] struct {
	what T
	at   time.Time
}

// inbox starts Pub/Sub with both topics.
func (c *cluster) inbox() *inbox {
	c.t.Helper()
	b, err := broker.Start(c.t.Context(), broker.Options{
		Project: "apss-e2e", Topics: []string{"apss-events", "apss-alerts"}, Addr: net.JoinHostPort(c.hostAddress(), "0"),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	i := &inbox{cluster: c, addr: b.Addr()}
	ctx, stop := context.WithCancel(context.Background())
	var receiving sync.WaitGroup
	for topic, keep := range map[string]func(envelope.Message, time.Time) error{"apss-events": i.keepEvents, "apss-alerts": i.keepAlert} {
		source, err := b.Subscribe(c.t.Context(), topic, "all")
		if err != nil {
			c.t.Fatal(err)
		}
		receiving.Go(func() {
			for {
				messages, err := source.Receive(ctx, 100)
				if err != nil {
					return
				}
				for _, m := range messages {
					if err := keep(envelope.Message{Data: m.Data, Attributes: m.Attributes}, time.Now()); err != nil {
						c.t.Errorf("a message of %s: %v", topic, err)
					}
					_ = source.Done(ctx, m.Lease) // it is a queue in this process
				}
			}
		})
	}
	c.t.Cleanup(func() {
		stop()
		receiving.Wait()
		if err := b.Close(context.Background()); err != nil {
			c.t.Error(err)
		}
	})
	return i
}

func (i *inbox) keepEvents(m envelope.Message, now time.Time) error {
	raws, err := m.Events(nil)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, raw := range raws {
		e, err := event.Decode(raw)
		if err != nil {
			return err
		}
		i.events = append(i.events, arrival[*event.Event]{e, now})
	}
	return nil
}

func (i *inbox) keepAlert(m envelope.Message, now time.Time) error {
	a, err := m.Alert()
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.alerts = append(i.alerts, arrival[*event.Alert]{a, now})
	return nil
}

// event waits for one.
func (i *inbox) event(what string, is func(*event.Event) bool) arrival[*event.Event] {
	i.t.Helper()
	var found arrival[*event.Event]
	from := 0
	i.await(what, func(context.Context) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		for ; from < len(i.events); from++ {
			if is(i.events[from].what) {
				found = i.events[from]
				return nil
			}
		}
		return fmt.Errorf("not among the %d events at Pub/Sub", from)
	})
	return found
}

// deeds waits for the alerts of a rule about n deeds of a namespace, and returns them by when the deed was done. A deed
// says that itself.
func (i *inbox) deeds(rule, namespace string, n int) map[time.Time]arrival[*event.Alert] {
	i.t.Helper()
	found := map[time.Time]arrival[*event.Alert]{}
	from := 0
	i.await(fmt.Sprintf("%d alerts of %s", n, rule), func(context.Context) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		for ; from < len(i.alerts); from++ {
			a := i.alerts[from].what
			if a.RuleID != rule || a.PodNamespace != namespace || a.Event == nil || a.Event.Process == nil {
				continue
			}
			var nano int64
			if _, err := fmt.Sscanf(a.Event.Process.Cmdline, "/bin/sh -c id # deed %d", &nano); err == nil {
				found[time.Unix(0, nano)] = i.alerts[from]
			}
		}
		if len(found) < n {
			return fmt.Errorf("%d, of %d alerts at Pub/Sub", len(found), from)
		}
		return nil
	})
	return found
}
