// Package integrationtest is the conformance suite of integrations: [Run] shows an integration a receiver that answers
// with everything a receiver can answer, and checks that what happened is mapped to an outcome, in time, and without the
// secret in any error or log line. What it sends is checked with events, alerts and incidents full of hostile strings.
package integrationtest

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Secret is what the integration under test is given as its credential. It looks like nothing else, and is of the 32
// letters and digits that a routing key of PagerDuty must have.
const Secret = "s3cr3tZm9vYmFyD0notPrintMe2Anyon" //nolint:gosec // it is the one that may be seen

// Subject is an integration under test.
type Subject struct {
	// New makes the integration with Secret as its credential, against a receiver at url, with log for what it logs. Its
	// time limit for a call must be above a second.
	New func(t *testing.T, url string, log *slog.Logger) integration.Integration
	// Accept is the receiver as its vendor documents it, when it takes what it is sent. Nil answers 200 without a body.
	Accept http.HandlerFunc
	// Vague is the outcome of a 2xx whose body is not that of Accept. The zero value is for receivers whose status alone
	// says that they accept; a receiver with a word of its own is not believed without it (Retry).
	Vague outcome.Class
	// Classes are the outcomes of statuses where they differ from the usual ones, see usual.
	Classes map[int]outcome.Class
	// CheckClasses are those of Check where they differ from Classes.
	CheckClasses map[int]outcome.Class
	// IDs reads the ids of the events in a request's body, in their order. For an [integration.EventSink].
	IDs func(body []byte) ([]string, error)
	// Inspect says what is wrong with a request that tells of an alert, an incident or a digest: its form, the receiver's
	// limits, markup or mentions that came in with a string. For an [integration.Notifier] or [integration.IncidentNotifier].
	Inspect func(r *http.Request, body []byte) error
}

// usual is what a status comes to at most receivers.
func usual(status int) outcome.Class {
	switch {
	case status >= 200 && status < 300:
		return outcome.OK
	case status == 401, status == 403:
		return outcome.Auth
	case status == 400, status == 413, status == 422:
		return outcome.Split
	default:
		return outcome.Retry
	}
}

// OneMessage are the Classes of a receiver that takes one message a call, see package jsonapi.
func OneMessage() map[int]outcome.Class {
	return map[int]outcome.Class{
		400: outcome.Permanent, 413: outcome.Permanent, 422: outcome.Permanent, 404: outcome.Auth, 410: outcome.Auth,
	}
}

func (s Subject) class(status int) outcome.Class {
	if c, ok := s.Classes[status]; ok {
		return c
	}
	if status >= 200 && status < 300 {
		return s.Vague
	}
	return usual(status)
}

// accept is the receiver that takes everything.
func (s Subject) accept() http.HandlerFunc {
	if s.Accept != nil {
		return s.Accept
	}
	return func(http.ResponseWriter, *http.Request) {}
}

// Run runs the suite: for Check, and for everything that the integration can send.
func Run(t *testing.T, s Subject) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	probe := s.New(t, "http://127.0.0.1:1", quiet)
	operations := []operation{{"Check", func(ctx context.Context, i integration.Integration) error {
		_, err := i.Check(ctx)
		return err
	}}}
	if _, ok := probe.(integration.EventSink); ok {
		operations = append(operations, operation{"SendEvents", func(ctx context.Context, i integration.Integration) error {
			return i.(integration.EventSink).SendEvents(ctx, Events(3))
		}})
		t.Run("SendEvents/payload", s.payload)
	}
	messages := s.messages(t, probe)
	for _, o := range messages {
		t.Run(o.name+"/message", func(t *testing.T) { s.message(t, o) })
	}
	for _, o := range append(operations, canonical(messages)...) {
		t.Run(o.name, func(t *testing.T) {
			b := bench{Subject: s, do: o.do}
			if o.name == "Check" {
				b.Classes = map[int]outcome.Class{}
				maps.Copy(b.Classes, s.Classes)
				maps.Copy(b.Classes, s.CheckClasses)
			}
			t.Run("status", b.statuses)
			t.Run("retry-after", b.retryAfter)
			t.Run("connection", b.connections)
			t.Run("hang", b.hang)
			t.Run("redirect", b.redirects)
			t.Run("answer", b.answers)
			t.Run("cancelled", b.cancelled)
			t.Run("concurrent", b.concurrent)
		})
	}
}

// operation is one thing that an integration does.
type operation struct {
	name string
	do   func(context.Context, integration.Integration) error
}

// bench runs one operation of a subject.
type bench struct {
	Subject
	do func(context.Context, integration.Integration) error
}

// against runs the operation against a receiver and returns what it came to. It fails the test when the secret shows in
// the error or the log.
func (b bench) against(ctx context.Context, t *testing.T, receiver http.Handler) *outcome.Error {
	t.Helper()
	url, stop := serve(receiver)
	defer stop()
	return b.at(ctx, t, url)
}

// serve starts a receiver below a path of its own. What comes elsewhere is not of the test: a port that one process
// closes, to see what happens when it is called, is soon the port of another process's receiver.
func serve(receiver http.Handler) (url string, stop func()) {
	path := "/" + event.NewID()
	server := httptest.NewServer(http.StripPrefix(path, receiver))
	return server.URL + path, server.Close
}

func (b bench) at(ctx context.Context, t *testing.T, url string) *outcome.Error {
	t.Helper()
	var log syncBuffer
	err := b.do(ctx, b.New(t, url, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	noSecret(t, "the log", log.String())
	if err == nil {
		return nil
	}
	noSecret(t, "the error", err.Error())
	e := outcome.From(err)
	noSecret(t, "the reason", e.Reason)
	for _, r := range e.Rejected {
		noSecret(t, "a rejection", r.Reason)
	}
	if e.Class == outcome.OK {
		t.Errorf("got an error of class ok: %v", err)
	}
	return e
}

// want fails the test unless e is of class c.
func want(t *testing.T, e *outcome.Error, c outcome.Class) {
	t.Helper()
	got := outcome.OK
	if e != nil {
		got = e.Class
	}
	if got != c {
		t.Errorf("got %v (%v), want %v", got, e, c)
	}
}

func noSecret(t *testing.T, where, s string) {
	t.Helper()
	if strings.Contains(s, Secret) {
		t.Errorf("%s holds the secret: %s", where, s)
	}
}

// Events are n small events of different ids.
func Events(n int) []event.Raw {
	events := make([]event.Raw, n)
	for i := range events {
		events[i] = event.Raw(`{"id":"` + event.NewID() + `","type":"integration_test"}`)
	}
	return events
}

// syncBuffer is a bytes.Buffer for concurrent writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
