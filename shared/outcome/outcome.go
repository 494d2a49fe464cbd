// Package outcome says what a delivery came to. An integration maps what happened to an outcome; the core decides what
// to do about it.
//
// The zero-effort cases are safe: a nil error is success, and an error that nobody classified is worth another try.
package outcome

import (
	"errors"
	"fmt"
	"time"
)

// Class is the kind of an outcome.
type Class uint8

// The classes.
const (
	OK        Class = iota
	Retry           // trouble that may pass: network, 5xx, 408, 425, 429
	Split           // too large, or refused for its content: a smaller batch may pass
	Permanent       // this item will never be accepted
	Auth            // the receiver does not accept our credentials
	Partial         // accepted, but for the items named in Rejected
)

// String returns the class's name in lower case.
func (c Class) String() string {
	switch c {
	case OK:
		return "ok"
	case Retry:
		return "retry"
	case Split:
		return "split"
	case Permanent:
		return "permanent"
	case Auth:
		return "auth"
	case Partial:
		return "partial"
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}

// Rejection is one item that a receiver did not accept while it accepted others.
type Rejection struct {
	ID     string
	Reason string
}

// Error is an outcome other than OK.
type Error struct {
	Class  Class
	Status int           // HTTP status of the receiver, 0 when it did not answer
	After  time.Duration // how long the receiver asked to wait; 0 when it did not say
	Reason string        // what happened, for a person; no secret
	// Rejected is set for Partial only.
	Rejected []Rejection
	Err      error // the cause, may be nil
}

// Error implements error: "retry: HTTP 503 from host: cause".
func (e *Error) Error() string {
	s := e.Class.String()
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// From returns the outcome that err carries: nil for nil, a Retry for an error that carries none. Of several errors
// joined, the first outcome found by errors.As counts.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Class: Retry, Reason: "unclassified", Err: err}
}
