package dispatch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"sync/atomic"
	"time"
)

// Message is a message of a subscription. Lease names it to its source.
type Message struct {
	ID          string
	Data        []byte
	Attributes  map[string]string
	OrderingKey string
	PublishTime time.Time
	Lease       string
}

// verdict is what a request came to.
type verdict int

const (
	failed  verdict = iota // an answer that does not acknowledge, or no connection
	expired                // no answer within the ack deadline
	acked
	deadLettered
)

// body is the wrapped request, https://docs.cloud.google.com/pubsub/docs/push#receive_push: both spellings of the id and
// the time are there.
type body struct {
	Message         bodyMessage `json:"message"`
	Subscription    string      `json:"subscription"`
	DeliveryAttempt int         `json:"deliveryAttempt,omitempty"`
}

type bodyMessage struct {
	Attributes   map[string]string `json:"attributes,omitempty"`
	Data         string            `json:"data,omitempty"`
	MessageID    string            `json:"messageId"`
	MessageID2   string            `json:"message_id"`
	OrderingKey  string            `json:"orderingKey,omitempty"`
	PublishTime  string            `json:"publishTime"`
	PublishTime2 string            `json:"publish_time"`
}

const timeLayout = "2006-01-02T15:04:05.999Z07:00"

func (s Subscription) body(m Message, attempt int) ([]byte, error) {
	published := m.PublishTime.UTC().Format(timeLayout)
	b := body{
		Subscription: s.Name,
		Message: bodyMessage{
			Attributes:  m.Attributes,
			Data:        base64.StdEncoding.EncodeToString(m.Data),
			MessageID:   m.ID,
			MessageID2:  m.ID,
			OrderingKey: m.OrderingKey,
			PublishTime: published, PublishTime2: published,
		},
	}
	if s.DeadLetterTopic != "" {
		b.DeliveryAttempt = attempt
	}
	return json.Marshal(b)
}

// maxAnswer bounds what is read of an answer so that its connection can be used again; the content has no meaning.
const maxAnswer = 64 << 10

// push sends m once and returns what came of it.
func (s Subscription) push(ctx context.Context, transport http.RoundTripper, m Message, attempt int) (verdict, string) {
	data, err := s.body(m, attempt)
	if err != nil {
		return failed, err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, s.AckDeadline)
	defer cancel()
	var processing atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// net/http takes 102 for the announcement of another status; for the service it is the acknowledgement.
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code == http.StatusProcessing {
				processing.Store(true)
				return errors.New("acknowledged")
			}
			return nil
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint, bytes.NewReader(data))
	if err != nil {
		return failed, err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "CloudPubSub-Google")
	resp, err := transport.RoundTrip(req) // follows no redirect
	switch {
	case err != nil && processing.Load():
		return acked, ""
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return expired, "no answer within the ack deadline of " + s.AckDeadline.String()
	case err != nil:
		return failed, err.Error()
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // only to use the connection again
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusProcessing, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent:
		return acked, ""
	}
	return failed, "HTTP status " + strconv.Itoa(resp.StatusCode)
}

// The attributes that the service adds to a dead letter:
// https://docs.cloud.google.com/pubsub/docs/dead-letter-topics#track-delivery-attempts
const (
	AttributeDeliveryCount       = "CloudPubSubDeadLetterSourceDeliveryCount"
	AttributeSubscription        = "CloudPubSubDeadLetterSourceSubscription"
	AttributeSubscriptionProject = "CloudPubSubDeadLetterSourceSubscriptionProject"
	AttributePublishTime         = "CloudPubSubDeadLetterSourceTopicPublishTime"
)

// deadLetter is what is published to the dead-letter topic for m after its last attempt.
func (s Subscription) deadLetter(m Message, attempts int) Message {
	attributes := maps.Clone(m.Attributes)
	if attributes == nil {
		attributes = make(map[string]string, 4)
	}
	project, name := s.split()
	attributes[AttributeDeliveryCount] = strconv.Itoa(attempts)
	attributes[AttributeSubscription] = name
	attributes[AttributeSubscriptionProject] = project
	attributes[AttributePublishTime] = m.PublishTime.UTC().Format("2006-01-02T15:04:05.999-07:00")
	return Message{Data: m.Data, Attributes: attributes, OrderingKey: m.OrderingKey}
}
