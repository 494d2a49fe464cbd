package deadletter

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/shared/envelope"
)

// Kept is a letter as it lies in the dead letters' subscription.
type Kept struct {
	Letter
	ID        string    // of the message that the letter is; Letter.MessageID is that of the one given up
	Time      time.Time // when it was given up
	Truncated bool      // the end of its data had to give way, or attributes had: it is not whole

	ack string
}

// Box reads letters from a subscription of their topic. What it reads is held for [Hold], and nobody else gets it
// meanwhile; [Box.Return] gives it back, [Box.Remove] takes it out for good. It is for one reader at a time.
type Box struct {
	client       *pubsub.Client
	subscription string // full name
}

// Hold is how long a letter is held that was read, the longest that Pub/Sub allows
// (cloud.google.com/pubsub/docs/lease-management).
const Hold = 600 * time.Second

// OpenBox returns the box of a subscription, an id in the client's project or a full name.
func OpenBox(c *pubsub.Client, subscription string) *Box {
	if !strings.Contains(subscription, "/") {
		subscription = "projects/" + c.Project() + "/subscriptions/" + subscription
	}
	return &Box{client: c, subscription: subscription}
}

const (
	perPull = 100
	// pullTimeout bounds one look; with nothing there Pub/Sub waits a while before it says so.
	pullTimeout = 5 * time.Second
	// emptyLooks in a row mean that there is nothing more: Pub/Sub may return fewer than there are, even none
	// (cloud.google.com/pubsub/docs/pull#unary_pull).
	emptyLooks = 2
	// mostHeld letters are looked at in one reading: all of them are held until its end.
	mostHeld = 20_000
)

// Read reads at most limit letters that match wants, and holds them; all others are given back. More reports whether the
// limit, or that of what is looked at, ended it. On an error what was read is given back.
func (b *Box) Read(ctx context.Context, limit int, match func(*Kept) bool) (found []Kept, more bool, err error) {
	var others []Kept
	defer func() {
		if err != nil {
			others, found = append(others, found...), nil
		}
		err = errors.Join(err, b.Return(context.WithoutCancel(ctx), others...))
	}()
	for empty := 0; empty < emptyLooks; {
		messages, err := b.pull(ctx)
		if err != nil {
			return found, false, err
		}
		if len(messages) == 0 {
			empty++
			continue
		}
		empty = 0
		for _, m := range messages {
			k := read(m)
			if len(found) < limit && match(&k) {
				found = append(found, k)
			} else {
				more = more || len(found) >= limit && match(&k)
				others = append(others, Kept{ack: k.ack})
			}
		}
		if more = more || len(found)+len(others) >= mostHeld; more {
			break
		}
	}
	return found, more, nil
}

func (b *Box) pull(ctx context.Context) ([]*pubsubpb.ReceivedMessage, error) {
	look, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	r, err := b.client.SubscriptionAdminClient.Pull(look, &pubsubpb.PullRequest{Subscription: b.subscription, MaxMessages: perPull})
	switch {
	case err == nil:
	case ctx.Err() == nil && (status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)):
		return nil, b.reachable(ctx) // nothing there, or nobody
	case status.Code(err) == codes.NotFound:
		return nil, fmt.Errorf("there is no subscription %s: make one on the topic of dead letters, or name yours: %w", b.subscription, err)
	default:
		return nil, fmt.Errorf("reading dead letters from %s: %w", b.subscription, err)
	}
	ids := make([]string, len(r.GetReceivedMessages()))
	for i, m := range r.GetReceivedMessages() {
		ids[i] = m.GetAckId()
	}
	return r.GetReceivedMessages(), b.hold(ctx, Hold, ids)
}

// reachable tells an empty subscription, which lets one wait, from a Pub/Sub that is not there: it asks what is answered at
// once. Which answer does not matter, since no such letter is held.
func (b *Box) reachable(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	err := b.client.SubscriptionAdminClient.ModifyAckDeadline(asking, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: b.subscription, AckIds: []string{"none"},
	})
	switch code := status.Code(err); {
	case err == nil, code == codes.InvalidArgument, code == codes.NotFound:
		return nil
	case code == codes.DeadlineExceeded || code == codes.Unavailable || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("Pub/Sub does not answer; it is not known what is in %s: %w", b.subscription, err)
	}
	return fmt.Errorf("reading dead letters from %s: %w", b.subscription, err)
}

func (b *Box) hold(ctx context.Context, d time.Duration, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	err := b.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
		Subscription: b.subscription, AckIds: ids, AckDeadlineSeconds: int32(d / time.Second),
	})
	if err != nil {
		return fmt.Errorf("holding dead letters of %s: %w", b.subscription, err)
	}
	return nil
}

// Return gives letters back, so that they can be read again.
func (b *Box) Return(ctx context.Context, letters ...Kept) error {
	for len(letters) > 0 {
		n := min(len(letters), perPull)
		ids := make([]string, n)
		for i, k := range letters[:n] {
			ids[i] = k.ack
		}
		if err := b.hold(ctx, 0, ids); err != nil {
			return err
		}
		letters = letters[n:]
	}
	return nil
}

// Remove takes a letter out for good.
func (b *Box) Remove(ctx context.Context, k *Kept) error {
	err := b.client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: b.subscription, AckIds: []string{k.ack}})
	if err != nil {
		return fmt.Errorf("removing the dead letter %s: %w", k.ID, err)
	}
	return nil
}

// Pub/Sub's own dead-letter policy puts messages here as well, with attributes of its own
// (cloud.google.com/pubsub/docs/handling-failures#how_dead_letter_topics_work).
const (
	theirSubscription = "CloudPubSubDeadLetterSourceSubscription"
	theirCount        = "CloudPubSubDeadLetterSourceDeliveryCount"
)

// subscriptionPattern is how our subscriptions are named.
var subscriptionPattern = regexp.MustCompile(`^(?:.*/)?apss-(events|alerts)-([a-z0-9-]+)$`)

// read is a message as the letter that it is.
func read(m *pubsubpb.ReceivedMessage) Kept {
	theirs := map[string]string{}
	ours := func(key string) string { return m.GetMessage().GetAttributes()["apss-"+key] }
	for k, v := range m.GetMessage().GetAttributes() {
		if !strings.HasPrefix(k, "apss-") && !strings.HasPrefix(k, "CloudPubSubDeadLetterSource") {
			theirs[k] = v
		}
	}
	k := Kept{
		Letter: Letter{
			Message:     envelope.Message{Data: m.GetMessage().GetData(), Attributes: theirs},
			Integration: ours("integration"), Topic: ours("topic"), Subscription: ours("subscription"), MessageID: ours("message-id"), Reason: ours("reason"),
		},
		ID: m.GetMessage().GetMessageId(), Time: m.GetMessage().GetPublishTime().AsTime(),
		Truncated: ours("data-bytes") != "" || ours("attributes-dropped") != "",
		ack:       m.GetAckId(),
	}
	k.Status, _ = strconv.Atoi(ours("receiver-status")) // 0 where there is none
	k.DeliveryAttempt, _ = strconv.Atoi(ours("delivery-attempt"))
	if at, err := time.Parse(time.RFC3339Nano, ours("time")); err == nil {
		k.Time = at
	}
	if s := m.GetMessage().GetAttributes()[theirSubscription]; s != "" && k.Reason == "" {
		k.Subscription = s
		k.DeliveryAttempt, _ = strconv.Atoi(m.GetMessage().GetAttributes()[theirCount])
		k.Reason = fmt.Sprintf("Pub/Sub gave it up after %d deliveries", k.DeliveryAttempt)
		if parts := subscriptionPattern.FindStringSubmatch(s); parts != nil {
			k.Topic, k.Integration = parts[1], parts[2]
		}
	}
	return k
}
