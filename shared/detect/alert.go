package detect

import (
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// Alert makes the alert of the match, which e made: its id is new, its time the event's, its fingerprint of the rule's
// grouping fields. The alert keeps e.
func (m Match) Alert(e *event.Event) *event.Alert {
	return alert(m.Rule, e, m.Group, []string{e.ID}, e.Timestamp, e.Timestamp)
}

// Alert makes the alert of the match, which e completed. The alert keeps e; the others that made it are in EventIDs.
func (c Correlated) Alert(e *event.Event) *event.Alert {
	return alert(c.Rule, e, c.incident(), c.EventIDs, c.First, c.Last)
}

// incident is the group without the numbers of processes and sessions: they keep groups apart, and differ between two
// repeats of one incident.
func (c Correlated) incident() []string {
	var values []string
	for i, name := range c.Rule.correlation.groupBy {
		switch name {
		case "process.pid", "ProcessId", "pid", "process.ppid", "ParentProcessId", "ppid",
			"process.session_id", "TerminalSessionId", "ses":
		default:
			values = append(values, c.Group[i])
		}
	}
	return values
}

func alert(r *Rule, e *event.Event, group, ids []string, begin, end time.Time) *event.Alert {
	return &event.Alert{
		ID: event.NewID(), Timestamp: end, Severity: r.Severity,
		RuleID: r.ID, RuleName: r.Title, Description: r.Description,
		Cluster: e.Cluster, NodeName: e.NodeName, PodName: e.PodName, PodNamespace: e.PodNamespace, Workload: e.Workload,
		MITRETactic: r.Tactic(), MITREID: r.Technique(),
		EventIDs: ids, Fingerprint: event.Fingerprint(r.ID, e, group...), Count: 1, FirstSeen: begin, LastSeen: end,
		Event: e,
		Metadata: event.AlertMetadata{
			Source: "apss", RecommendedActions: r.Actions, References: r.References, FalsePositives: r.FalsePositives,
		},
	}
}
