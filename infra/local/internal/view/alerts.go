package view

import (
	"fmt"

	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

// alertLines draw the newest alerts, and below the newest what to do first.
func alertLines(now State, st Style) []string {
	lines := []string{st.paint(bold, cut(fmt.Sprintf("alerts, %d in all", now.Alerts), st.Width))}
	if len(now.Raised) == 0 {
		return append(lines, st.paint(dim, cut(" none yet", st.Width)))
	}
	for i, r := range now.Raised {
		head := fmt.Sprintf(" %s  ", r.At.Local().Format("15:04:05.000"))
		severity := pad(r.Alert.Severity.String(), 8)
		lines = append(lines, st.paint(dim, head)+st.paint(severityColor(r.Alert.Severity), severity)+
			cut("  "+AlertEssence(r.Alert), st.Width-len(head)-8))
		if do := r.Alert.Metadata.RecommendedActions; i == 0 && len(do) > 0 {
			lines = append(lines, st.paint(yellow, cut("               do first: "+Printable(do[0]), st.Width)))
		}
	}
	return lines
}

// AlertEssence is an alert in a line: the rule, its technique, what it is about or how often that was.
func AlertEssence(a *event.Alert) string {
	what := ""
	if a.Event != nil {
		what = ": " + Essence(a.Event)
	}
	if a.Metadata.Summary {
		what = fmt.Sprintf(" %d times in %v%s", a.Count, latency(a.LastSeen.Sub(a.FirstSeen)), what)
	}
	return Printable(fmt.Sprintf("%s %s (%s %s)%s", a.RuleID, a.RuleName, a.MITREID, a.MITRETactic, what))
}

// AlertLine is an alert where there is no terminal.
func AlertLine(r system.Raised) string {
	line := "ALERT " + r.Alert.Severity.String() + " " + AlertEssence(r.Alert)
	if do := r.Alert.Metadata.RecommendedActions; len(do) > 0 {
		line += "; do first: " + Printable(do[0])
	}
	return line
}
