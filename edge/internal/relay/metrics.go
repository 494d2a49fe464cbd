package relay

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/shared/telemetry"
)

// lane is one of the two ways out.
type lane int

const (
	laneEvents lane = iota
	laneAlerts
)

func (l lane) String() string { return [...]string{"events", "alerts"}[l] }

// metrics are what the relay tells of itself.
type metrics struct {
	accepted, messages, bytes [2]*telemetry.Counter
	requests                  *telemetry.Counter // answered with 200
	refused                   map[reason]*telemetry.Counter
	malformed, conflicts      *telemetry.Counter
	fill                      metric.Float64Histogram
	latency                   metric.Float64Histogram
	latencyOf                 [2][2]metric.MeasurementOption // by lane, by success
	trouble                   *slog.Logger
}

func newMetrics(t *telemetry.Telemetry, r *Relay) (*metrics, error) {
	m := &metrics{refused: make(map[reason]*telemetry.Counter), trouble: r.log}
	for _, l := range []lane{laneEvents, laneAlerts} {
		name := attribute.String("lane", l.String())
		m.accepted[l] = t.Counter("apss.relay.events", "{event}", "events and alerts that Pub/Sub confirmed", name)
		m.messages[l] = t.Counter("apss.relay.messages", "{message}", "messages that Pub/Sub confirmed", name)
		m.bytes[l] = t.Counter("apss.relay.messages.bytes", "By", "their data", name)
		for i, ok := range []bool{false, true} {
			m.latencyOf[l][i] = metric.WithAttributeSet(attribute.NewSet(name, attribute.Bool("ok", ok)))
		}
	}
	m.requests = t.Counter("apss.relay.accepted", "{request}", "requests that were accepted")
	for _, why := range reasons() {
		m.refused[why] = t.Counter("apss.relay.refused", "{request}", "requests that were not accepted, by reason", attribute.String("reason", string(why)))
	}
	m.malformed = t.Counter("apss.relay.malformed", "{line}", "lines of accepted messages that are no events, left out")
	m.conflicts = t.Counter("apss.relay.conflicts", "{event}", "events and alerts that claimed another identity than their pod's")
	t.Gauge("apss.relay.pods", "{pod}", "pods that spoke in the last five minutes", r.pods.speaking)
	t.Gauge("apss.relay.room.bytes", "By", "what requests under way take", func() int64 { return int64(r.events.Held()) }, attribute.String("lane", "events"))
	t.Gauge("apss.relay.room.bytes", "By", "what requests under way take", func() int64 { return int64(r.alerts.Held()) }, attribute.String("lane", "alerts"))
	var err error
	if m.fill, err = t.Meter().Float64Histogram("apss.relay.fill", metric.WithUnit("1"),
		metric.WithDescription("how full messages of events are, by count or bytes, whichever is more"),
		metric.WithExplicitBucketBoundaries(.01, .05, .1, .25, .5, .75, .9, .95, 1)); err != nil {
		return nil, err
	}
	m.latency, err = t.Meter().Float64Histogram("apss.relay.publish.duration", metric.WithUnit("s"),
		metric.WithDescription("time of an attempt to publish"),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	return m, err
}

func (m *metrics) answered(a answer) {
	if a.reason == reasonNone {
		m.requests.Add(1)
		return
	}
	m.refused[a.reason].Add(1)
}

// accept counts the events of k, without the relay's own.
func (m *metrics) accept(k *work) {
	n := len(k.events)
	if k.conflict {
		n--
	}
	m.accepted[laneEvents].Add(int64(n))
}

func (m *metrics) published(ctx context.Context, l lane, bytes int, took time.Duration, err error) {
	ok := 0
	if err == nil {
		ok = 1
		m.messages[l].Add(1)
		m.bytes[l].Add(int64(bytes))
	}
	m.latency.Record(ctx, took.Seconds(), m.latencyOf[l][ok])
}
