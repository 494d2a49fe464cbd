package notify

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/functions/internal/breaker"
	"github.com/apss-sensor/apss/functions/internal/instrument"
	"github.com/apss-sensor/apss/shared/outcome"
)

// fate is what became of an alert.
type fate uint8

const (
	sent      fate = iota // a message of its own was accepted
	numbered              // counted into an incident that the receiver knows
	digested              // it waits for a digest
	duplicate             // dealt with before
	unrouted              // not for this integration
	dead                  // a dead letter
	fates
)

func (f fate) String() string {
	return [fates]string{"sent", "counted", "digested", "duplicate", "unrouted", "dead_lettered"}[f]
}

// kind is what a call's message is.
type kind uint8

const (
	kindAlert kind = iota
	kindOpened
	kindRepeated
	kindResolved
	kindDigest
	kinds
)

func (k kind) String() string {
	return [kinds]string{"alert", "opened", "repeated", "resolved", "digest"}[k]
}

// metrics are one integration's figures.
type metrics struct {
	attributes metric.MeasurementOption // the integration's name
	alerts     metric.Int64Counter
	calls      metric.Int64Counter
	duration   metric.Float64Histogram
	pauses     metric.Int64Counter
	byFate     [fates]metric.MeasurementOption
	byCall     [kinds][outcome.Partial + 1]metric.MeasurementOption

	// For Stats, which a meter cannot be asked for.
	fates    *[fates]atomic.Int64
	returned *atomic.Int64
	messages *atomic.Int64
	failures *[outcome.Partial + 1]atomic.Int64
}

func newMetrics(m metric.Meter, name string, b *breaker.Breaker) (metrics, error) {
	var errs [5]error
	with := instrument.With(attribute.String("integration", name))
	out := metrics{
		attributes: with(), fates: new([fates]atomic.Int64), returned: new(atomic.Int64), messages: new(atomic.Int64),
		failures: new([outcome.Partial + 1]atomic.Int64),
	}
	for f := range out.byFate {
		out.byFate[f] = with(attribute.String("fate", fate(f).String()))
	}
	for k := range out.byCall {
		for c := range out.byCall[k] {
			out.byCall[k][c] = with(attribute.String("message", kind(k).String()), attribute.String("outcome", outcome.Class(c).String()))
		}
	}
	out.alerts, errs[0] = m.Int64Counter("apss.notify.alerts",
		metric.WithDescription("Alerts that were done with, by what became of them."))
	out.calls, errs[1] = m.Int64Counter("apss.notify.calls",
		metric.WithDescription("Calls to the receiver, by their message and what they came to."))
	out.duration, errs[2] = instrument.Duration(m, "apss.notify.call.duration", "Time of a call to the receiver.")
	out.pauses, errs[3] = m.Int64Counter("apss.notify.pauses",
		metric.WithDescription("Pauses in which the receiver was not called: it asked for one, refused the key or everything, or was down."))
	_, errs[4] = m.Int64ObservableGauge("apss.notify.breaker",
		metric.WithDescription("Whether the receiver is called: 0 closed, it is; 1 open, it is not; 2 half-open, one call at a time."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(b.Status(time.Now()).State), out.attributes.(metric.ObserveOption))
			return nil
		}))
	return out, errors.Join(errs[:]...)
}

func (m *metrics) alert(ctx context.Context, f fate) {
	m.fates[f].Add(1)
	m.alerts.Add(ctx, 1, m.byFate[f])
}

// call counts a call that came to e.
func (m *metrics) call(ctx context.Context, k kind, e *outcome.Error, took time.Duration) {
	class := outcome.OK
	if e != nil {
		class = e.Class
	}
	if int(class) >= len(m.byCall[k]) { // it is tried again
		class = outcome.Retry
	}
	if class != outcome.OK {
		m.failures[class].Add(1)
	}
	m.calls.Add(ctx, 1, m.byCall[k][class])
	m.duration.Record(ctx, took.Seconds(), m.attributes)
}
