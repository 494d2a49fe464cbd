package system

import (
	"slices"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// Raised is an alert as it was seen on its topic.
type Raised struct {
	Alert *event.Alert
	At    time.Time
}

// raisedLength is how many alerts a Feed keeps.
const raisedLength = 5

func (s *System) alerted(m dispatch.Message) {
	now := time.Now()
	a := s.alertOf(m)
	if a == nil {
		return
	}
	s.publishedAlert(a, now)
	s.Feed.alert(Raised{a, now})
	if s.watch.Alerted != nil {
		s.watch.Alerted(a, now)
	}
}

// alertOf is the alert in m; nil when there is none.
func (s *System) alertOf(m dispatch.Message) *event.Alert {
	a, err := envelope.Message{Data: m.Data, Attributes: m.Attributes}.Alert()
	if err != nil {
		s.logger.Warn("opening an alert", "id", m.ID, "error", err)
		return nil
	}
	return a
}

func (f *Feed) alert(r Raised) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alerts++
	f.raised = append(f.raised[max(0, len(f.raised)-raisedLength+1):], r)
}

// Raised returns the newest alerts, the last one first. They must not be changed.
func (f *Feed) Raised() []Raised {
	f.mu.Lock()
	defer f.mu.Unlock()
	newest := slices.Clone(f.raised)
	slices.Reverse(newest)
	return newest
}
