// Package notify delivers alerts of pushed messages to one integration.
package notify

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/apss-sensor/apss/functions/internal/breaker"
	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// Config is what a Notify needs. All fields are required but those that say otherwise.
type Config struct {
	Name string // of the integration's instance
	// To takes alerts: an [integration.IncidentNotifier], else an [integration.Notifier].
	To    integration.Integration
	Route func(*event.Alert) bool // whether the integration wants an alert; nil: each
	Dead  DeadLetters
	// State is shared by the instances of the function; the memory store when there is but one.
	State state.Store

	Rate  Rate
	Group Group // of an IncidentNotifier

	MaxConns int           // calls at the same time
	Call     time.Duration // bounds one call to the receiver
	// Deliver bounds the time from Handle's begin to the last call's end, Bury the time to publish a dead letter after it.
	Deliver, Bury time.Duration
	InHand        *budget.Budget // for opened messages

	Log    *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
}

// Rate is how many calls a receiver may get from this instance of the function. Zero: as many as there are.
type Rate struct {
	PerMinute float64
	Burst     int // calls at once after a pause; 0 counts as 1
}

// Group is how alerts become incidents for people.
type Group struct {
	Window       time.Duration // between two messages of one incident, but for a higher severity
	ResolveAfter time.Duration // of quiet, until an incident is over; 0: it is never said to be
	DigestEvery  time.Duration
}

// DeadLetters takes what will never be delivered. *[deadletter.Publisher] is one.
type DeadLetters interface {
	// Publish returns nil only when l is safe.
	Publish(ctx context.Context, l deadletter.Letter) error
}

// Notify delivers to one integration. Safe for concurrent use.
type Notify struct{ cfg Config }

// New starts a Notify. It fails when To takes no alerts, or the meter does.
func New(c Config) (*Notify, error) { return &Notify{cfg: c}, nil }

// Handle delivers the alert of p and returns nil when it is done with; else an *[outcome.Error] of class Retry or Auth: p
// must be delivered again.
func (n *Notify) Handle(ctx context.Context, p envelope.Push) error { panic("unwritten") }

// Tick sends what is due: counts of repeats, digests, ends of incidents. It is to be called every second or so, and is
// cheap when there is nothing.
func (n *Notify) Tick(ctx context.Context) error { panic("unwritten") }

// Close waits for what is in hand until ctx ends. Handle refuses from then on.
func (n *Notify) Close(ctx context.Context) error { panic("unwritten") }

// Test sends a marked test to the receiver by the real way, and returns what it said.
func (n *Notify) Test(ctx context.Context) (integration.Receipt, error) { panic("unwritten") }

// Stats returns what the integration's deliveries came to since New.
func (n *Notify) Stats() Stats { panic("unwritten") }

// Stats are the figures of one integration in this instance of the function.
type Stats struct {
	Breaker breaker.Status
	// What became of alerts.
	Sent, Counted, Digested, Duplicate, Unrouted, DeadLettered int64
	Returned                                                   int64 // pushes that must come again
	Messages                                                   int64 // that the receiver accepted
}
