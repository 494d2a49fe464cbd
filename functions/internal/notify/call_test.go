package notify

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestTimeOfACall is the integration's to limit: some of the receivers need longer than others.
func TestTimeOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{}
		p.set(func(ctx context.Context, _ message) *outcome.Error {
			select {
			case <-time.After(25 * time.Second):
				return nil
			case <-ctx.Done():
				return &outcome.Error{Class: outcome.Retry, Reason: "given up", Err: ctx.Err()}
			}
		})
		s := start(t, p, nil)
		s.done(t, alert(1, "f", event.High))
		wantLines(t, &p.inbox, "alert "+alert(1, "", 0).ID)
		s.closes(t)
	})
}

// TestPartlyAccepted: a message that only some of the recipients got is delivered, and stands among the failures.
func TestPartlyAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		p.set(always(&outcome.Error{
			Class: outcome.Partial, Reason: "1 of 2 recipients", Rejected: []outcome.Rejection{{ID: "b@example.com", Reason: "550 unknown"}},
		}))
		s := start(t, p, nil)
		s.done(t, alert(1, "f", event.High))
		if got := s.Stats(); got.Sent != 1 || got.Messages != 1 || got.Failures[outcome.Partial] != 1 {
			t.Errorf("got %+v, want it sent and a partial failure", got)
		}
		s.closes(t)
	})
}
