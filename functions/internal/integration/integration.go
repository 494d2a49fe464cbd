// Package integration is the contract between the functions and the receivers they deliver to.
//
// An integration maps what happened at its receiver to an [outcome.Error] and nothing more: it never retries, sleeps or
// keeps a queue. The core does the rest: backoff, Retry-After, bisecting a refused batch, dead letters, metrics. Every
// integration passes the suite in integrationtest.
package integration

import (
	"context"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// Integration is a receiver of events or alerts. Its methods may be called concurrently and end soon after their
// context does. No error of theirs holds a secret.
type Integration interface {
	// Check asks the receiver whether it would take what we send, without a visible effect there.
	Check(ctx context.Context) (Status, error)
}

// Status is what a successful check found.
type Status struct {
	Latency time.Duration
	Detail  string // for a person, may be empty
}

// EventSink is an integration that takes events.
type EventSink interface {
	// SendEvents hands events to the receiver in one call. It returns nil when all were accepted, else an error that
	// [outcome.From] reads. It must not change events nor keep them after its request's body was sent.
	SendEvents(ctx context.Context, events []event.Raw) error
}
