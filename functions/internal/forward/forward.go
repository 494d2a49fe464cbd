// Package forward delivers the events of pushed messages to one integration.
//
// The events of many pushes go out in one call (group commit), and each push waits for its own verdict. What the
// receiver refuses is searched by halving the batch until it is alone, and goes to the dead letters with the reason;
// what it accepted is not sent again when the same push is delivered again to this instance (see memory). A receiver that
// asked for a pause, does not accept our key, is down or refuses everything is left alone for a while (see breaker).
//
// Promise: Handle returns nil only when every event of the push that the route takes was accepted by the receiver or
// confirmed as a dead letter. Delivery is at least once: a call whose answer is lost is repeated.
//
// Limits: memory is bounded by the budget for bytes in hand, see [Config]; Handle refuses what goes beyond it.
package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/apss-sensor/apss/functions/internal/breaker"
	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/batch"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Config is what a Forward needs. All fields but Route are required.
type Config struct {
	Name string // of the integration's instance
	Sink integration.EventSink
	Dead DeadLetters
	// Route says which events the integration takes; the others are done with.
	Route integration.Route

	MaxEvents int           // of one call to the receiver
	MaxBytes  int           // likewise; an event above it goes alone
	Linger    time.Duration // how long a call waits for more events
	Flushes   int           // flushes at the same time; each makes one call at a time
	// Deliver bounds the time from Handle's begin to the last call's end, Bury the time to publish dead letters after it.
	Deliver, Bury time.Duration
	InHand        *budget.Budget // for opened messages

	Log    *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
}

// DeadLetters takes what will never be delivered. *[deadletter.Publisher] is one.
type DeadLetters interface {
	// Publish returns nil only when l is safe.
	Publish(ctx context.Context, l deadletter.Letter) error
}

// Forward delivers to one integration. Safe for concurrent use.
type Forward struct {
	cfg     Config
	group   *batch.Group[*item]
	breaker *breaker.Breaker
	memory  memory
	opening chan struct{} // bounds messages being unpacked: their size is known only afterwards
	metrics metrics
}

// New starts a Forward. It fails only when the meter does.
func New(c Config) (*Forward, error) {
	m, err := newMetrics(c.Meter, c.Name, c.InHand)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", c.Name, err)
	}
	f := &Forward{
		cfg: c, metrics: m, opening: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		breaker: breaker.New(breaker.Config{Failures: failures, Refusals: refusals}),
	}
	f.group = batch.New(batch.Limits{
		Count: c.MaxEvents, Bytes: c.MaxBytes, Linger: c.Linger, Flushes: c.Flushes,
		// What the budget lets in never has to wait for room in the group.
		Waiting: int(c.InHand.Size()),
	}, f.flush)
	return f, nil
}

const (
	// failures in a row after which the receiver counts as down.
	failures = 5
	// refusals: twice the events of an agent's batch. One agent's may all be bad, two agents' are not at the same time.
	refusals = 200
)

// Breaker returns what is known of the receiver from the calls to it.
func (f *Forward) Breaker() breaker.Status { return f.breaker.Status(time.Now()) }

// Close delivers what is in hand and waits for it until ctx ends. Handle refuses from then on.
func (f *Forward) Close(ctx context.Context) error { return f.group.Close(ctx) }

// item is what of one push is to be delivered.
type item struct {
	events []event.Raw
	size   int
	trace  trace.SpanContext

	mu       sync.Mutex
	finished bool // the flush is over: fates and refusals stand
	fates    []fate
	refusals []refusal
	late     func() // called once when the flush ends after the caller gave up
}

// Handle delivers the events of p and returns nil when each that is routed was accepted or is a confirmed dead letter; else an
// *[outcome.Error] of class Retry or Auth: p must be delivered again.
func (f *Forward) Handle(ctx context.Context, p envelope.Push) error {
	if e := f.breaker.Ready(time.Now()); e != nil {
		return e
	}
	begin := time.Now()
	events, letters, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	size := 0
	for _, e := range events {
		size += len(e)
	}
	if !f.cfg.InHand.Take(int64(size)) {
		return &outcome.Error{Class: outcome.Retry, Status: statusSlowDown, After: time.Second, Reason: "too much in hand here"}
	}
	defer f.cfg.InHand.Give(int64(size))

	key := messageKey(p)
	if !f.memory.begin(key) {
		return &outcome.Error{Class: outcome.Retry, Reason: "an earlier delivery of the message is still under way"}
	}
	job := &job{f: f, push: p, key: key, known: f.memory.recall(begin, key), total: len(events)}
	for _, l := range letters { // the lines that are no events
		job.total += l.events
	}
	it := job.pick(events)
	it.trace = trace.SpanContextFromContext(ctx)

	var verdict error
	if len(it.events) > 0 {
		deadline, cancel := context.WithDeadline(ctx, begin.Add(f.cfg.Deliver))
		verdict = f.group.Do(deadline, it, batch.Weight{Count: len(it.events), Bytes: it.size})
		cancel()
	}
	if verdict = job.settle(ctx, it, letters, verdict); verdict == nil {
		f.metrics.events(ctx, fateNotRouted, job.notRouted)
	}
	return verdict
}

// open unpacks p. What of it can never be delivered comes back as letters.
func (f *Forward) open(ctx context.Context, p envelope.Push) ([]event.Raw, []letter, error) {
	select {
	case f.opening <- struct{}{}:
		defer func() { <-f.opening }()
	case <-ctx.Done():
		return nil, nil, &outcome.Error{Class: outcome.Retry, Reason: "no time left to open the message", Err: ctx.Err()}
	}
	events, err := p.Events(nil)
	var lines *envelope.LineError
	switch {
	case err == nil:
		return events, nil, nil
	case errors.As(err, &lines):
		bad := make([]event.Raw, len(lines.Lines))
		for i, l := range lines.Lines {
			bad[i] = l.Data
		}
		// Their mark stands behind those of the events.
		return events, []letter{{message: part(p.Message, bad), marks: []int{len(events)}, events: len(bad), reason: err.Error()}}, nil
	default:
		return nil, []letter{{message: p.Message, marks: []int{0}, events: 1, reason: err.Error()}}, nil
	}
}

// messageKey names p through its redeliveries, or is empty when p has no id: then nothing is remembered.
func messageKey(p envelope.Push) string {
	if p.ID == "" {
		return ""
	}
	return p.Subscription + " " + p.ID
}

// flush delivers the events of items in as few calls as may be, and writes down each item's fates.
func (f *Forward) flush(ctx context.Context, items []*item) []error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Deliver-f.cfg.Linger)
	defer cancel()
	var links []trace.Link
	n := 0
	for _, it := range items {
		n += len(it.events)
		if it.trace.IsSampled() {
			links = append(links, trace.Link{SpanContext: it.trace})
		}
	}
	ctx, span := f.cfg.Tracer.Start(ctx, "forward "+f.cfg.Name, trace.WithLinks(links...), trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()

	events := make([]event.Raw, 0, n)
	for _, it := range items {
		events = append(events, it.events...)
	}
	d := &delivery{events: events, send: f.call, may: func() *outcome.Error { return f.breaker.Ready(time.Now()) }}
	d.run(ctx, f.cfg.MaxEvents, f.cfg.MaxBytes)
	f.metrics.events(ctx, fateAccepted, bytes.Count(d.fates, []byte{accepted}))
	if d.unknown > 0 {
		f.cfg.Log.WarnContext(ctx, "the receiver rejected events that were not sent to it", "integration", f.cfg.Name, "ids", d.unknown)
	}
	return share(items, d)
}

// share gives each item its part of what d came to, and returns the items' verdicts.
func share(items []*item, d *delivery) []error {
	var verdicts []error
	lo := 0
	for i, it := range items {
		hi := lo + len(it.events)
		it.mu.Lock()
		it.finished = true
		it.fates = d.fates[lo:hi:hi]
		for _, r := range d.refusals {
			if lo <= r.index && r.index < hi {
				r.index -= lo
				it.refusals = append(it.refusals, r)
			}
		}
		late := it.late
		it.mu.Unlock()
		if late != nil {
			late()
		}
		for _, fate := range it.fates {
			if fate == pending {
				if verdicts == nil {
					verdicts = make([]error, len(items))
				}
				verdicts[i] = d.stop
				break
			}
		}
		lo = hi
	}
	return verdicts
}

// call hands events to the integration once.
func (f *Forward) call(ctx context.Context, events []event.Raw) (result *outcome.Error) {
	begin := time.Now()
	pass, stop := f.breaker.Begin(begin)
	if stop != nil {
		return stop
	}
	defer func() {
		if r := recover(); r != nil {
			f.cfg.Log.ErrorContext(ctx, "the integration panicked", "integration", f.cfg.Name, "panic", r, "stack", string(debug.Stack()))
			result = &outcome.Error{Class: outcome.Retry, Reason: "the integration panicked"}
		}
		f.metrics.call(ctx, result, time.Since(begin))
		if pause := pass.End(time.Now(), final(result, len(events)), len(events)); pause > 0 {
			f.metrics.holds.Add(ctx, 1, f.metrics.attributes)
			f.cfg.Log.WarnContext(ctx, "the receiver is not called for a while", "integration", f.cfg.Name, "for", pause.String(),
				"status", result.Status, "cause", result.Error())
		}
	}()
	err := f.cfg.Sink.SendEvents(ctx, events)
	if e := outcome.From(err); e == nil || e.Class != outcome.OK {
		return e
	}
	return nil
}

// final is e as the breaker is to see it: what cannot be split further is refused.
func final(e *outcome.Error, events int) *outcome.Error {
	if e == nil || e.Class != outcome.Split || events > 1 {
		return e
	}
	refused := *e
	refused.Class = outcome.Permanent
	return &refused
}

// statusSlowDown is 429.
const statusSlowDown = 429
