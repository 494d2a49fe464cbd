// Package publish takes messages out of the agent: to Pub/Sub, to the cluster's relay, or to a person's terminal.
//
// Every publisher has the methods Publish and Close and passes the suite in publishtest:
//
//   - Publish returns nil only when the receiver confirmed the message. It may be called from many goroutines.
//   - It tries for a bounded time and does not queue: retrying is its caller's.
//   - Its errors are outcomes (package outcome). A Permanent one is about this message: it will never be accepted. All
//     others may pass. [ErrGone] in the chain says that no message will ever be accepted again.
//   - The topic follows from the message's ce-type.
package publish

import (
	"errors"
	"fmt"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

// ErrGone says that the receiver went away for good: the reader of a pipe, for instance.
var ErrGone = errors.New("the receiver is gone")

// ErrClosed is the error of Publish after Close.
var ErrClosed = errors.New("the publisher is closed")

func typeOf(m envelope.Message) string { return m.Attributes["ce-type"] }

func unknownType(m envelope.Message) error {
	return &outcome.Error{Class: outcome.Permanent, Reason: fmt.Sprintf("message of unknown ce-type %q", typeOf(m))}
}
