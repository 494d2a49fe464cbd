package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

// units is n units: the rows hold plain numbers.
func units(n, unit time.Duration) time.Duration { return time.Duration(int64(n) * int64(unit)) }

// endpoint answers as its row says and records what came.
type endpoint struct {
	t       *testing.T
	unit    time.Duration
	answers map[string][]answer
	sub     dispatch.Subscription
	want    int
	enough  chan struct{} // closed after as many requests as wanted

	mu  sync.Mutex
	got []seen
}

type seen struct {
	data    string
	attempt int
	at      time.Time
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	var body struct {
		DeliveryAttempt int    `json:"deliveryAttempt"`
		Subscription    string `json:"subscription"`
		Message         struct {
			Data                      []byte
			MessageID                 string            `json:"messageId"`
			MessageID2                string            `json:"message_id"`
			OrderingKey               string            `json:"orderingKey"`
			PublishTime, PublishTime2 time.Time         `json:"-"`
			Published                 string            `json:"publishTime"`
			Published2                string            `json:"publish_time"`
			Attributes                map[string]string `json:"attributes"`
		} `json:"message"`
	}
	if err := json.UnmarshalRead(r.Body, &body, json.MatchCaseInsensitiveNames(true)); err != nil {
		e.t.Errorf("the request's body: %v", err)
	}
	m := body.Message
	data := string(m.Data)
	if body.Subscription != subscription || m.MessageID == "" || m.MessageID != m.MessageID2 ||
		m.Published != m.Published2 || m.OrderingKey != "o-"+data || m.Attributes["key"] != data ||
		r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		e.t.Errorf("got the request %+v", body)
	}
	if _, err := time.Parse(time.RFC3339, m.Published); err != nil {
		e.t.Error(err)
	}

	e.mu.Lock()
	e.got = append(e.got, seen{data, body.DeliveryAttempt, time.Now()})
	if len(e.got) == e.want {
		close(e.enough)
	}
	n := 0
	for _, s := range e.got {
		if s.data == data {
			n++
		}
	}
	e.mu.Unlock()

	a := answer{status: http.StatusOK}
	if answers := e.answers[data]; len(answers) > 0 {
		a = answers[min(n, len(answers))-1]
	}
	switch {
	case a.broken:
		return nil, io.ErrUnexpectedEOF
	case a.hangs:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case a.after > 0:
		select {
		case <-time.After(units(a.after, e.unit)):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return &http.Response{StatusCode: a.status, Header: http.Header{"Location": {"http://elsewhere.test/"}}, Body: http.NoBody}, nil
}

func (e *endpoint) byData() map[string][]seen {
	all := make(map[string][]seen)
	for _, s := range e.got {
		all[s.data] = append(all[s.data], s)
	}
	return all
}

// compare compares message by message: messages of one moment may come in any order.
func (e *endpoint) compare(want []request, fake bool) {
	e.t.Helper()
	wanted := make(map[string][]request)
	for _, w := range want {
		wanted[w.data] = append(wanted[w.data], w)
	}
	got := e.byData()
	if diff := gocmp.Diff(slices.Sorted(maps.Keys(wanted)), slices.Sorted(maps.Keys(got))); diff != "" {
		e.t.Errorf("messages that were delivered (-want +got):\n%s", diff)
	}
	for data, w := range wanted {
		g := got[data]
		if len(g) != len(w) {
			e.t.Errorf("%s: got %d requests, want %d", data, len(g), len(w))
			continue
		}
		for i := range w {
			if g[i].attempt != w[i].attempt {
				e.t.Errorf("%s, request %d: got deliveryAttempt %d, want %d", data, i, g[i].attempt, w[i].attempt)
			}
			if i == 0 {
				continue
			}
			gap := float64(g[i].at.Sub(g[i-1].at)) / float64(e.unit)
			least := w[i].from
			if !fake { // on a busy machine a request is noticed some time after it was sent, and the gap after it is shorter
				least /= 2
			}
			if gap < least || fake && gap > max(w[i].from, w[i].to) {
				e.t.Errorf("%s, request %d: got it %.2f units after the last, want %v to %v",
					data, i, gap, w[i].from, max(w[i].from, w[i].to))
			}
		}
	}
}

// memory is a source and a dead-letter topic without a broker.
type memory struct {
	messages chan dispatch.Message
	mu       sync.Mutex
	done     int
	failures int
	dead     []dispatch.Message
}

func (b *memory) publish(m dispatch.Message) {
	m.ID, m.PublishTime = fmt.Sprintf("id-%s", m.Data), time.Now()
	b.messages <- m
}

func (b *memory) Receive(ctx context.Context, _ int) ([]dispatch.Message, error) {
	select {
	case m := <-b.messages:
		return []dispatch.Message{m}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *memory) Done(context.Context, string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done++
	return nil
}

func (b *memory) Publish(_ context.Context, topic string, m dispatch.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if topic != deadTopic {
		return fmt.Errorf("topic %q does not exist", topic)
	}
	if b.failures--; b.failures >= 0 {
		return errors.New("permission denied")
	}
	b.dead = append(b.dead, m)
	return nil
}

// letters returns the data of the dead letters, after a look at their attributes.
func (b *memory) letters(e *endpoint) []string {
	e.t.Helper()
	var all []string
	for _, m := range b.dead {
		all = append(all, string(m.Data))
		published := m.Attributes[dispatch.AttributePublishTime]
		if _, err := time.Parse("2006-01-02T15:04:05.999-07:00", published); err != nil {
			e.t.Error(err)
		}
		delete(m.Attributes, dispatch.AttributePublishTime)
		want := map[string]string{
			"key":                                 string(m.Data),
			dispatch.AttributeDeliveryCount:       strconv.Itoa(len(e.byData()[string(m.Data)])),
			dispatch.AttributeSubscription:        "push",
			dispatch.AttributeSubscriptionProject: "p",
		}
		if diff := gocmp.Diff(want, m.Attributes); diff != "" {
			e.t.Errorf("attributes of a dead letter (-want +got):\n%s", diff)
		}
	}
	return all
}
