// Package breaker keeps callers from a receiver that asked for a pause, refuses our credentials, is down, or refuses
// everything; and lets one call at a time find out whether it is well again.
//
// What opens it:
//   - a receiver's Retry-After, or 429 without one;
//   - an auth failure: the receivers that ban clients count those (Discord: 10,000 in 10 minutes);
//   - [Config.Failures] retryable failures in a row;
//   - [Config.Refusals] items refused for ever in a row while none was accepted: a wrong URL or a changed format looks
//     like that, and would send the whole stream to the dead letters. What was refused until then is there; afterwards
//     it is one call's items for each pause, and the rest waits in Pub/Sub.
//
// A pause is as long as the receiver asked for, at most 10 minutes; else it doubles from a second to a minute (five, when
// everything is refused) until a call shows that the cause is gone. After it one call is let through, and the next only
// when that one has ended.
//
// sony/gobreaker serves those whose pause is one constant and whose outcomes are two: it has no Retry-After, no pause
// that grows, and tells no cause.
package breaker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/outcome"
)

const (
	firstPause = time.Second
	lastPause  = time.Minute
	// lastRefused is longer: each call then costs its items their delivery.
	lastRefused = 5 * time.Minute
	// longestAfter bounds what a receiver may ask for: Pub/Sub's own backoff ends at 600 s
	// (cloud.google.com/pubsub/docs/handling-failures#exponential_backoff).
	longestAfter = 10 * time.Minute
)

// Config is when a Breaker opens by itself. Both must be at least 1.
type Config struct {
	Failures int // retryable failures in a row
	Refusals int // items refused in a row, none accepted between
}

// State is whether the receiver is called.
type State uint8

// The states.
const (
	Closed   State = iota // it is called
	Open                  // it is not called until the pause is over
	HalfOpen              // one call at a time finds out whether it is well again
)

// String returns the state's name in lower case.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Status is what is known of a receiver from the calls to it.
type Status struct {
	State       State
	Reason      string    // why it is not Closed, in words; no secret
	Retry       time.Time // when the next call may be made; zero when Closed
	LastSuccess time.Time // zero: none yet
	LastFailure time.Time // likewise
	LastError   string    // of the last failure, in words; no secret
}

// Breaker guards one receiver. Safe for concurrent use.
type Breaker struct {
	cfg Config

	mu       sync.Mutex
	open     bool // not Closed: until and cause stand
	probing  bool // a call is under way that decides
	era      int  // grows whenever the breaker opens or closes: a call of an earlier one decides nothing
	until    time.Time
	next     time.Duration // the next pause when the receiver does not say
	cause    outcome.Error // Retry or Auth
	refusing bool          // the cause is that everything is refused
	failures int           // in a row
	refusals int           // likewise, items

	lastSuccess, lastFailure time.Time
	lastError                string
}

// New returns a closed breaker.
func New(c Config) *Breaker { return &Breaker{cfg: c} }

// Ready returns nil when a call may be made now, else why not: an error of class Retry or Auth, its After what is left of
// the pause.
func (b *Breaker) Ready(now time.Time) *outcome.Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready(now)
}

func (b *Breaker) ready(now time.Time) *outcome.Error {
	if !b.open {
		return nil
	}
	e := b.cause
	if e.After = b.until.Sub(now); e.After > 0 {
		return &e
	}
	if b.probing {
		e.After = firstPause
		return &e
	}
	return nil
}

// Call is a call under way.
type Call struct {
	b     *Breaker
	era   int
	probe bool
}

// Begin is Ready, and lets a call begin when it is. The call's End must be called.
func (b *Breaker) Begin(now time.Time) (Call, *outcome.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.ready(now); e != nil {
		return Call{}, e
	}
	b.probing = b.open
	return Call{b: b, era: b.era, probe: b.open}, nil
}

// End says what the call with so many items came to. It returns how long the pause is that began with it, or 0.
func (c Call) End(now time.Time, e *outcome.Error, items int) time.Duration {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	class := outcome.OK
	if e != nil {
		class = e.Class
	}
	switch class {
	case outcome.OK, outcome.Partial:
		b.lastSuccess = now
	case outcome.Split: // says nothing yet: a part of it may pass
	default:
		if !given(e) {
			b.lastFailure, b.lastError = now, e.Error()
		}
	}
	if c.era != b.era { // it began before the breaker opened; all it may still bring is a longer pause
		if class == outcome.Retry && b.open && e.After > 0 {
			b.extend(now, e)
		}
		return 0
	}
	if c.probe {
		b.probing = false
	}
	switch class {
	case outcome.OK, outcome.Partial:
		b.failures, b.refusals = 0, 0
		b.close()
	case outcome.Split:
		b.failures = 0
		if !b.refusing {
			b.close()
		}
	case outcome.Permanent:
		b.failures = 0
		if b.refusals += items; b.refusals >= b.cfg.Refusals {
			return b.trip(now, e, true, fmt.Sprintf("%d refused in a row and nothing accepted", b.refusals))
		}
		b.close()
	case outcome.Auth:
		return b.trip(now, e, false, "the receiver refuses our credentials")
	default:
		return b.retryable(now, e, c.probe)
	}
	return 0
}

// retryable notes a failure that may pass.
func (b *Breaker) retryable(now time.Time, e *outcome.Error, probe bool) time.Duration {
	switch {
	case given(e):
		return 0
	case e.After > 0 || e.Status == http.StatusTooManyRequests:
		return b.trip(now, e, false, "the receiver asked for a pause")
	}
	if b.failures++; probe || b.failures >= b.cfg.Failures {
		return b.trip(now, e, false, fmt.Sprintf("%d failures in a row", b.failures))
	}
	return 0
}

// given reports whether the caller gave the call up, which says nothing of the receiver.
func given(e *outcome.Error) bool { return errors.Is(e.Err, context.Canceled) }

// close lets everybody call again.
func (b *Breaker) close() {
	if b.open {
		b.open, b.refusing, b.next, b.cause = false, false, 0, outcome.Error{}
		b.era++
	}
}

// trip begins a pause.
func (b *Breaker) trip(now time.Time, e *outcome.Error, refusing bool, why string) time.Duration {
	length := min(e.After, longestAfter)
	if length <= 0 {
		last := lastPause
		if refusing {
			last = lastRefused
		}
		length = min(max(b.next, firstPause), last)
		b.next = 2 * length
	}
	class := outcome.Retry
	if e.Class == outcome.Auth {
		class = outcome.Auth
	}
	b.open, b.refusing, b.until = true, refusing, now.Add(length)
	b.cause = outcome.Error{Class: class, Status: e.Status, Reason: why + "; the last: " + e.Reason, Err: e.Err}
	b.era++
	return length
}

// extend lets the pause last as long as e asks for.
func (b *Breaker) extend(now time.Time, e *outcome.Error) {
	if end := now.Add(min(e.After, longestAfter)); end.After(b.until) {
		b.until = end
	}
}

// Status returns what is known at now.
func (b *Breaker) Status(now time.Time) Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{LastSuccess: b.lastSuccess, LastFailure: b.lastFailure, LastError: b.lastError}
	if b.open {
		s.State, s.Reason, s.Retry = HalfOpen, b.cause.Error(), b.until
		if now.Before(b.until) {
			s.State = Open
		}
	}
	return s
}
