package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

// PubSub is a Publisher. Credentials and PUBSUB_EMULATOR_HOST are found by the client library.
type PubSub struct {
	client *pubsub.Client
	topic  string
}

// attempt bounds one Publish.
const attempt = 10 * time.Second

// NewPubSub makes a client; it does not connect.
func NewPubSub(ctx context.Context, project, topic string, options ...option.ClientOption) (*PubSub, error) {
	client, err := pubsub.NewClient(ctx, project, options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to Pub/Sub in project %q: %w", project, err)
	}
	client.TopicAdminClient.CallOptions.Publish = nil // they are retries, which are our caller's
	if !strings.Contains(topic, "/") {
		topic = "projects/" + project + "/topics/" + topic
	}
	return &PubSub{client, topic}, nil
}

// Publish implements Publisher.
func (p *PubSub) Publish(ctx context.Context, m envelope.Message) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	_, err := p.client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
		Topic: p.topic, Messages: []*pubsubpb.PubsubMessage{{Data: m.Data, Attributes: m.Attributes}},
	})
	if err == nil {
		return nil
	}
	o := &outcome.Error{Class: outcome.Retry, Reason: "publishing to " + p.topic, Err: err}
	// cloud.google.com/pubsub/docs/reference/error-codes
	if code := status.Code(err); code == codes.InvalidArgument {
		o.Class = outcome.Permanent
	} else if code == codes.NotFound {
		o.Reason += ": the topic does not exist; create it, or correct EVENTS_TOPIC and PUBSUB_PROJECT_ID"
	} else if code == codes.PermissionDenied || code == codes.Unauthenticated {
		o.Class = outcome.Auth
		o.Reason += ": not allowed; give our service account roles/pubsub.publisher on the topic"
	}
	return o
}

// Close ends the connections.
func (p *PubSub) Close() error {
	if err := p.client.Close(); err != nil {
		return fmt.Errorf("closing the Pub/Sub client: %w", err)
	}
	return nil
}
