package forward

import (
	"context"
	"time"

	"github.com/apss-sensor/apss/functions/internal/breaker"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/batch"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Stats are the figures of one integration in this instance of the function.
type Stats struct {
	Breaker breaker.Status
	// What became of events.
	Accepted, DeadLettered, NotRouted int64
	Failures                          [outcome.Partial + 1]int64 // calls that failed, by class
}

// Stats returns what the integration's deliveries came to since New.
func (f *Forward) Stats() Stats {
	c := f.metrics.counts
	s := Stats{
		Breaker:  f.breaker.Status(time.Now()),
		Accepted: c.accepted.Load(), DeadLettered: c.dead.Load(), NotRouted: c.notRouted.Load(),
	}
	for class := range s.Failures {
		s.Failures[class] = c.failures[class].Load()
	}
	return s
}

// Test hands a marked event to the receiver, or makes the integration's own test, and returns what it said. The call is
// made also while the breaker is open, which is left as it is. The error is an *[outcome.Error].
func (f *Forward) Test(ctx context.Context) (integration.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Deliver)
	defer cancel()
	return integration.Try(ctx, f.cfg.Sink, func(ctx context.Context) error {
		return f.cfg.Sink.SendEvents(ctx, []event.Raw{testEvent(f.cfg.Name)})
	})
}

// Canary brings a marked event the way of every event but for the route: into a batch with others, through the breaker,
// to the receiver. It returns nil when the receiver accepted it, else an *[outcome.Error].
func (f *Forward) Canary(ctx context.Context) error {
	if e := f.breaker.Ready(time.Now()); e != nil {
		return e
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Deliver)
	defer cancel()
	e := testEvent(f.cfg.Name)
	if !f.cfg.InHand.Take(int64(len(e))) {
		return &outcome.Error{Class: outcome.Retry, Status: statusSlowDown, After: time.Second, Reason: "too much in hand here"}
	}
	defer f.cfg.InHand.Give(int64(len(e)))
	it := &item{events: []event.Raw{e}, size: len(e)}
	if err := f.group.Do(ctx, it, batch.Weight{Count: 1, Bytes: it.size}); err != nil {
		return outcome.From(err)
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	for _, r := range it.refusals {
		return &outcome.Error{Class: outcome.Permanent, Status: r.status, Reason: r.reason}
	}
	return nil
}

// testEvent is an event that says of itself that it is a test.
func testEvent(name string) event.Raw {
	e := event.Event{
		ID: event.NewID(), AgentID: "apss/functions", Type: event.IntegrationTest, Severity: event.Info, Timestamp: time.Now().UTC(),
		Metadata: map[string]any{"integration": name},
	}
	return e.AppendJSON(nil)
}
