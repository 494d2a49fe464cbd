package forward

import (
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/outcome"
)

const (
	firstHold = time.Second
	lastHold  = time.Minute
	// longestAfter bounds what a receiver may ask for: Pub/Sub's own backoff ends at 600 s
	// (cloud.google.com/pubsub/docs/handling-failures#exponential_backoff).
	longestAfter = 10 * time.Minute
)

// hold is a time in which the receiver is not called, because it said so or refused our credentials. Without a time
// given by the receiver it doubles from a second to a minute, until a call succeeds.
type hold struct {
	mu    sync.Mutex
	until time.Time
	next  time.Duration // the next hold's length when the receiver does not say
	cause outcome.Error
}

// active returns why the receiver may not be called at now, with After set to what is left; nil when it may.
func (h *hold) active(now time.Time) *outcome.Error {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := h.until.Sub(now)
	if left <= 0 {
		return nil
	}
	e := h.cause
	e.After = left
	return &e
}

// note takes what a call came to, and returns the length of the hold that it began, or 0.
func (h *hold) note(now time.Time, e *outcome.Error) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case e == nil || e.Class == outcome.Partial || e.Class == outcome.Split:
		if !now.Before(h.until) { // not the late answer of a call that began before the hold
			h.next = 0
		}
		return 0
	case e.Class == outcome.Auth, e.Class == outcome.Retry && (e.After > 0 || e.Status == statusSlowDown):
	default:
		return 0
	}
	length := min(e.After, longestAfter)
	if length <= 0 {
		if now.Before(h.until) { // a call that ran beside the one that began the hold
			return 0
		}
		length = max(h.next, firstHold)
		h.next = min(2*length, lastHold)
	}
	if end := now.Add(length); end.After(h.until) {
		h.until, h.cause = end, *e
		return length
	}
	return 0
}

// statusSlowDown is 429.
const statusSlowDown = 429
