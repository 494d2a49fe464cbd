package agent

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/event"
)

// byReason returns how many events were lost, by the reason as it stands in metrics and heartbeats.
func byReason(d buffer.Drops, st spool.Stats, atEnd int64) map[string]int64 {
	m := map[string]int64{"spool_full": st.LostEvents, "shutdown": atEnd}
	for s := range d {
		for r, n := range d[s] {
			m[buffer.Reason(r).String()] += int64(n)
		}
	}
	return m
}

// register makes the metrics. All but the latency are read from counters when somebody asks.
func (a *Agent) register(meter metric.Meter) error {
	var errs []error
	counter := func(name, help, unit string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter("apss.agent."+name, metric.WithDescription(help), metric.WithUnit(unit))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, help, unit string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge("apss.agent."+name, metric.WithDescription(help), metric.WithUnit(unit))
		errs = append(errs, err)
		return g
	}
	var (
		emitted    = counter("events", "events emitted by the sensors", "{event}")
		dropped    = counter("dropped", "events or alerts lost, by reason and, where known, severity", "{event}")
		sealed     = counter("sealed", "events or alerts sealed into messages", "{event}")
		messages   = counter("sealed.messages", "messages sealed", "{message}")
		bytes      = counter("sealed.bytes", "bytes of sealed messages", "By")
		confirmed  = counter("confirmed", "events or alerts confirmed by the publisher", "{event}")
		failures   = counter("publish.failures", "attempts to publish that failed", "{attempt}")
		refused    = counter("refused", "events or alerts set aside because they will never be accepted", "{event}")
		unspooled  = counter("unspooled", "messages that were sent past a broken spool", "{message}")
		spoolFails = counter("spool.failures", "operations that the spool's disk refused", "{operation}")
		corrupt    = counter("spool.corrupt", "damaged places found in the spool", "{place}")
		buffered   = gauge("buffer.items", "events or alerts in the buffer", "{event}")
		bufBytes   = gauge("buffer.bytes", "bytes in the buffer", "By")
		records    = gauge("spool.records", "messages in the spool that are not confirmed", "{message}")
		spoolBytes = gauge("spool.bytes", "size of the spool on disk", "By")
	)
	latency, err := meter.Float64Histogram("apss.agent.publish.duration", metric.WithUnit("s"),
		metric.WithDescription("time of an attempt to publish"),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	errs = append(errs, err)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	for _, l := range []*lane{a.events, a.alerts} {
		ok := metric.WithAttributeSet(attribute.NewSet(attribute.String("lane", l.name), attribute.Bool("ok", true)))
		bad := metric.WithAttributeSet(attribute.NewSet(attribute.String("lane", l.name), attribute.Bool("ok", false)))
		l.sending.observe = func(took time.Duration, err error) {
			if err != nil {
				latency.Record(context.Background(), took.Seconds(), bad)
				return
			}
			latency.Record(context.Background(), took.Seconds(), ok)
		}
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, t := range event.Types() {
			for s := range a.counts[t] {
				if n := a.counts[t][s].Load(); n > 0 {
					o.ObserveInt64(emitted, n, metric.WithAttributes(attribute.String("type", string(t)), attribute.String("severity", event.Severity(s).String())))
				}
			}
		}
		for _, l := range []*lane{a.events, a.alerts} {
			lane := attribute.String("lane", l.name)
			in := metric.WithAttributeSet(attribute.NewSet(lane))
			f, st, c := l.buffer.Fill(), l.spool.Stats(), &l.counts
			drops := l.buffer.Drops()
			for s := range drops {
				for r, n := range drops[s] {
					if n > 0 {
						o.ObserveInt64(dropped, int64(n), metric.WithAttributes(lane,
							attribute.String("reason", buffer.Reason(r).String()), attribute.String("severity", event.Severity(s).String())))
					}
				}
			}
			for r, n := range byReason(buffer.Drops{}, st, c.droppedAtEnd.Load()) {
				if n > 0 {
					o.ObserveInt64(dropped, n, metric.WithAttributes(lane, attribute.String("reason", r)))
				}
			}
			o.ObserveInt64(sealed, c.sealedItems.Load(), in)
			o.ObserveInt64(messages, c.sealedMessages.Load(), in)
			o.ObserveInt64(bytes, c.sealedBytes.Load(), in)
			o.ObserveInt64(confirmed, c.confirmedItems.Load(), in)
			o.ObserveInt64(failures, c.failures.Load(), in)
			o.ObserveInt64(refused, c.refusedItems.Load(), in)
			o.ObserveInt64(unspooled, c.unspooled.Load(), in)
			o.ObserveInt64(spoolFails, st.Failures, in)
			o.ObserveInt64(corrupt, st.Corrupt, in)
			o.ObserveInt64(buffered, int64(f.Count), in)
			o.ObserveInt64(bufBytes, int64(f.Bytes), in)
			o.ObserveInt64(records, st.Records, in)
			o.ObserveInt64(spoolBytes, st.Bytes, in)
		}
		return nil
	}, emitted, dropped, sealed, messages, bytes, confirmed, failures, refused, unspooled, spoolFails, corrupt,
		buffered, bufBytes, records, spoolBytes)
	return err
}
