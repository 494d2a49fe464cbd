package dispatch_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/pstest"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

const (
	subscription = "projects/p/subscriptions/push"
	deadTopic    = "projects/p/topics/dead"
)

type row struct {
	statement string
	sub       dispatch.Subscription // name, endpoint and, unless given, 10 units of ack deadline are filled in
	messages  []string              // data; each with the attribute key=<data>; one, "m", unless given
	answers   map[string][]answer   // by data, one for each attempt; the last one repeats
	want      []request             // in order of time
	dead      []string              // data of the dead letters
	deadFails int                   // how many publishes of a dead letter fail first
}

// documented has one row for each statement of the service's documentation. Times are in units: a second of the fake
// clock, 20 ms with a real broker, 300 ms where a deadline expires there; of those only lower bounds are checked.
var documented = []row{
	{
		statement: "a request carries data, both spellings of id and time, and the subscription",
		want:      []request{{data: "m"}},
	},
	{statement: "102 acknowledges", answers: one(status(102)), want: []request{{data: "m"}}},
	{statement: "200 acknowledges", answers: one(status(200)), want: []request{{data: "m"}}},
	{statement: "201 acknowledges", answers: one(status(201)), want: []request{{data: "m"}}},
	{statement: "202 acknowledges", answers: one(status(202)), want: []request{{data: "m"}}},
	{statement: "204 acknowledges", answers: one(status(204)), want: []request{{data: "m"}}},
	{statement: "203 does not", answers: one(status(203), status(200)), want: []request{{data: "m"}, {data: "m"}}},
	{statement: "206 does not", answers: one(status(206), status(200)), want: []request{{data: "m"}, {data: "m"}}},
	{statement: "a redirect does not and is not followed", answers: one(status(302), status(200)),
		want: []request{{data: "m"}, {data: "m"}}},
	{statement: "4xx does not, and is not final", answers: one(status(400), status(404), status(429), status(200)),
		want: []request{{data: "m"}, {data: "m"}, {data: "m"}, {data: "m"}}},
	{statement: "5xx does not", answers: one(status(500), status(503), status(200)),
		want: []request{{data: "m"}, {data: "m"}, {data: "m"}}},
	{statement: "a broken connection does not", answers: one(answer{broken: true}, status(200)),
		want: []request{{data: "m"}, {data: "m"}}},
	{
		statement: "the ack deadline is the request's timeout",
		sub:       dispatch.Subscription{AckDeadline: 12},
		answers:   one(answer{hangs: true}, status(200)),
		want:      []request{{data: "m"}, {data: "m", from: 12, to: 12}},
	},
	{
		statement: "an answer within the ack deadline acknowledges",
		answers:   one(answer{status: 200, after: 9}),
		want:      []request{{data: "m"}},
	},
	{
		statement: "without a retry policy a message comes back as soon as possible",
		answers:   one(status(503), status(503), status(200)),
		want:      []request{{data: "m"}, {data: "m", to: 0}, {data: "m", to: 0}},
	},
	{
		statement: "a retry policy backs off exponentially from the minimum to the maximum",
		sub:       dispatch.Subscription{MinBackoff: 2, MaxBackoff: 10},
		answers:   one(status(503), status(503), status(503), status(503), status(503), status(200)),
		want: []request{{data: "m"}, {data: "m", from: 2, to: 2.2}, {data: "m", from: 4, to: 4.4},
			{data: "m", from: 8, to: 8.8}, {data: "m", from: 10, to: 10}, {data: "m", from: 10, to: 10}},
	},
	{
		statement: "an expired ack deadline backs off like a negative acknowledgement",
		sub:       dispatch.Subscription{MinBackoff: 5, MaxBackoff: 5},
		answers:   one(answer{hangs: true}, status(200)),
		want:      []request{{data: "m"}, {data: "m", from: 15, to: 15}},
	},
	{
		statement: "the backoff is the message's own: others do not wait for it",
		sub:       dispatch.Subscription{MinBackoff: 30, MaxBackoff: 30},
		messages:  []string{"bad", "good"},
		answers:   map[string][]answer{"bad": {status(503), status(200)}, "good": {{status: 200, after: 1}}},
		want:      []request{{data: "bad"}, {data: "good", to: 0}, {data: "bad", from: 30, to: 30}},
	},
	{
		statement: "deliveryAttempt counts from 1 when there is a dead-letter policy",
		sub:       dispatch.Subscription{DeadLetterTopic: deadTopic, MaxDeliveryAttempts: 5},
		answers:   one(status(503), status(503), status(200)),
		want:      []request{{data: "m", attempt: 1}, {data: "m", attempt: 2}, {data: "m", attempt: 3}},
	},
	{
		statement: "after the maximum of attempts the message goes to the dead-letter topic and not again to the endpoint",
		sub:       dispatch.Subscription{DeadLetterTopic: deadTopic, MaxDeliveryAttempts: 5},
		answers:   one(status(503)),
		want: []request{{data: "m", attempt: 1}, {data: "m", attempt: 2}, {data: "m", attempt: 3},
			{data: "m", attempt: 4}, {data: "m", attempt: 5}},
		dead: []string{"m"},
	},
	{
		statement: "an expired ack deadline counts as an attempt",
		sub:       dispatch.Subscription{DeadLetterTopic: deadTopic, MaxDeliveryAttempts: 5},
		answers:   one(answer{hangs: true}, status(500), answer{hangs: true}, status(500), status(500)),
		want: []request{{data: "m", attempt: 1}, {data: "m", attempt: 2, from: 10}, {data: "m", attempt: 3},
			{data: "m", attempt: 4, from: 10}, {data: "m", attempt: 5}},
		dead: []string{"m"},
	},
	{
		statement: "a dead letter that cannot be published stays with the subscription and is delivered on",
		sub:       dispatch.Subscription{DeadLetterTopic: deadTopic, MaxDeliveryAttempts: 5},
		answers:   one(status(503)),
		deadFails: 2,
		want: []request{{data: "m", attempt: 1}, {data: "m", attempt: 2}, {data: "m", attempt: 3},
			{data: "m", attempt: 4}, {data: "m", attempt: 5}, {data: "m", attempt: 6}, {data: "m", attempt: 7}},
		dead: []string{"m"},
	},
	{
		statement: "what the filter does not match is acknowledged and never delivered",
		sub:       dispatch.Subscription{Filter: `attributes.key = "yes" OR hasPrefix(attributes.key, "yes-")`},
		messages:  []string{"no", "yes", "noyes-", "yes-too"},
		want:      []request{{data: "yes"}, {data: "yes-too"}},
	},
}

// hangs reports whether an ack deadline expires.
func (r row) hangs() bool {
	for _, answers := range r.answers {
		for _, a := range answers {
			if a.hangs {
				return true
			}
		}
	}
	return false
}

type answer struct {
	status int
	after  time.Duration // units
	hangs  bool
	broken bool
}

func status(code int) answer { return answer{status: code} }

func one(answers ...answer) map[string][]answer { return map[string][]answer{"m": answers} }

// request is what the endpoint saw: from and to bound the units since the last request for the same message.
type request struct {
	data     string
	attempt  int
	from, to float64
}

func TestAsDocumented(t *testing.T) {
	t.Run("fake clock", func(t *testing.T) {
		for _, row := range documented {
			t.Run(row.statement, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := &memory{messages: make(chan dispatch.Message, 100)}
					testRow(t, b, b, b.publish, time.Second, row)
					if left := len(b.messages); left != 0 {
						t.Errorf("got %d messages not received", left)
					}
				})
			})
		}
	})
	t.Run("in process", func(t *testing.T) { testBroker(t, broker.Options{}) })
	t.Run("pstest, pulled", func(t *testing.T) {
		s := pstest.NewServer()
		t.Cleanup(func() { _ = s.Close() })
		testBroker(t, broker.Options{Emulator: s.Addr})
	})
	t.Run("Google's emulator", func(t *testing.T) {
		host := os.Getenv("PUBSUB_EMULATOR_HOST")
		if host == "" {
			t.Skip("SKIPPED: Google's emulator is not there. To test with it: `gcloud beta emulators pubsub start " +
				"--host-port=127.0.0.1:8085` and, elsewhere, PUBSUB_EMULATOR_HOST=127.0.0.1:8085 go test ./internal/dispatch")
		}
		testBroker(t, broker.Options{Emulator: host})
	})
}

// testBroker runs the rows in parallel, each on its own topic.
func testBroker(t *testing.T, o broker.Options) {
	t.Helper()
	o.Project = "p"
	for i := range documented {
		o.Topics = append(o.Topics, fmt.Sprintf("row-%d", i))
	}
	b, err := broker.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for i, row := range documented {
		source, err := b.Subscribe(t.Context(), o.Topics[i], o.Topics[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Run(row.statement, func(t *testing.T) {
			t.Parallel()
			publish := func(m dispatch.Message) {
				if err := b.Publish(t.Context(), b.TopicName(o.Topics[i]), m); err != nil {
					t.Error(err)
				}
			}
			testRow(t, source, &memory{}, publish, 20*time.Millisecond, row)
		})
	}
}

func testRow(t *testing.T, source dispatch.Source, dead *memory, publish func(dispatch.Message), unit time.Duration,
	row row,
) {
	t.Helper()
	fake := unit == time.Second
	sub := row.sub
	sub.Name, sub.Endpoint = subscription, "http://endpoint.test/push"
	if !fake && row.hangs() {
		unit = 300 * time.Millisecond // an answer at once is within the ack deadline, on a machine that stalls too
	}
	sub.AckDeadline = units(cmp.Or(sub.AckDeadline, 10), unit)
	if !fake && !row.hangs() {
		sub.AckDeadline = time.Minute
	}
	sub.MinBackoff, sub.MaxBackoff = units(sub.MinBackoff, unit), units(sub.MaxBackoff, unit)
	dead.failures = row.deadFails

	e := &endpoint{t: t, unit: unit, answers: row.answers, sub: sub, enough: make(chan struct{}), want: len(row.want)}
	d, err := dispatch.New(sub, source, dead, dispatch.Options{Transport: e, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	messages := row.messages
	if messages == nil {
		messages = []string{"m"}
	}
	for _, data := range messages {
		publish(dispatch.Message{Data: []byte(data), Attributes: map[string]string{"key": data}, OrderingKey: "o-" + data})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	if fake {
		time.Sleep(time.Hour) // of the bubble: whatever is still to come comes
	} else {
		select {
		case <-e.enough:
		case <-time.After(time.Minute):
		}
	}
	cancel()
	running.Wait()

	e.compare(row.want, fake)
	if diff := gocmp.Diff(row.dead, dead.letters(e)); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	got := d.Stats()
	delivered := int64(len(e.byData()) - len(row.dead))
	if got.Acked != delivered || got.DeadLettered != int64(len(row.dead)) || got.Held != 0 || got.InFlight != 0 {
		t.Errorf("got stats %+v, want %d acked, %d dead-lettered, nothing held", got, delivered, len(row.dead))
	}
	if fake && int(got.Received+got.Filtered) != dead.done {
		t.Errorf("got %d messages done at the source, want %d", dead.done, got.Received+got.Filtered)
	}
}
