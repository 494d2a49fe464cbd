package dispatch

import (
	"math/rand/v2"
	"time"
)

// Source of the figures: https://docs.cloud.google.com/pubsub/docs/push, "Delivery rate" and "Push backoff".
const (
	firstWindow    = 4     // "a small single-digit window size"
	linearFrom     = 3_000 // "after 3,000 outstanding messages ... the window increases linearly"
	minPushBackoff = 100 * time.Millisecond
	maxPushBackoff = 60 * time.Second
	// tolerated is how many failures, less successes, are not yet "too many"; the page gives no figure.
	tolerated = 10
)

// pace decides how many requests may be out at once, and since when again.
type pace struct {
	window   float64
	limit    int           // of the window
	most     time.Duration // of push backoff
	failures int           // less successes, not below zero
	backoff  time.Duration
	until    time.Time // no request starts before
}

func newPace(limit int, most time.Duration) pace {
	return pace{window: firstWindow, limit: limit, most: most}
}

func (p *pace) size() int { return min(int(p.window), p.limit) }

// success opens the window by one, which doubles it in each round of answers; from linearFrom on by one in each round.
func (p *pace) success() {
	if p.window < linearFrom {
		p.window++
	} else {
		p.window += 1 / p.window
	}
	p.window = min(p.window, float64(p.limit))
	p.failures = max(p.failures-1, 0)
	p.backoff = 0
}

// failure halves the window, and after too many of them stops all requests for a time that doubles. What fails during a
// stop was sent before it and does not prolong it.
func (p *pace) failure(now time.Time) {
	p.window = max(p.window/2, 1)
	p.failures++
	if p.failures <= tolerated || now.Before(p.until) {
		return
	}
	p.backoff = min(max(2*p.backoff, minPushBackoff), p.most)
	p.until = now.Add(p.backoff)
}

// retryDelay is the exponential backoff of one message after its attempt-th failure. The service documents "exponential,
// between the minimum and the maximum" and no more: here it doubles, with up to a tenth added so that messages which
// failed together do not come back together.
func (s Subscription) retryDelay(attempt int) time.Duration {
	delay := s.MinBackoff
	for range attempt - 1 {
		if delay >= s.MaxBackoff {
			break
		}
		delay *= 2
	}
	if delay > 0 {
		delay += rand.N(delay/10 + 1) //nolint:gosec // jitter is no secret
	}
	return min(delay, s.MaxBackoff)
}
