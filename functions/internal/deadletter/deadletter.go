// Package deadletter publishes what will never be delivered, with the reason, to a Pub/Sub topic of its own. Pub/Sub
// push has no negative acknowledgement that ends a message's life, so the message is kept here and then acknowledged.
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

	"github.com/apss-sensor/apss/shared/envelope"
)

// Limits of a Pub/Sub message, https://cloud.google.com/pubsub/quotas#resource_limits.
const (
	maxAttributes = 100
	maxValue      = 1024 // bytes of an attribute's value
)

// Letter is what is given up, and why.
type Letter struct {
	Message         envelope.Message
	Integration     string // the instance that was to receive it
	Subscription    string
	MessageID       string
	DeliveryAttempt int // 0 when the subscription does not count
	Status          int // HTTP status of the receiver, 0 when it was not asked
	Reason          string
}

// Publisher publishes letters. Safe for concurrent use.
type Publisher struct {
	topic *pubsub.Publisher
	now   func() time.Time
}

// New returns a publisher to topic, an id in the client's project or a full name. One publish takes at most timeout.
func New(c *pubsub.Client, topic string, timeout time.Duration) *Publisher {
	p := c.Publisher(topic)
	p.PublishSettings.Timeout = timeout
	return &Publisher{topic: p, now: time.Now}
}

// Publish publishes l and waits until Pub/Sub confirmed it.
func (p *Publisher) Publish(ctx context.Context, l Letter) error {
	m := &pubsub.Message{Data: l.Message.Data, Attributes: l.attributes(p.now())}
	if _, err := p.topic.Publish(ctx, m).Get(ctx); err != nil {
		return fmt.Errorf("publishing a dead letter to %s: %w", p.topic, err)
	}
	return nil
}

// Close sends what is in hand and ends the publisher.
func (p *Publisher) Close() { p.topic.Stop() }

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
	if room := maxAttributes - len(ours) - 1; len(theirs) > room {
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
