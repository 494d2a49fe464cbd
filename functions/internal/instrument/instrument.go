// Package instrument makes what the functions measure with alike.
package instrument

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Duration returns a histogram of seconds for what waits for a network: from 5 ms, a call nearby, to a minute, the longest.
func Duration(m metric.Meter, name, description string) (metric.Float64Histogram, error) {
	return m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60))
}

// With returns a function that makes sets of attributes with own among them. Making one for each measurement would cost
// more than the measurement: keep them.
func With(own attribute.KeyValue) func(more ...attribute.KeyValue) metric.MeasurementOption {
	return func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, own)...))
	}
}
