package forward

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/instrument"
	"github.com/apss-sensor/apss/shared/outcome"
)

// What became of events, as the counter's attribute "fate" says it.
const (
	fateAccepted  = "accepted"
	fateDead      = "dead_lettered"
	fateNotRouted = "not_routed"
)

// metrics are one integration's figures.
type metrics struct {
	attributes metric.MeasurementOption // the integration's name
	accepted   metric.MeasurementOption
	dead       metric.MeasurementOption
	notRouted  metric.MeasurementOption
	fates      metric.Int64Counter
	calls      metric.Int64Counter
	duration   metric.Float64Histogram
	holds      metric.Int64Counter
	forgotten  metric.Int64Counter
	classes    [outcome.Partial + 1]metric.MeasurementOption

	counts *counts // for Stats, which a meter cannot be asked for
}

// counts are the figures since New.
type counts struct {
	accepted, dead, notRouted atomic.Int64
	failures                  [outcome.Partial + 1]atomic.Int64
}

func newMetrics(m metric.Meter, name string, inHand *budget.Budget) (metrics, error) {
	var errs [6]error
	with := instrument.With(attribute.String("integration", name))
	out := metrics{
		attributes: with(),
		accepted:   with(attribute.String("fate", fateAccepted)),
		dead:       with(attribute.String("fate", fateDead)),
		notRouted:  with(attribute.String("fate", fateNotRouted)),
		counts:     new(counts),
	}
	for c := range out.classes {
		out.classes[c] = with(attribute.String("outcome", outcome.Class(c).String()))
	}
	out.fates, errs[0] = m.Int64Counter("apss.forward.events",
		metric.WithDescription("Events that came to an end: accepted by the receiver, dead-lettered, or not routed to it."))
	out.calls, errs[1] = m.Int64Counter("apss.forward.calls",
		metric.WithDescription("Calls to the receiver, by what they came to."))
	out.duration, errs[2] = instrument.Duration(m, "apss.forward.call.duration", "Time of a call to the receiver.")
	out.holds, errs[3] = m.Int64Counter("apss.forward.holds",
		metric.WithDescription("Pauses in which the receiver was not called: it asked for one, refused the key or everything, or was down."))
	out.forgotten, errs[4] = m.Int64Counter("apss.forward.forgotten",
		metric.WithDescription("Messages half delivered that were forgotten for want of room; their redelivery is sent whole."))
	_, errs[5] = m.Int64ObservableGauge("apss.forward.in_hand", metric.WithUnit("By"),
		metric.WithDescription("Bytes of pushes and opened messages in memory."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(inHand.Used())
			return nil
		}))
	return out, errors.Join(errs[:]...)
}

// call counts a call that came to e.
func (m *metrics) call(ctx context.Context, e *outcome.Error, took time.Duration) {
	class := outcome.OK
	if e != nil {
		class = e.Class
	}
	if int(class) >= len(m.classes) { // it is tried again
		class = outcome.Retry
	}
	if class != outcome.OK {
		m.counts.failures[class].Add(1)
	}
	m.calls.Add(ctx, 1, m.classes[class])
	m.duration.Record(ctx, took.Seconds(), m.attributes)
}

func (m *metrics) events(ctx context.Context, fate string, n int) {
	option, count := m.accepted, &m.counts.accepted
	switch {
	case n == 0:
		return
	case fate == fateDead:
		option, count = m.dead, &m.counts.dead
	case fate == fateNotRouted:
		option, count = m.notRouted, &m.counts.notRouted
	}
	count.Add(int64(n))
	m.fates.Add(ctx, int64(n), option)
}
