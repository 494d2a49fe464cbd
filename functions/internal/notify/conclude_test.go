package notify

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// TestSaidToBeOver: an alert that says so ends its incident at once, after its repeats were told; a later alert begins a new
// one.
func TestSaidToBeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		end := func(i int, fingerprint string) *event.Alert {
			a := alert(i, fingerprint, event.High)
			a.Resolved = true
			return a
		}
		s.done(t, end(0, "never begun"))
		s.done(t, alert(1, "f", event.High))
		s.done(t, alert(2, "g", event.High))
		s.done(t, alert(3, "g", event.High))
		s.done(t, end(4, "f"))
		s.done(t, end(4, "f"))
		s.done(t, end(5, "g"))
		s.run(t, 2*time.Second)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "opened g x1 HIGH", "resolved f x1 HIGH")
		if i := p.got()[2].incident; i.Ref != "ref-f" {
			t.Errorf("got reference %q", i.Ref)
		}
		s.done(t, alert(6, "f", event.High))
		s.run(t, 6*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "opened g x1 HIGH", "resolved f x1 HIGH", "opened f x1 HIGH",
			"repeated g x2 HIGH", "resolved g x2 HIGH")
	})
}

// TestOverIsTakenBack: an alert that comes before the end is told keeps the incident open.
func TestOverIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		s.done(t, alert(1, "f", event.High))
		s.done(t, alert(2, "f", event.High)) // its count waits for the window
		over := alert(3, "f", event.High)
		over.Resolved = true
		s.done(t, over)
		s.done(t, alert(4, "f", event.High))
		s.run(t, 6*time.Minute)
		wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x3 HIGH")
	})
}

// TestEndOfNothing: an end without a fingerprint ends nothing, and does not come again for ever.
func TestEndOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &people{}
		s := start(t, p, nil)
		a := alert(0, "", event.High)
		a.Resolved = true
		s.done(t, a)
		wantLines(t, &p.inbox)
		s.closes(t)
	})
}
