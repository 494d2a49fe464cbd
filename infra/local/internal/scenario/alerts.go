package scenario

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/view"
	"github.com/apss-sensor/apss/shared/event"
)

// suspicion is a deed that must be one alert.
type suspicion struct {
	deed, rule, technique string
	about                 func(*event.Event) bool
}

func (s suspicion) fits(a *event.Alert) bool {
	return a.RuleID == s.rule && a.Event != nil && s.about(a.Event)
}

// AlertRow is what came of a deed.
type AlertRow struct {
	Deed         string  `json:"deed"`
	Rule         string  `json:"rule"`
	Name         string  `json:"name"`
	Severity     string  `json:"severity"`
	Technique    string  `json:"technique"`
	Tactic       string  `json:"tactic"`
	Action       string  `json:"recommended_action"`
	Milliseconds float64 `json:"ms"` // from the event to the alert on its topic
	Repeats      int     `json:"repeats_told"`
}

// lines are for a person.
func (r AlertRow) lines() []string {
	line := fmt.Sprintf("  %-8s  %s %s · %s %s\n            %s", r.Severity, r.Rule, r.Name, r.Technique, r.Tactic, r.Deed)
	if r.Repeats > 0 {
		line += fmt.Sprintf("; repeats told: %d", r.Repeats)
	}
	return []string{line, "            do first: " + r.Action}
}

// maxAlerts bounds a run of less than a minute, many times over.
const maxAlerts = 10_000

// alerts follows the topic of alerts. Safe for concurrent use.
type alerts struct {
	mu        sync.Mutex
	byID      map[string]bool
	inOrder   []*event.Alert // each id once: a message may be published twice
	at        []time.Time
	expected  []suspicion
	sealed    []string // ids in the spool of the killed agent
	overflow  int
	happening chan struct{} // closed and replaced at each alert
}

func newAlerts() *alerts { return &alerts{byID: map[string]bool{}, happening: make(chan struct{})} }

func (a *alerts) see(alert *event.Alert, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.byID[alert.ID]:
		return
	case len(a.inOrder) >= maxAlerts:
		a.overflow++
		return
	}
	a.byID[alert.ID] = true
	a.inOrder, a.at = append(a.inOrder, alert), append(a.at, at)
	close(a.happening)
	a.happening = make(chan struct{})
}

// wait waits for an alert that fits.
func (a *alerts) wait(ctx context.Context, fits func(*event.Alert) bool) (*event.Alert, time.Time, error) {
	for {
		a.mu.Lock()
		i, happening := slices.IndexFunc(a.inOrder, fits), a.happening
		if i >= 0 {
			alert, at := a.inOrder[i], a.at[i]
			a.mu.Unlock()
			return alert, at, nil
		}
		a.mu.Unlock()
		select {
		case <-happening:
		case <-ctx.Done():
			return nil, time.Time{}, ctx.Err()
		}
	}
}

// account holds what came against what was to come: for each deed one alert and no second, with technique and
// recommended action, and beside it its event at the receiver, which names the rule.
func (a *alerts) account(events []sighting) (rows []AlertRow, faults []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	delivered := map[string]*sighting{}
	for i := range events {
		if events[i].delivered > 0 {
			delivered[events[i].id] = &events[i]
		}
	}
	if a.overflow > 0 {
		fault("%d alerts were not followed: more than %d", a.overflow, maxAlerts)
	}
	for _, id := range a.sealed {
		if !a.byID[id] {
			fault("alert %s was in the spool of the killed agent and was never published", id)
		}
	}
	for _, s := range a.expected {
		row, found := AlertRow{Deed: s.deed, Rule: s.rule}, 0
		for i, alert := range a.inOrder {
			if !s.fits(alert) {
				continue
			}
			if alert.Metadata.Summary {
				row.Repeats += alert.Metadata.Suppressed
				continue
			}
			if found++; found > 1 {
				fault("%s: alert %s of %s is one too many", s.deed, alert.ID, s.rule)
				continue
			}
			row.Name, row.Severity = view.Printable(alert.RuleName), alert.Severity.String()
			row.Technique, row.Tactic = alert.MITREID, alert.MITRETactic
			row.Milliseconds = float64(a.at[i].Sub(alert.Event.Timestamp).Microseconds()) / 1000
			if do := alert.Metadata.RecommendedActions; len(do) > 0 {
				row.Action = view.Printable(do[0])
			} else {
				fault("%s: the alert of %s says nothing of what to do", s.deed, s.rule)
			}
			if alert.MITREID != s.technique {
				fault("%s: the alert of %s names the technique %q, want %s", s.deed, s.rule, alert.MITREID, s.technique)
			}
			switch e := delivered[alert.Event.ID]; {
			case e == nil:
				fault("%s: the event of the alert of %s did not reach the receiver", s.deed, s.rule)
			case !slices.Contains(e.rules, s.rule) || e.severity < alert.Severity:
				fault("%s: the event of the alert is %s of rules %q, want %s at least and %s", s.deed, e.severity, e.rules, alert.Severity, s.rule)
			}
		}
		if found == 0 {
			fault("%s: there is no alert of %s", s.deed, s.rule)
		}
		rows = append(rows, row)
	}
	return rows, faults
}
