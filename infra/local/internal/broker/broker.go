// Package broker is the Pub/Sub of a local run: a server in this process, or Google's emulator.
//
// Publishers reach either through PUBSUB_EMULATOR_HOST. [Broker.Subscribe] gives a [dispatch.Source] of every message
// that is published from then on. [Broker.Keep] makes a subscription that others pull from, as apssctl does.
//
// The server in this process is pstest, which speaks the protocol and keeps the topics, but is made for short tests: it
// keeps every message until told to clear all of them, forgets after ten minutes what nobody took, and streams a message
// at a time every 10 ms. So messages do not go through its memory: a hook in front of its Publish hands them to the
// queues of this package, which forget a message when it is done. Only a topic that a client subscribed to over the
// protocol (with gcloud) also goes through pstest, which is cleared every 10,000 messages.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

// Options say which broker to use.
type Options struct {
	Project string
	Topics  []string // short names; created where they are missing
	// Emulator is the host:port of Google's emulator; empty starts the server in this process.
	Emulator string
	// Addr is where the server in this process listens; "127.0.0.1:0" unless given.
	Addr string
	// MaxBytes bounds what the server in this process holds for all subscriptions together: 512 MiB unless given. Beyond
	// it Publish answers RESOURCE_EXHAUSTED, and the publishers' spools take over.
	MaxBytes int64
	Log      *slog.Logger
}

// Source is a subscription of a broker. Safe for concurrent use.
type Source interface {
	dispatch.Source
	// Backlog returns how many messages were not received yet; -1 where the broker cannot tell.
	Backlog() int
}

// Broker is safe for concurrent use.
type Broker struct {
	project  string
	addr     string
	server   *server // nil with an emulator
	conn     *grpc.ClientConn
	topics   pubsubpb.PublisherClient
	subs     pubsubpb.SubscriberClient
	log      *slog.Logger
	suffix   string
	closings []func(context.Context) error
}

// dialTimeout bounds the first call to an emulator that may not be there.
const dialTimeout = 10 * time.Second

// Start starts the server or connects to the emulator, and creates the topics.
func Start(ctx context.Context, o Options) (_ *Broker, err error) {
	b := &Broker{project: o.Project, addr: o.Emulator, log: o.Log, suffix: time.Now().UTC().Format("20060102t150405.000000")}
	if b.log == nil {
		b.log = slog.Default()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close(ctx))
		}
	}()
	if o.Emulator == "" {
		if b.server, err = startServer(o, b.log); err != nil {
			return nil, err
		}
		b.addr = b.server.addr()
	}
	b.conn, err = grpc.NewClient(b.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connecting to Pub/Sub at %s: %w", b.addr, err)
	}
	b.topics, b.subs = pubsubpb.NewPublisherClient(b.conn), pubsubpb.NewSubscriberClient(b.conn)
	for _, topic := range o.Topics {
		if err := b.createTopic(ctx, topic); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *Broker) createTopic(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	_, err := b.topics.CreateTopic(ctx, &pubsubpb.Topic{Name: b.TopicName(topic)}, grpc.WaitForReady(true))
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("creating the topic %s at %s: %w (is an emulator there? unset PUBSUB_EMULATOR_HOST to do without)",
			topic, b.addr, err)
	}
	return nil
}

// Addr is the value for PUBSUB_EMULATOR_HOST.
func (b *Broker) Addr() string { return b.addr }

// Emulator reports whether this is Google's emulator.
func (b *Broker) Emulator() bool { return b.server == nil }

// TopicName returns a topic's full name.
func (b *Broker) TopicName(short string) string { return "projects/" + b.project + "/topics/" + short }

// SubscriptionName returns a subscription's full name.
func (b *Broker) SubscriptionName(short string) string {
	return "projects/" + b.project + "/subscriptions/" + short
}

// Subscribe returns a source of what is published to topic (its short name) from now on. It is not for concurrent use
// with Close.
func (b *Broker) Subscribe(ctx context.Context, topic, name string) (Source, error) {
	if b.server != nil {
		return b.server.subscribe(b.TopicName(topic)), nil
	}
	p, err := newPull(ctx, b.subs, b.TopicName(topic), b.SubscriptionName(name+"-"+b.suffix))
	if err != nil {
		return nil, err
	}
	b.closings = append(b.closings, p.close)
	return p, nil
}

// Keep makes a pull subscription by its short name, for clients of the protocol. Nothing is forgotten but the oldest of
// more than 10,000 messages in this process.
func (b *Broker) Keep(ctx context.Context, topic, name string) error {
	if b.server != nil {
		b.server.keep(b.TopicName(topic), b.SubscriptionName(name))
		return nil
	}
	_, err := b.subs.CreateSubscription(ctx, &pubsubpb.Subscription{Name: b.SubscriptionName(name), Topic: b.TopicName(topic)})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("creating the subscription %s: %w", name, err)
	}
	return nil
}

// Publish publishes to a topic by its full name.
func (b *Broker) Publish(ctx context.Context, topic string, m dispatch.Message) error {
	_, err := b.topics.Publish(ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{{
		Data: m.Data, Attributes: m.Attributes, OrderingKey: m.OrderingKey,
	}}})
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", topic, err)
	}
	return nil
}

// SetOutage makes the server in this process answer UNAVAILABLE to publishers, or ends that. It reports false with an
// emulator, which knows no outage.
func (b *Broker) SetOutage(on bool) bool {
	if !on {
		return b.SetRefusal(nil)
	}
	return b.SetRefusal(status.New(codes.Unavailable, "an outage that was asked for"))
}

// SetRefusal makes the server in this process answer this to publishers, as the service does for instance to who may not
// (https://docs.cloud.google.com/pubsub/docs/reference/error-codes), or ends that with nil. It reports false with an emulator.
func (b *Broker) SetRefusal(answer *status.Status) bool {
	if b.server == nil {
		return false
	}
	b.server.refusal.Store(answer)
	return true
}

// Close ends the server, or deletes the subscriptions that were made on the emulator.
func (b *Broker) Close(ctx context.Context) error {
	var errs []error
	for _, closing := range b.closings {
		errs = append(errs, closing(ctx))
	}
	if b.conn != nil {
		errs = append(errs, b.conn.Close())
	}
	if b.server != nil {
		errs = append(errs, b.server.close())
	}
	return errors.Join(errs...)
}
