package notify

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestHigherSeverityOfAMessageThatIsGone: the person gets a new message of what became worse.
func TestHigherSeverityOfAMessageThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		s.done(t, alert(0, "f", event.Low))
		p.set(func(_ context.Context, m message) *outcome.Error {
			if m.kind == kindRepeated {
				return &outcome.Error{Class: outcome.Permanent, Status: 400, Reason: "the thread is archived"}
			}
			return nil
		})
		s.done(t, alert(1, "f", event.Critical))
		wantLines(t, &p.inbox, "opened f x1 LOW", "opened f x2 CRITICAL")
		if got := s.dead.all(); len(got) != 0 {
			t.Errorf("got %d dead letters, want none", len(got))
		}
		s.closes(t)
	})
}
