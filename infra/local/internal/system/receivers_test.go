package system

import (
	"testing"

	"github.com/apss-sensor/apss/infra/local/internal/ledger"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/shared/event"
)

// TestWhatMessagesTell: of which incident and how often, whatever else they say.
func TestWhatMessagesTell(t *testing.T) {
	for name, tt := range map[string]struct {
		m    standin.Message
		want ledger.IncidentTotals
	}{
		"chat": {
			standin.Message{Text: "A shell\nAPSS-001 · seen once, 10:00 · Alert a · Fingerprint f · Events e"}, ledger.IncidentTotals{Told: 1, Over: 1},
		},
		"pager":                {standin.Message{Text: "A shell\nfingerprint: f\nseen: seen 1,204 times, first"}, ledger.IncidentTotals{Told: 1204, Over: 1204}},
		"an alert that claims": {standin.Message{Text: "Fingerprint x seen 9 times\nseen 2 times · Fingerprint f"}, ledger.IncidentTotals{Told: 2, Over: 2}},
		"a digest":             {standin.Message{Title: "🔴 1,002 incidents in one message: 1,500 alerts"}, ledger.IncidentTotals{Told: 1500, Over: 1500}},
		"a test":               {standin.Message{Text: TestNote + " to you.\nseen once · Fingerprint f"}, ledger.IncidentTotals{}},
		"something else":       {standin.Message{Text: "hello"}, ledger.IncidentTotals{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Receiver{Incidents: new(ledger.Incidents)}
			new(System).shown(r, tt.m)
			if got := r.Incidents.Totals(); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestWeight(t *testing.T) {
	for _, tt := range []struct {
		a    event.Alert
		want int64
	}{
		{event.Alert{}, 1}, {event.Alert{Count: 3}, 3},
		{event.Alert{Count: 4, Metadata: event.AlertMetadata{Summary: true, Suppressed: 3}}, 3},
	} {
		if got := Weight(&tt.a); got != tt.want {
			t.Errorf("%+v: got %d, want %d", tt.a, got, tt.want)
		}
	}
}
