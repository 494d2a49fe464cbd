package health

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

type metrics struct {
	checks   metric.Int64Counter
	duration metric.Float64Histogram
	tooMany  metric.Int64Counter
}

func (h *Health) newMetrics(m metric.Meter) (metrics, error) {
	var out metrics
	var errs [4]error
	out.checks, errs[0] = m.Int64Counter("apss.health.checks", metric.WithDescription("Checks of receivers, by whether they were well."))
	out.duration, errs[1] = m.Float64Histogram("apss.health.check.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60),
		metric.WithDescription("Time of a check."))
	out.tooMany, errs[2] = m.Int64Counter("apss.agents.refused",
		metric.WithDescription("Heartbeats of agents that are not followed, because there are too many."))
	status, err1 := m.Int64ObservableGauge("apss.health.status",
		metric.WithDescription("How an integration is: 0 disabled, 1 healthy, 2 warning, 3 failing."))
	age, err2 := m.Float64ObservableGauge("apss.canary.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the newest canary was sent that came out at the receiver."))
	count, err3 := m.Int64ObservableGauge("apss.agents",
		metric.WithDescription("Agents: live, silent, or ended in the last day."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return metrics{}, err
	}
	_, errs[3] = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		h.mu.Lock()
		last := h.last
		h.mu.Unlock()
		if last.Time.IsZero() {
			return nil
		}
		for _, i := range last.Integrations {
			name := attribute.String("integration", i.Name)
			o.ObserveInt64(status, i.Status.rank(), metric.WithAttributes(name))
			for topic, c := range i.Canary {
				if c.AgeSeconds >= 0 {
					o.ObserveFloat64(age, time.Since(c.Sent).Seconds(), metric.WithAttributes(name, attribute.String("topic", topic)))
				}
			}
		}
		for state, n := range map[string]int{"live": last.Agents.Live, "silent": last.Agents.Silent, "ended": last.Agents.Ended} {
			o.ObserveInt64(count, int64(n), metric.WithAttributes(attribute.String("state", state)))
		}
		return nil
	}, status, age, count)
	return out, errors.Join(errs[:]...)
}

func (m *metrics) check(ctx context.Context, name string, c checkRecord) {
	own := attribute.String("integration", name)
	m.checks.Add(ctx, 1, metric.WithAttributes(own, attribute.Bool("ok", c.OK)))
	m.duration.Record(ctx, c.Latency.Seconds(), metric.WithAttributes(own))
}

func (m *metrics) refused(ctx context.Context) { m.tooMany.Add(ctx, 1) }
