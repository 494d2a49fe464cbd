package webhook

import (
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// samples are alerts of each shape that a template meets: about a process and its connection, about a file, about neither.
// Their texts have in them what breaks a JSON string that was put together by hand.
func samples() []sample {
	const hard = "it's \"quoted\" \\ and\nof two lines"
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	alert := func(e *event.Event) *event.Alert {
		return &event.Alert{
			ID: event.NewID(), Timestamp: at, Severity: event.High, RuleID: "APSS-000", RuleName: hard, Description: hard,
			Cluster: "cluster", NodeName: "node", PodName: "pod", PodNamespace: "namespace", Workload: "Deployment/workload",
			MITRETactic: "Execution", MITREID: "T1059", EventIDs: []string{event.NewID()}, Fingerprint: "0123456789abcdef", Count: 1,
			FirstSeen: at, LastSeen: at, Event: e,
			Metadata: event.AlertMetadata{Source: "apss", RecommendedActions: []string{hard}, References: []string{"https://example.com/"}},
		}
	}
	of := func(t event.Type) *event.Event {
		return &event.Event{ID: event.NewID(), AgentID: "cluster/node", Type: t, Severity: event.High, Timestamp: at, Metadata: map[string]any{"note": hard}}
	}
	connection, file := of(event.NetworkConnect), of(event.FileModify)
	connection.Container = &event.Container{ID: "0", Name: "container", Image: "image"}
	connection.Process = &event.Process{PID: 2, PPID: 1, Exe: "/bin/sh", Cmdline: hard, Args: []string{hard}, Parent: &event.Ancestor{PID: 1, Exe: "/init"}}
	connection.Network = &event.Network{Protocol: "tcp", Direction: "outbound", DstIP: "192.0.2.1", DstPort: 443}
	file.File = &event.File{Path: "/etc/passwd", Operation: "modify", Diff: hard}
	return []sample{{"about a connection", alert(connection)}, {"about a file", alert(file)}, {"without an event", alert(nil)}}
}

type sample struct {
	about string
	alert *event.Alert
}
