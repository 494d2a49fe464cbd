// Package integration is the contract between the functions and the receivers they deliver to.
//
// An integration maps what happened at its receiver to an [outcome.Error] and nothing more: it never retries, sleeps or
// keeps a queue. The core does the rest: routing, duplicates, grouping, rate limits, backoff, Retry-After, bisecting a
// refused batch, dead letters, metrics. Every integration passes the suite in integrationtest.
//
// There are receivers for programs and for people. A program (Sweet Security, a webhook) is a [Notifier]: it gets every
// alert. People get incidents ([IncidentNotifier]): the first alert of a fingerprint at once, its repeats as a count in
// one message, and its end.
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

// Notifier is an integration that takes alerts one by one.
type Notifier interface {
	// SendAlert hands one alert to the receiver. It must not change a.
	SendAlert(ctx context.Context, a *event.Alert) error
}

// IncidentNotifier is an integration for people.
type IncidentNotifier interface {
	// SendIncident tells the receiver of a change of i. It returns the reference by which the receiver knows the incident
	// from then on, "" when it has none; the core hands the last one back in later changes. (It changes when a person
	// deleted the message that would have been edited.) It must not change the alert.
	SendIncident(ctx context.Context, i Incident) (ref string, err error)
	// SendDigest tells of many incidents at once, in one message. It must not change the alerts.
	SendDigest(ctx context.Context, d Digest) error
}

// Change is what happened to an incident.
type Change uint8

// The changes.
const (
	Opened   Change = iota + 1 // its first alert
	Repeated                   // more of the same: Count has grown
	Resolved                   // quiet for the resolve time, or a person's agent came back
)

// Incident is the alerts of one fingerprint, as far as they are known.
type Incident struct {
	Change Change
	// Alert is the first of those with the highest severity. Its Count, FirstSeen and LastSeen are its own: of the
	// incident those below are right.
	Alert       *event.Alert
	Fingerprint string
	Count       int64 // events that the alerts stand for, at least 1
	FirstSeen   time.Time
	LastSeen    time.Time
	Ref         string // see SendIncident
	Test        bool   // sent by a person to try the way: say so in the message
}

// MaxDigest is how many incidents any receiver can list in a digest: a line each is within the smallest limit, Discord's
// description of 4,096 characters (https://discord.com/developers/docs/resources/message#embed-object-embed-limits).
const MaxDigest = 50

// Digest stands for incidents that a receiver's rate limit would not let through one by one.
type Digest struct {
	From, To  time.Time
	Incidents []Incident // most severe first, at most MaxDigest
	More      int        // incidents beyond those, all listed in the function's log
	Alerts    int64      // of all of them
}

// Tester is an integration that knows a better test than a marked alert by the usual way.
type Tester interface {
	Test(ctx context.Context) (Receipt, error)
}

// Receipt is what a receiver said to a test.
type Receipt struct {
	Latency time.Duration
	Status  int    // of HTTP, 0 where there is none
	Answer  string // an excerpt for a person, without secrets
}
