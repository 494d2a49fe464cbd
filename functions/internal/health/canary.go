package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// canaryAttribute marks a canary with the time at which it was sent. It is an extension attribute of CloudEvents, so that
// it passes where only ours do: unwrapped pushes, dead letters.
const canaryAttribute = "ce-canary"

// canaryRecord is the newest canary that came out.
type canaryRecord struct {
	Sent    time.Time `json:"sent,omitzero"`
	Arrived time.Time `json:"arrived,omitzero"`
}

// sender is who sends canaries, as an agent's id.
const sender = "apss/health"

// sendCanaries publishes one at each topic.
func (h *Health) sendCanaries(ctx context.Context) error {
	now := time.Now().UTC()
	e := &event.Event{
		ID: event.NewID(), AgentID: sender, Type: event.IntegrationTest, Severity: event.Info, Timestamp: now,
		Metadata: map[string]any{"canary": true},
	}
	var b envelope.Batch
	b.Append(e)
	source := envelope.Source{AgentID: sender}
	a := &event.Alert{
		ID: event.NewID(), Timestamp: now, Severity: event.Info, RuleID: "APSS-CANARY", RuleName: "Canary",
		Description: "Nothing happened. This message is sent to see that alerts arrive.", EventIDs: []string{e.ID},
		Fingerprint: event.Fingerprint("APSS-CANARY", e), Count: 1, FirstSeen: now, LastSeen: now, Event: e,
		Metadata: event.AlertMetadata{Source: "apss"},
	}
	var errs []error
	for topic, m := range map[string]envelope.Message{Events: b.Seal(source, now), Alerts: envelope.SealAlert(a, source, now)} {
		m.Attributes[canaryAttribute] = now.Format(time.RFC3339Nano)
		if err := h.cfg.Publish(ctx, topic, m); err != nil {
			errs = append(errs, fmt.Errorf("sending a canary: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Canaries takes the canaries out of the pushes to an integration, so that handle never gets one. When the integration
// opted in, send brings a marked message to the receiver, and what comes of it is the push's answer; else the canary ends
// here. One that is late ends here as well: a newer one is on its way, and after an outage all would come at once.
func (h *Health) Canaries(integration, topic string, optedIn bool, send func(context.Context) error,
	handle func(context.Context, envelope.Push) error,
) func(context.Context, envelope.Push) error {
	return func(ctx context.Context, p envelope.Push) error {
		mark := p.Attributes[canaryAttribute]
		if mark == "" {
			return handle(ctx, p)
		}
		sent, _ := time.Parse(time.RFC3339Nano, mark) // zero when it is no time: long ago
		if !optedIn || time.Since(sent) > 2*h.cfg.CanaryEvery {
			return nil
		}
		if err := send(ctx); err != nil {
			return err
		}
		err := change(ctx, h.cfg.State, canaries, integration+" "+topic, func(c *canaryRecord) error {
			if sent.After(c.Sent) {
				*c = canaryRecord{Sent: sent, Arrived: time.Now()}
			}
			return nil
		})
		if err != nil {
			h.cfg.Log.WarnContext(ctx, "a canary's arrival could not be kept", "integration", integration, "topic", topic, "error", err.Error())
		}
		return nil
	}
}
