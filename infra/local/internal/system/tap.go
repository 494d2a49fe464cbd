package system

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// startTaps follows the topics with subscriptions of their own.
func (s *System) startTaps(ctx context.Context) error {
	tapping, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopTaps = stop
	taps := map[string]func(dispatch.Message){
		EventsTopic:      s.published,
		AlertsTopic:      s.alerted,
		DeadLettersTopic: s.dead,
	}
	for topic, see := range taps {
		source, err := s.Broker.Subscribe(ctx, topic, topic+"-tap")
		if err != nil {
			return err
		}
		s.background.Go(func() { s.tap(tapping, topic, source, see) })
	}
	return nil
}

// canaryAttribute is on what the functions send to see that the way is open.
const canaryAttribute = "ce-canary"

func (s *System) tap(ctx context.Context, topic string, source dispatch.Source, see func(dispatch.Message)) {
	for {
		messages, err := source.Receive(ctx, 100)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.logger.Warn("following a topic", "topic", topic, "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
		for _, m := range messages {
			if m.Attributes[canaryAttribute] == "" { // a canary is nobody's event: where it is not wanted it ends
				see(m)
			}
			if err := source.Done(ctx, m.Lease); err != nil && ctx.Err() == nil {
				s.logger.Warn("following a topic", "topic", topic, "error", err)
			}
		}
	}
}

func (s *System) published(m dispatch.Message) {
	now := time.Now()
	s.each(m, func(id string, e event.Raw) {
		s.Ledger.Published(id, now)
		if s.watch.Published != nil {
			s.watch.Published(e, now)
		}
	})
}

func (s *System) dead(m dispatch.Message) {
	reason := m.Attributes["apss-reason"]
	if n := m.Attributes[dispatch.AttributeDeliveryCount]; reason == "" && n != "" {
		reason = "not acknowledged in " + n + " attempts"
	}
	s.Feed.setDead(reason)
	if m.Attributes["ce-type"] == envelope.TypeAlert {
		if a := s.alertOf(m); a != nil {
			s.deadAlert(m, a)
		}
		return
	}
	s.each(m, func(id string, e event.Raw) {
		s.Ledger.Dead(id)
		if s.watch.Dead != nil {
			s.watch.Dead(e, reason)
		}
	})
}

// each calls see for the events of a message.
func (s *System) each(m dispatch.Message, see func(id string, e event.Raw)) {
	events, err := envelope.Message{Data: m.Data, Attributes: m.Attributes}.Events(nil)
	if err != nil {
		s.logger.Warn("opening a message", "id", m.ID, "error", err)
		return
	}
	for _, e := range events {
		if id, err := e.ID(); err == nil {
			see(id, e)
		}
	}
}

func (s *System) delivered(events []event.Raw, at time.Time) {
	for _, e := range events {
		id, err := e.ID()
		if err != nil {
			s.logger.Warn("an event arrived without an id")
			continue
		}
		if bytes.Contains(e, testType) {
			s.Receiver(SweetSecurity).tests.Add(1)
			continue
		}
		s.Ledger.Delivered(id, at)
		if s.watch.Delivered != nil {
			s.watch.Delivered(e, at)
		}
	}
	s.Feed.add(events, at)
}

// Arrival is an event as it came in.
type Arrival struct {
	Event event.Raw
	At    time.Time
}

// feedLength is how many arrivals a Feed keeps.
const feedLength = 10

// Feed keeps what a person wants to see of late. Safe for concurrent use.
type Feed struct {
	mu         sync.Mutex
	arrivals   []Arrival // oldest first
	alerts     int64
	raised     []Raised // oldest first
	deadReason string
}

func (f *Feed) add(events []event.Raw, at time.Time) {
	events = events[max(0, len(events)-feedLength):]
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		f.arrivals = append(f.arrivals, Arrival{append(event.Raw(nil), e...), at})
	}
	if extra := len(f.arrivals) - feedLength; extra > 0 {
		f.arrivals = append(f.arrivals[:0], f.arrivals[extra:]...)
	}
}

func (f *Feed) setDead(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deadReason = reason
}

// Recent returns the newest arrivals, the last one first, how many alerts were published, and why the last dead letter
// is one.
func (f *Feed) Recent() (arrivals []Arrival, alerts int64, deadReason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.arrivals {
		arrivals = append(arrivals, f.arrivals[len(f.arrivals)-1-i])
	}
	return arrivals, f.alerts, f.deadReason
}
