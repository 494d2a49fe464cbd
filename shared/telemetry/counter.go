package telemetry

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Counter is a number that only grows and that is read when metrics are scraped or exported: adding to it is one
// atomic addition, where an OpenTelemetry counter looks up its attributes each time. Safe for concurrent use. The
// zero value counts and is shown nowhere.
type Counter struct{ n atomic.Int64 }

// Add adds n, which must not be negative.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Load returns the sum.
func (c *Counter) Load() int64 { return c.n.Load() }

// Counter returns a new counter that is shown as name with attributes. Several may share a name and differ in their
// attributes; unit and description are those of the first. Each lives as long as t: attributes must not come from data.
func (t *Telemetry) Counter(name, unit, description string, attributes ...attribute.KeyValue) *Counter {
	c := new(Counter)
	t.show(name, c.Load, attributes, func(callback metric.Int64Callback) error {
		_, err := t.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description),
			metric.WithInt64Callback(callback))
		return err
	})
	return c
}

// Gauge shows what read returns as name with attributes. Several may share a name as counters may. Read is called from
// any goroutine and must not block.
func (t *Telemetry) Gauge(name, unit, description string, read func() int64, attributes ...attribute.KeyValue) {
	t.show(name, read, attributes, func(callback metric.Int64Callback) error {
		_, err := t.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description),
			metric.WithInt64Callback(callback))
		return err
	})
}

// point is one set of attributes of an instrument.
type point struct {
	read func() int64
	set  metric.MeasurementOption
}

// show adds a point to the instrument name, which register makes for the first one: OpenTelemetry's SDK drops the
// callbacks of an instrument's further registrations. A name that it refuses is logged, a fault of the program that is
// not worth ending it.
func (t *Telemetry) show(name string, read func() int64, attributes []attribute.KeyValue, register func(metric.Int64Callback) error) {
	t.mu.Lock()
	points, known := t.points[name]
	t.points[name] = append(points, point{read, metric.WithAttributeSet(attribute.NewSet(attributes...))})
	t.mu.Unlock()
	if known {
		return
	}
	err := register(func(_ context.Context, o metric.Int64Observer) error {
		t.mu.Lock()
		points := t.points[name] // only ever appended to
		t.mu.Unlock()
		for _, p := range points {
			o.Observe(p.read(), p.set)
		}
		return nil
	})
	if err != nil {
		t.logger.Error("an instrument is not shown", "name", name, "error", err)
	}
}
