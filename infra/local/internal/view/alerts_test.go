package view

import (
	"strings"
	"testing"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

func raised(now time.Time) []system.Raised {
	summary := &event.Alert{
		Severity: event.High, RuleID: "APSS-048", RuleName: "ssh key added", MITREID: "T1098.004", MITRETactic: "Persistence",
		Count: 7, FirstSeen: now.Add(-90 * time.Second), LastSeen: now, Metadata: event.AlertMetadata{Summary: true},
	}
	hostile := &event.Alert{
		Severity: event.Critical, RuleID: "APSS-001", RuleName: "Reverse\x1b[2J shell", MITREID: "T1059.004", MITRETactic: "Execution",
		Event:    &event.Event{Process: &event.Process{Cmdline: "bash\x1b]0;gotcha\a" + strings.Repeat("日本", 200)}},
		Metadata: event.AlertMetadata{RecommendedActions: []string{"Isolate\u202e the pod.", "Then rest."}},
	}
	return []system.Raised{{Alert: hostile, At: now}, {Alert: summary, At: now}}
}

func TestAlertsAreShown(t *testing.T) {
	before, now := state(t)
	now.Alerts = 9
	text := func() string {
		return strings.Join(Frame(before, now, Style{Width: 120, Height: 90}), "\n")
	}
	if got := text(); !strings.Contains(got, "none yet") {
		t.Errorf("without an alert: got\n%s", got)
	}
	now.Raised = raised(now.At)
	got := text()
	for _, want := range []string{
		"alerts, 9 in all", `CRITICAL  APSS-001 Reverse\x1b[2J shell (T1059.004 Execution): bash\x1b]0;gotcha\a日`,
		`do first: Isolate\u202e the pod.`, "HIGH      APSS-048 ssh key added (T1098.004 Persistence) 7 times in 1m30s",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got no %q in\n%s", want, got)
		}
	}
	want := `ALERT CRITICAL APSS-001 Reverse\x1b[2J shell (T1059.004 Execution): bash`
	if got := AlertLine(now.Raised[0]); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, `do first: Isolate\u202e the pod.`) {
		t.Errorf("got the line %q", got)
	}
}
