package publish

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Pub/Sub's limits (cloud.google.com/pubsub/quotas#resource_limits). A message that breaks them is refused with its
// whole publish request.
const (
	maxMessage        = 10_000_000 // data and attributes, bytes
	maxAttributes     = 100
	maxAttributeName  = 256  // bytes
	maxAttributeValue = 1024 // bytes
)

// attempt bounds one Publish, the client library's own retries included: what comes after is the caller's to decide.
const attempt = 10 * time.Second

// PubSubConfig names the topics.
type PubSubConfig struct {
	Project                  string
	EventsTopic, AlertsTopic string // ids, or full names of another project's topics
	// InFlight is how many messages may be under way to one topic.
	InFlight int
	// Options are for tests; credentials and PUBSUB_EMULATOR_HOST are found by the client library.
	Options []option.ClientOption
}

// PubSub publishes to Pub/Sub.
type PubSub struct {
	client *pubsub.Client
	topics map[string]*pubsub.Publisher // by ce-type
	closed atomic.Bool
}

// NewPubSub makes a client. It does not connect: a topic that is missing or closed to us is the outcome of Publish.
func NewPubSub(ctx context.Context, c PubSubConfig) (*PubSub, error) {
	client, err := pubsub.NewClient(ctx, c.Project, c.Options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to Pub/Sub in project %q: %w", c.Project, err)
	}
	topic := func(id string) *pubsub.Publisher {
		p := client.Publisher(id)
		// One request for each message: messages are batches already, and a refusal is then about one message only.
		p.PublishSettings = pubsub.PublishSettings{
			DelayThreshold: time.Millisecond,
			CountThreshold: 1,
			ByteThreshold:  maxMessage,
			NumGoroutines:  max(1, c.InFlight),
			Timeout:        attempt,
			FlowControlSettings: pubsub.FlowControlSettings{
				MaxOutstandingMessages: max(1, c.InFlight),
				MaxOutstandingBytes:    -1, // bounded by the messages
				LimitExceededBehavior:  pubsub.FlowControlBlock,
			},
		}
		return p
	}
	return &PubSub{client: client, topics: map[string]*pubsub.Publisher{
		envelope.TypeEvents: topic(c.EventsTopic),
		envelope.TypeAlert:  topic(c.AlertsTopic),
	}}, nil
}

// Publish sends m to its topic and waits for Pub/Sub's confirmation.
func (p *PubSub) Publish(ctx context.Context, m envelope.Message) error {
	topic := p.topics[typeOf(m)]
	if topic == nil {
		return unknownType(m)
	}
	if err := within(m); err != nil {
		return &outcome.Error{Class: outcome.Permanent, Reason: "Pub/Sub would refuse the message", Err: err}
	}
	if p.closed.Load() {
		return &outcome.Error{Class: outcome.Retry, Reason: "publishing", Err: ErrClosed}
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	_, err := topic.Publish(ctx, &pubsub.Message{Data: m.Data, Attributes: m.Attributes}).Get(ctx)
	return verdict(topic.String(), err)
}

// Close waits for what is under way and ends the connections.
func (p *PubSub) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	for _, t := range p.topics {
		t.Stop()
	}
	if err := p.client.Close(); err != nil {
		return fmt.Errorf("closing the Pub/Sub client: %w", err)
	}
	return nil
}

// within says which of Pub/Sub's limits m breaks.
func within(m envelope.Message) error {
	size := len(m.Data)
	for name, value := range m.Attributes {
		size += len(name) + len(value)
		if len(name) > maxAttributeName || len(value) > maxAttributeValue {
			return fmt.Errorf("attribute %.40q has %d bytes in its name and %d in its value, allowed are %d and %d",
				name, len(name), len(value), maxAttributeName, maxAttributeValue)
		}
	}
	if len(m.Attributes) > maxAttributes {
		return fmt.Errorf("%d attributes, allowed are %d", len(m.Attributes), maxAttributes)
	}
	if size > maxMessage {
		return fmt.Errorf("%d bytes, allowed are %d", size, maxMessage)
	}
	return nil
}

// verdict says what became of a message and, where a person can help, how (cloud.google.com/pubsub/docs/reference/error-codes).
func verdict(topic string, err error) error {
	if err == nil {
		return nil
	}
	o := &outcome.Error{Class: outcome.Retry, Reason: "publishing to " + topic, Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return o
	case errors.Is(err, pubsub.ErrOversizedMessage):
		o.Class = outcome.Permanent
		return o
	}
	code := status.Code(err)
	if code == codes.NotFound {
		o.Reason += ": the topic does not exist; create it (terraform apply, or gcloud pubsub topics create), or correct EVENTS_TOPIC, ALERTS_TOPIC and PUBSUB_PROJECT_ID"
	}
	if code == codes.PermissionDenied {
		o.Class = outcome.Auth
		o.Reason += ": not allowed; give the agent's service account roles/pubsub.publisher on the topic"
	}
	if code == codes.Unauthenticated {
		o.Class = outcome.Auth
		o.Reason += ": no valid credentials; check the agent's service account and Workload Identity"
	}
	if code == codes.InvalidArgument {
		o.Class = outcome.Permanent
		o.Reason += ": refused for its content"
	}
	return o
}
