package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
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
	"github.com/apss-sensor/apss/shared/outcome"
)

// Config is what a Notify needs. All fields are required but those that say otherwise.
type Config struct {
	Name string // of the integration's instance
	// To takes alerts: an [integration.IncidentNotifier], else an [integration.Notifier].
	To    integration.Integration
	Route func(*event.Alert) bool // whether the integration wants an alert; nil: each
	Dead  DeadLetters
	// State is shared by the instances of the function; a [state.Memory] when there is but one. Its owner closes it.
	State state.Store

	Rate  Rate
	Group Group // of an IncidentNotifier

	MaxConns int // calls at the same time; how long one may take is the integration's
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
	Window       time.Duration // between two messages of one incident, but for a higher severity; 0: each alert is one
	ResolveAfter time.Duration // of quiet, until an incident is over; 0: it is never said to be
	DigestEvery  time.Duration // 0 counts as a minute
}

// DeadLetters takes what will never be delivered. *[deadletter.Publisher] is one.
type DeadLetters interface {
	// Publish returns nil only when l is safe.
	Publish(ctx context.Context, l deadletter.Letter) error
}

// Notify delivers to one integration. Safe for concurrent use.
type Notify struct {
	cfg       Config
	programs  integration.Notifier         // nil: it is for people
	people    integration.IncidentNotifier // nil: it is for programs
	owner     string                       // this instance, in leases
	incidents string                       // the collection
	seen      seen
	gate      *gate
	pace      pace
	breaker   *breaker.Breaker
	flights   flights
	metrics   metrics
	opening   chan struct{} // bounds messages being decoded

	sweeping chan struct{}            // has one place: who is in looks for what is due
	digested time.Time                // when the last digest went out; for who is sweeping
	look     atomic.Int64             // when to do so next, nanoseconds of Unix
	sweepBy  func(deadline time.Time) // does so, also when the push was given up
	stop     context.CancelFunc       // ends that

	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup // pushes in hand; grows only under mu while not closed
}

const (
	// failures in a row after which the receiver counts as down.
	failures = 5
	// refusals in a row after which the fault is not the alerts'.
	refusals = 10
	// lookEvery: what is due is late by that at most, as long as pushes come or Tick is called.
	lookEvery = time.Second
)

// New starts a Notify. It fails when To takes no alerts, or the meter does.
func New(c Config) (*Notify, error) {
	if c.Group.DigestEvery <= 0 {
		c.Group.DigestEvery = time.Minute
	}
	n := &Notify{
		cfg: c, owner: event.NewID(), incidents: incidentsCollection + c.Name,
		gate: newGate(max(c.MaxConns, 1)), pace: newPace(c.Rate),
		breaker: breaker.New(breaker.Config{Failures: failures, Refusals: refusals}),
		opening: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), sweeping: make(chan struct{}, 1),
	}
	n.seen = seen{store: c.State, collection: seenCollection + c.Name, owner: n.owner, lease: n.lease()}
	var ok bool
	if n.people, ok = c.To.(integration.IncidentNotifier); !ok {
		if n.programs, ok = c.To.(integration.Notifier); !ok {
			return nil, fmt.Errorf("integration %s takes no alerts", c.Name)
		}
	}
	var err error
	if n.metrics, err = newMetrics(c.Meter, c.Name, n.breaker); err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", c.Name, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.sweepBy = func(deadline time.Time) {
		short, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		if err := n.sweep(short); err != nil && ctx.Err() == nil {
			c.Log.WarnContext(ctx, "what is due could not all be sent", "integration", c.Name, "error", err.Error())
		}
	}
	return n, nil
}

// lease is how long others leave alone what an instance has begun: longer than it goes on with it.
func (n *Notify) lease() time.Duration { return n.cfg.Deliver + n.cfg.Bury + 2*afterwards }

// Handle delivers the alert of p and returns nil when it is done with; else an *[outcome.Error] of class Retry or Auth: p
// must be delivered again.
func (n *Notify) Handle(ctx context.Context, p envelope.Push) error {
	if !n.begin() {
		n.metrics.returned.Add(1)
		return &outcome.Error{Class: outcome.Retry, Reason: "the function is ending"}
	}
	defer n.wg.Done()
	begin := time.Now()
	fate, e := n.handle(ctx, p, begin)
	n.kick(begin)
	if e != nil {
		n.metrics.returned.Add(1)
		return e
	}
	n.metrics.alert(ctx, fate)
	return nil
}

func (n *Notify) handle(ctx context.Context, p envelope.Push, begin time.Time) (fate, *outcome.Error) {
	size := opened(p)
	if !n.cfg.InHand.Take(size) {
		return 0, &outcome.Error{Class: outcome.Retry, Status: http.StatusTooManyRequests, After: time.Second, Reason: "too much in hand here"}
	}
	defer n.cfg.InHand.Give(size)
	a, err := n.decode(ctx, p)
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, &outcome.Error{Class: outcome.Retry, Reason: "no time left to open the message", Err: ctx.Err()}
	case err != nil:
		return n.bury(ctx, p, &outcome.Error{Class: outcome.Permanent, Reason: err.Error()})
	case n.cfg.Route != nil && !n.cfg.Route(a):
		return unrouted, nil
	}
	id := a.ID
	if id == "" {
		id = p.ID // of redeliveries at least
	}
	if id == "" {
		return n.settle(ctx, p, a, begin)
	}
	switch err := n.seen.claim(ctx, id); {
	case errors.Is(err, errDone):
		return duplicate, nil
	case errors.Is(err, errBusy):
		return 0, &outcome.Error{Class: outcome.Retry, Reason: "an earlier delivery of the alert is still under way"}
	case err != nil:
		return 0, storeTrouble(err)
	}
	fate, e := n.settle(ctx, p, a, begin)
	// What is in the dead letters is not remembered: an operator may replay it.
	remember := n.seen.finish
	if e != nil || fate == dead {
		remember = n.seen.release
	}
	if err := remember(ctx, id); err != nil {
		n.cfg.Log.WarnContext(ctx, "an alert's state could not be kept; it may be sent twice", "integration", n.cfg.Name, "alert", id, "error", err.Error())
	}
	return fate, e
}

// settle brings a to an end.
func (n *Notify) settle(ctx context.Context, p envelope.Push, a *event.Alert, begin time.Time) (fate, *outcome.Error) {
	deadline, cancel := context.WithDeadline(ctx, begin.Add(n.cfg.Deliver))
	defer cancel()
	f := sent
	var e *outcome.Error
	switch {
	case n.people == nil:
		e = n.send(deadline, a)
	case a.Resolved:
		f, e = n.conclude(deadline, a)
	default:
		f, e = n.join(deadline, a)
	}
	if e == nil {
		return f, nil
	}
	switch e.Class {
	case outcome.Retry, outcome.Auth:
		return 0, e
	case outcome.Permanent, outcome.Split:
		return n.bury(ctx, p, e)
	default:
		return 0, &outcome.Error{Class: outcome.Retry, Status: e.Status, Reason: "unknown outcome: " + e.Reason, Err: e.Err}
	}
}

// send hands a to a program, and returns nil when it was accepted.
func (n *Notify) send(ctx context.Context, a *event.Alert) *outcome.Error {
	if e := n.breaker.Ready(time.Now()); e != nil {
		return e
	}
	if e := n.pace.wait(ctx, a.Severity); e != nil {
		return e
	}
	_, e := n.call(ctx, kindAlert, a.Severity, a.ID, func(ctx context.Context) error { return n.programs.SendAlert(ctx, a) })
	return e
}

// opened is how many bytes of p are in hand once it is opened: twice its JSON, as text and as values. A message that is
// packed may be as large as a consumer accepts.
func opened(p envelope.Push) int64 {
	switch p.Attributes["content-encoding"] {
	case "", "none", "identity":
		return 2 * int64(len(p.Data))
	}
	return 2 * envelope.MaxUnpacked
}

func (n *Notify) decode(ctx context.Context, p envelope.Push) (*event.Alert, error) {
	select {
	case n.opening <- struct{}{}:
		defer func() { <-n.opening }()
		return p.Alert()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bury publishes p as a dead letter.
func (n *Notify) bury(ctx context.Context, p envelope.Push, e *outcome.Error) (fate, *outcome.Error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Bury)
	defer cancel()
	err := n.cfg.Dead.Publish(ctx, deadletter.Letter{
		Message: p.Message, Topic: "alerts", Integration: n.cfg.Name, Subscription: p.Subscription, MessageID: p.ID,
		DeliveryAttempt: p.DeliveryAttempt, Status: e.Status, Reason: e.Reason,
	})
	if err != nil {
		return 0, &outcome.Error{Class: outcome.Retry, Reason: "a dead letter cannot be published", Err: err}
	}
	n.cfg.Log.WarnContext(ctx, "an alert went to the dead letters", "integration", n.cfg.Name, "message_id", p.ID,
		"status", e.Status, "reason", e.Reason)
	return dead, nil
}

// storeTrouble is an error of the store as an outcome.
func storeTrouble(err error) *outcome.Error {
	return &outcome.Error{Class: outcome.Retry, Reason: "the state store", Err: err}
}

// begin reports whether something may begin; n.wg.Done must be called at its end.
func (n *Notify) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Add(1)
	return true
}

// kick looks for what is due, when it is time and nobody else does. The push that began then is answered afterwards: once no
// request is under way the function may have no CPU (cloud.google.com/run/docs/configuring/billing-settings), and a call that
// was left to stand still would be made again.
func (n *Notify) kick(begin time.Time) {
	next := n.look.Load()
	if n.people == nil || begin.UnixNano() < next || !n.look.CompareAndSwap(next, begin.Add(lookEvery).UnixNano()) {
		return
	}
	select {
	case n.sweeping <- struct{}{}:
		defer n.leave()
		n.sweepBy(begin.Add(n.cfg.Deliver))
	default:
	}
}

// Close waits for what is in hand until ctx ends; then it is given up, and comes again. Of a store in memory it sends what
// waits. Handle refuses from then on.
func (n *Notify) Close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		n.wg.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
		err = n.empty(ctx)
	case <-ctx.Done():
		err = fmt.Errorf("closing %s: %w", n.cfg.Name, ctx.Err())
	}
	n.stop()
	<-ended // calls end soon after their context does
	return err
}

// Stats returns what the integration's deliveries came to since New.
func (n *Notify) Stats() Stats {
	s := Stats{Breaker: n.breaker.Status(time.Now()), Returned: n.metrics.returned.Load(), Messages: n.metrics.messages.Load()}
	for f, to := range map[fate]*int64{
		sent: &s.Sent, numbered: &s.Counted, digested: &s.Digested, duplicate: &s.Duplicate, unrouted: &s.Unrouted, dead: &s.DeadLettered,
	} {
		*to = n.metrics.fates[f].Load()
	}
	for c := range s.Failures {
		s.Failures[c] = n.metrics.failures[c].Load()
	}
	return s
}

// Stats are the figures of one integration in this instance of the function.
type Stats struct {
	Breaker breaker.Status
	// What became of alerts.
	Sent, Counted, Digested, Duplicate, Unrouted, DeadLettered int64
	Returned                                                   int64                      // pushes that must come again
	Messages                                                   int64                      // that the receiver accepted
	Failures                                                   [outcome.Partial + 1]int64 // calls that failed, by class
}
