package notify

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestReplayOfWhatADigestStoodFor: a dead letter of an alert that was acknowledged long ago can be replayed, once.
func TestReplayOfWhatADigestStoodFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		p.set(func(_ context.Context, m message) *outcome.Error {
			if m.kind == kindDigest {
				return &outcome.Error{Class: outcome.Permanent, Status: 400, Reason: "invalid_blocks"}
			}
			return nil
		})
		s := start(t, p, func(c *Config) { c.Rate = Rate{PerMinute: 2, Burst: 1} })
		s.done(t, alert(0, "f0", event.High), alert(1, "f1", event.High), alert(2, "f2", event.High))
		s.run(t, 2*time.Minute)
		letters := s.dead.all()
		if len(letters) != 2 {
			t.Fatalf("got %d dead letters, want 2", len(letters))
		}
		for range 2 { // the second time is one that was broken off
			for _, l := range letters {
				time.Sleep(time.Minute)
				if err := s.Handle(t.Context(), envelope.Push{Message: l.Message, ID: "replay"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		lines := p.lines()
		slices.Sort(lines)
		if want := []string{"opened f0 x1 HIGH", "opened f1 x1 HIGH", "opened f2 x1 HIGH"}; !slices.Equal(lines, want) {
			t.Errorf("got %q, want %q", lines, want)
		}
		s.closes(t)
	})
}
