package dispatch

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The service's limits: https://docs.cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions
const (
	minAckDeadline      = 10 * time.Second
	maxAckDeadline      = 600 * time.Second
	maxRetryBackoff     = 600 * time.Second
	minDeliveryAttempts = 5
	maxDeliveryAttempts = 100
)

// Subscription is a push subscription, with the fields that the service has for it.
type Subscription struct {
	Name     string // "projects/<project>/subscriptions/<name>"
	Endpoint string // URL that requests go to
	// AckDeadline is how long the endpoint has for its answer.
	AckDeadline time.Duration
	// MinBackoff and MaxBackoff are the retry policy; both zero: none, a message is tried again as soon as possible.
	MinBackoff, MaxBackoff time.Duration
	// Filter is an expression over attributes; empty takes every message.
	Filter string
	// DeadLetterTopic ("projects/<project>/topics/<name>") takes what was tried MaxDeliveryAttempts times; empty: no
	// dead-letter policy, and requests have no deliveryAttempt.
	DeadLetterTopic     string
	MaxDeliveryAttempts int
}

// Validate reports everything that the service would refuse.
func (s Subscription) Validate() error {
	var errs []error
	refuse := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(format, args...))
	}
	if project, name := s.split(); project == "" || name == "" {
		refuse("subscription name %q: must be projects/<project>/subscriptions/<name>", s.Name)
	}
	if u, err := url.Parse(s.Endpoint); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		refuse("push endpoint %q: must be an http or https URL", s.Endpoint)
	}
	if s.AckDeadline < minAckDeadline || s.AckDeadline > maxAckDeadline {
		refuse("ack deadline %v: must be from %v to %v", s.AckDeadline, minAckDeadline, maxAckDeadline)
	}
	if s.MinBackoff < 0 || s.MinBackoff > maxRetryBackoff {
		refuse("minimum backoff %v: must be from 0s to %v", s.MinBackoff, maxRetryBackoff)
	}
	if s.MaxBackoff < 0 || s.MaxBackoff > maxRetryBackoff {
		refuse("maximum backoff %v: must be from 0s to %v", s.MaxBackoff, maxRetryBackoff)
	}
	if s.MinBackoff > s.MaxBackoff {
		refuse("minimum backoff %v is more than the maximum, %v", s.MinBackoff, s.MaxBackoff)
	}
	if _, err := ParseFilter(s.Filter); err != nil {
		errs = append(errs, err)
	}
	if s.DeadLetterTopic != "" && (s.MaxDeliveryAttempts < minDeliveryAttempts || s.MaxDeliveryAttempts > maxDeliveryAttempts) {
		refuse("%d delivery attempts: must be from %d to %d", s.MaxDeliveryAttempts, minDeliveryAttempts, maxDeliveryAttempts)
	}
	return errors.Join(errs...)
}

func (s Subscription) split() (project, name string) {
	parts := strings.Split(s.Name, "/")
	if len(parts) != 4 || parts[0] != "projects" || parts[2] != "subscriptions" {
		return "", ""
	}
	return parts[1], parts[3]
}
