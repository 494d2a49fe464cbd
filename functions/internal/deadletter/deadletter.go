// Package deadletter publishes what will never be delivered, with the reason, to a Pub/Sub topic of its own. Pub/Sub
// push has no negative acknowledgement that ends a message's life, so the message is kept here and then acknowledged.
//
// A letter is the message with its own attributes and ours, which begin with "apss-": without them it is the message again,
// for the integration and topic that they name.
//
// Promise: Publish returns nil only after Pub/Sub confirmed. The topic must have a subscription, or Pub/Sub drops what
// is published.
package deadletter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/apss-sensor/apss/shared/envelope"
)

// Limits of a Pub/Sub message, https://cloud.google.com/pubsub/quotas#resource_limits.
const (
	maxMessage    = 10_000_000 // bytes of data and attributes
	maxAttributes = 100
	maxValue      = 1024 // bytes of an attribute's value
)

// roomForFraming is what the encoding of a publish request may add to a message: lengths and tags of its parts.
const roomForFraming = 2_000

// Letter is what is given up, and why.
type Letter struct {
	Message         envelope.Message
	Integration     string // the instance that was to receive it
	Topic           string // what was pushed to it, "events" or "alerts": its path, where a replay brings it again
	Subscription    string
	MessageID       string
	DeliveryAttempt int // 0 when the subscription does not count
	Status          int // HTTP status of the receiver, 0 when it was not asked
	Reason          string
}

// Publisher publishes letters, one a request, so that none fails for another's sake. Safe for concurrent use.
type Publisher struct {
	client  *pubsub.Client
	topic   string // full name
	timeout time.Duration
	now     func() time.Time
}

// New returns a publisher to topic, an id in the client's project or a full name. One publish takes at most timeout,
// the client's retries included, and ends with its context.
func New(c *pubsub.Client, topic string, timeout time.Duration) *Publisher {
	if !strings.Contains(topic, "/") {
		topic = "projects/" + c.Project() + "/topics/" + topic
	}
	return &Publisher{client: c, topic: topic, timeout: timeout, now: time.Now}
}

// Publish publishes l and waits until Pub/Sub confirmed it.
func (p *Publisher) Publish(ctx context.Context, l Letter) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	_, err := p.client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
		Topic: p.topic, Messages: []*pubsubpb.PubsubMessage{l.message(p.now())},
	})
	if err != nil {
		return fmt.Errorf("publishing a dead letter to %s: %w", p.topic, err)
	}
	return nil
}

// message is l as it is published. Of a message that was as large as Pub/Sub allows already, the end of its data gives
// way to the reason: whole it would be refused, and come again for ever.
func (l Letter) message(now time.Time) *pubsubpb.PubsubMessage {
	m := &pubsubpb.PubsubMessage{Data: l.Message.Data, Attributes: l.attributes(now)}
	room := maxMessage - roomForFraming
	for k, v := range m.Attributes {
		room -= len(k) + len(v)
	}
	if len(m.Data) > room {
		m.Attributes["apss-data-bytes"] = strconv.Itoa(len(m.Data))
		m.Data = m.Data[:room-len("apss-data-bytes")-len(m.Attributes["apss-data-bytes"])]
	}
	return m
}

// spare is how many attributes may be added to ours later: those that tell of what was left out.
const spare = 2

// attributes are the message's own and ours. Ours win; of too many the message's last in order give way, and their
// number is told.
func (l Letter) attributes(now time.Time) map[string]string {
	ours := map[string]string{
		"apss-reason":       clean(l.Reason),
		"apss-integration":  clean(l.Integration),
		"apss-subscription": clean(l.Subscription),
		"apss-message-id":   clean(l.MessageID),
		"apss-time":         now.UTC().Format(time.RFC3339Nano),
	}
	if l.Topic != "" {
		ours["apss-topic"] = l.Topic
	}
	if l.Status != 0 {
		ours["apss-receiver-status"] = strconv.Itoa(l.Status)
	}
	if l.DeliveryAttempt != 0 {
		ours["apss-delivery-attempt"] = strconv.Itoa(l.DeliveryAttempt)
	}
	theirs := make([]string, 0, len(l.Message.Attributes))
	for k := range l.Message.Attributes {
		// Pub/Sub reserves the prefix and refuses a publish that uses it.
		if _, taken := ours[k]; !taken && !strings.HasPrefix(k, "goog") {
			theirs = append(theirs, k)
		}
	}
	slices.SortFunc(theirs, func(a, b string) int {
		if ca, cb := core(a), core(b); ca != cb {
			if ca {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	if room := maxAttributes - len(ours) - spare; len(theirs) > room {
		ours["apss-attributes-dropped"] = strconv.Itoa(len(theirs) - room)
		theirs = theirs[:room]
	}
	all := maps.Clone(ours)
	for _, k := range theirs {
		all[k] = l.Message.Attributes[k]
	}
	return all
}

// core reports whether an attribute is needed to read the message again.
func core(key string) bool {
	return strings.HasPrefix(key, "ce-") || strings.HasPrefix(key, "content-")
}

// clean makes s one line within Pub/Sub's limit of a value.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	const ellipsis = "..."
	if len(s) <= maxValue {
		return s
	}
	end := maxValue - len(ellipsis)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
