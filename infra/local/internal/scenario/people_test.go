package scenario

import (
	"slices"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/standin/pagerduty"
	"github.com/apss-sensor/apss/shared/event"
)

// TestFaultsOfAnAlert: whatever can go wrong on the way of a deed's alert to its receivers is found.
func TestFaultsOfAnAlert(t *testing.T) {
	a := &event.Alert{
		RuleID: "R-1", RuleName: "Reverse shell", NodeName: "node-7", MITREID: "T1059.004",
		Metadata: event.AlertMetadata{RecommendedActions: []string{"Isolate the pod."}},
	}
	const text = "Reverse shell\nnode-7\nT1059.004\nIsolate the pod.\nseen 3 times"
	whole := func() whereabouts {
		return whereabouts{
			sweet:     1,
			hook:      1,
			messages:  []standin.Message{{Text: text, Edits: 1, Thread: []string{"again"}}},
			incidents: []standin.Message{{Text: text, State: pagerduty.Open}},
		}
	}
	for name, tt := range map[string]struct {
		change    func(*whereabouts)
		published int64
		want      string // "": no fault
	}{
		"as it should be":                  {},
		"an edit came twice, a reply once": {change: func(w *whereabouts) { w.messages[0].Edits = 2 }},
		"once": {change: func(w *whereabouts) {
			w.messages[0] = standin.Message{Text: strings.Replace(text, "3 times", "once", 1)}
			w.incidents[0].Text = w.messages[0].Text
		}, published: 1},
		"nothing at Sweet Security":        {change: func(w *whereabouts) { w.sweet = 0 }, want: "0 times, want once"},
		"twice at Sweet Security":          {change: func(w *whereabouts) { w.sweet = 2 }, want: "2 times, want once"},
		"nothing at the webhook":           {change: func(w *whereabouts) { w.hook = 0 }, want: "the webhook has its alert 0 times"},
		"no message":                       {change: func(w *whereabouts) { w.messages = nil }, want: "Slack shows 0 messages"},
		"told again":                       {change: func(w *whereabouts) { w.messages = append(w.messages, w.messages[0]) }, want: "Slack shows 2 messages"},
		"no place":                         {change: func(w *whereabouts) { w.messages[0].Text = strings.Replace(text, "node-7", "", 1) }, want: `the where "node-7"`},
		"no action":                        {change: func(w *whereabouts) { w.messages[0].Text = strings.Replace(text, "Isolate", "", 1) }, want: "the action"},
		"no count":                         {published: 4, want: `the count "seen 4 times"`},
		"a count without a reply":          {change: func(w *whereabouts) { w.messages[0].Thread = nil }, want: "1 edits and 0 replies"},
		"no incident":                      {change: func(w *whereabouts) { w.incidents = nil }, want: "0 incidents"},
		"two incidents":                    {change: func(w *whereabouts) { w.incidents = append(w.incidents, w.incidents[0]) }, want: "2 incidents"},
		"an incident that is over":         {change: func(w *whereabouts) { w.incidents[0].State = pagerduty.Resolved }, want: "is resolved, want it open"},
		"an incident that was not updated": {change: func(w *whereabouts) { w.incidents[0].Text = "seen once" }, want: "does not say that it was seen 3 times"},
	} {
		t.Run(name, func(t *testing.T) {
			w := whole()
			if tt.change != nil {
				tt.change(&w)
			}
			published := tt.published
			if published == 0 {
				published = 3
			}
			faults := faultsOf(suspicion{deed: "deed"}, a, w, published)
			if tt.want == "" && len(faults) > 0 {
				t.Errorf("got the faults %q, want none", faults)
			}
			if tt.want != "" && !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, "deed: ") && strings.Contains(f, tt.want) }) {
				t.Errorf("got the faults %q, want %q in one", faults, tt.want)
			}
		})
	}
}

func TestExamples(t *testing.T) {
	all := []standin.Message{{ID: "1", Title: "first", Text: "first\nwith more"}, {ID: "2", Title: "second", Text: "second\nwith much more", Edits: 2, Thread: []string{"again"}}}
	got := strings.Join(examples(all), "\n")
	for _, want := range []string{"first", "second  (edited 2×)", "with much more", "↳ again"} {
		if !strings.Contains(got, want) {
			t.Errorf("got no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "with more\n") || len(examples(nil)) != 0 {
		t.Errorf("got more than a title of the first\n%s", got)
	}
}
