package notify

import (
	"context"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Test sends a marked test to the receiver by the real way, and returns what it said: the integration's own test, else a
// marked alert or an incident with its end. It is made also while the breaker is open, which is left as it is. The error
// is an *[outcome.Error].
func (n *Notify) Test(ctx context.Context) (integration.Receipt, error) {
	if !n.begin() {
		return integration.Receipt{}, &outcome.Error{Class: outcome.Retry, Reason: "the function is ending"}
	}
	defer n.wg.Done()
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Deliver)
	defer cancel()
	if err := n.gate.enter(ctx, event.Critical); err != nil {
		return integration.Receipt{}, &outcome.Error{Class: outcome.Retry, Reason: "no time left for a call", Err: err}
	}
	defer n.gate.leave()
	return integration.Try(ctx, n.cfg.To, n.sendTest)
}

// sendTest sends a marked alert, or an incident with its end.
func (n *Notify) sendTest(ctx context.Context) (err error) {
	a := testAlert(n.cfg.Name, time.Now().UTC())
	if n.people == nil {
		return n.programs.SendAlert(ctx, a)
	}
	i := integration.Incident{
		Change: integration.Opened, Alert: a, Fingerprint: a.Fingerprint, Count: 1, FirstSeen: a.FirstSeen, LastSeen: a.LastSeen, Test: true,
	}
	if i.Ref, err = n.people.SendIncident(ctx, i); err != nil {
		return err
	}
	i.Change = integration.Resolved
	_, err = n.people.SendIncident(ctx, i)
	return err
}

// testAlert is an alert that says of itself that it is a test.
func testAlert(name string, now time.Time) *event.Alert {
	e := &event.Event{
		ID: event.NewID(), AgentID: "apss/functions", Type: event.IntegrationTest, Severity: event.Info, Timestamp: now,
		Metadata: map[string]any{"integration": name},
	}
	return &event.Alert{
		ID: event.NewID(), Timestamp: now, Severity: event.Info, RuleID: "APSS-TEST", RuleName: "Test of an integration",
		Description: "This is a test: somebody asked whether alerts arrive here. Nothing happened and nothing is to be done.",
		EventIDs:    []string{e.ID}, Fingerprint: event.Fingerprint("APSS-TEST", e, name, e.ID), Count: 1, FirstSeen: now, LastSeen: now,
		Event: e, Metadata: event.AlertMetadata{Source: "apss"},
	}
}

// Canary is Test for a machine that asks again and again: it is not made while the breaker is open.
func (n *Notify) Canary(ctx context.Context) error {
	if e := n.breaker.Ready(time.Now()); e != nil {
		return e
	}
	_, err := n.Test(ctx)
	return err
}
