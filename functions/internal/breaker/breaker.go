// Package breaker keeps callers from a receiver that cannot serve them.
package breaker

import "time"

// State is whether the receiver is called.
type State uint8

// The states.
const (
	Closed   State = iota // it is called
	Open                  // it is not called until the pause is over
	HalfOpen              // one call at a time finds out whether it is well again
)

// Status is what is known of a receiver from the calls to it.
type Status struct {
	State       State
	Reason      string    // why it is not Closed, in words; no secret
	Retry       time.Time // when the next call may be made; zero when Closed
	LastSuccess time.Time // zero: none yet
	LastFailure time.Time // likewise
	LastError   string    // of the last failure, in words; no secret
}
