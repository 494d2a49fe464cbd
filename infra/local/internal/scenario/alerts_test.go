package scenario

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

// TestAccountOfAlerts: whatever can go wrong with the alert of a deed is found.
func TestAccountOfAlerts(t *testing.T) {
	at := time.Unix(0, 0)
	alert := func(id string, change ...func(*event.Alert)) *event.Alert {
		a := &event.Alert{
			ID: id, RuleID: "R-1", RuleName: "Rule", Severity: event.High, MITREID: "T1000", MITRETactic: "Impact",
			Event:    &event.Event{ID: "e", Timestamp: at, File: &event.File{Path: "/a"}},
			Metadata: event.AlertMetadata{RecommendedActions: []string{"Look.", "Then act."}},
		}
		for _, f := range change {
			f(a)
		}
		return a
	}
	summary := func(a *event.Alert) { a.Metadata.Summary, a.Metadata.Suppressed = true, 4 }
	arrived := sighting{id: "e", severity: event.High, rules: []string{"R-1"}, delivered: 1}
	row := AlertRow{
		Deed: "deed", Rule: "R-1", Name: "Rule", Severity: "HIGH", Technique: "T1000", Tactic: "Impact", Action: "Look.", Milliseconds: 7,
	}
	for name, c := range map[string]struct {
		alerts []*event.Alert
		event  sighting
		fault  string // "": none
	}{
		"sealed at the kill":     {[]*event.Alert{alert("1"), alert("2", summary), alert("sealed", func(a *event.Alert) { a.RuleID = "R-2" })}, arrived, ""},
		"lost with the kill":     {[]*event.Alert{alert("1"), alert("2", summary)}, arrived, "alert sealed was in the spool of the killed agent"},
		"as it should be":        {[]*event.Alert{alert("1"), alert("2", summary)}, arrived, ""},
		"published twice":        {[]*event.Alert{alert("1"), alert("1"), alert("2", summary)}, arrived, ""},
		"none":                   {nil, arrived, "there is no alert of R-1"},
		"a summary only":         {[]*event.Alert{alert("2", summary)}, arrived, "there is no alert of R-1"},
		"of another rule":        {[]*event.Alert{alert("1", func(a *event.Alert) { a.RuleID = "R-2" })}, arrived, "there is no alert of R-1"},
		"two":                    {[]*event.Alert{alert("1"), alert("2")}, arrived, "alert 2 of R-1 is one too many"},
		"another technique":      {[]*event.Alert{alert("1", func(a *event.Alert) { a.MITREID = "T1" })}, arrived, `the technique "T1", want T1000`},
		"nothing to do":          {[]*event.Alert{alert("1", func(a *event.Alert) { a.Metadata.RecommendedActions = nil })}, arrived, "nothing of what to do"},
		"its event is elsewhere": {[]*event.Alert{alert("1")}, sighting{id: "e"}, "did not reach the receiver"},
		"its event is low":       {[]*event.Alert{alert("1")}, sighting{id: "e", rules: []string{"R-1"}, delivered: 1}, "the event of the alert is INFO"},
		"its event is unmarked":  {[]*event.Alert{alert("1")}, sighting{id: "e", severity: event.High, delivered: 1}, "of rules []"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAlerts()
			a.expect(suspicion{"deed", "R-1", "T1000", func(e *event.Event) bool { return e.File.Path == "/a" }})
			if strings.Contains(name, "kill") {
				a.sealed = []string{"sealed"}
			}
			for _, one := range c.alerts {
				a.see(one, at.Add(7*time.Millisecond))
			}
			rows, faults := a.account([]sighting{c.event})
			if c.fault == "" {
				want := row
				want.Repeats = 4
				if diff := cmp.Diff([]AlertRow{want}, rows); diff != "" || len(faults) > 0 {
					t.Errorf("got the faults %q, rows (-want +got):\n%s", faults, diff)
				}
				return
			}
			if len(faults) != 1 || !strings.Contains(faults[0], c.fault) {
				t.Errorf("got the faults %q, want %q in one", faults, c.fault)
			}
		})
	}
}
