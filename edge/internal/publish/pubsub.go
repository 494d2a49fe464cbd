package publish

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
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

// attempt bounds one Publish: what comes after is the caller's to decide.
const attempt = 10 * time.Second

// PubSubConfig names the topics.
type PubSubConfig struct {
	Project                  string
	EventsTopic, AlertsTopic string // ids, or full names of another project's topics
	// Options are for tests and for the connections; credentials and PUBSUB_EMULATOR_HOST are found by the client library.
	Options []option.ClientOption
}

// PubSub publishes to Pub/Sub, one request for each message: messages are batches already, and a refusal is then about
// one message only. It makes the call itself: the client library's own Publisher queues and retries by itself, and its
// Stop waits for attempts that nobody waits for any more; its Client has another one for subscriptions, each with up to
// four connections, where an agent's calls fit in one.
type PubSub struct {
	client *pubsub.TopicAdminClient
	topics map[string]string // full names, by ce-type
	closed atomic.Bool
}

// NewPubSub makes a client. It does not connect: a topic that is missing or closed to us is the outcome of Publish.
func NewPubSub(ctx context.Context, c PubSubConfig) (*PubSub, error) {
	client, err := pubsub.NewTopicAdminClient(ctx, c.Options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to Pub/Sub in project %q: %w", c.Project, err)
	}
	client.CallOptions.Publish = nil // they are retries, for up to a minute
	name := func(id string) string {
		if strings.Contains(id, "/") {
			return id
		}
		return "projects/" + c.Project + "/topics/" + id
	}
	return &PubSub{client: client, topics: map[string]string{
		envelope.TypeEvents: name(c.EventsTopic),
		envelope.TypeAlert:  name(c.AlertsTopic),
	}}, nil
}

// Publish sends m to its topic and waits for Pub/Sub's confirmation.
func (p *PubSub) Publish(ctx context.Context, m envelope.Message) error {
	topic := p.topics[typeOf(m)]
	if topic == "" {
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
	_, err := p.client.Publish(ctx, &pubsubpb.PublishRequest{
		Topic: topic, Messages: []*pubsubpb.PubsubMessage{{Data: m.Data, Attributes: m.Attributes}},
	})
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // gRPC has a status instead
	}
	return verdict(topic, err)
}

// Close ends the connections, and with them what is under way.
func (p *PubSub) Close() error {
	if p.closed.Swap(true) {
		return nil
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
		if !utf8.ValidString(name) || !utf8.ValidString(value) { // protobuf has no such strings
			return fmt.Errorf("attribute %.40q is not UTF-8", name)
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
	code := status.Code(err)
	if code == codes.NotFound {
		o.Reason += ": the topic does not exist; create it (terraform apply, or gcloud pubsub topics create), or correct EVENTS_TOPIC, ALERTS_TOPIC and PUBSUB_PROJECT_ID"
	}
	if code == codes.PermissionDenied {
		o.Class = outcome.Auth
		o.Reason += ": not allowed; give the service account that publishes roles/pubsub.publisher on the topic"
	}
	if code == codes.Unauthenticated {
		o.Class = outcome.Auth
		o.Reason += ": no valid credentials; check the service account that publishes and its Workload Identity"
	}
	if code == codes.InvalidArgument {
		o.Class = outcome.Permanent
		o.Reason += ": refused for its content"
	}
	return o
}
