package detect

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

const alertRules = `title: Shell
id: R-1
name: shell
description: Someone is in.
references: [https://attack.mitre.org/techniques/T1059/004/]
falsepositives: [A test.]
tags: [attack.execution, attack.t1059.004]
logsource: {category: process_creation}
detection: {s: {process.name: bash}, condition: s}
level: high
apss: {actions: [Isolate the pod.], group-by: [process.exe]}
---
title: Shells
id: R-2
correlation: {type: event_count, rules: [shell], group-by: [process.exe], timespan: 1m, condition: {gte: 2}, generate: true}
level: critical
`

func TestAlert(t *testing.T) {
	set := compile(t, Options{}, alertRules)
	first, second := eventtest.Exec(), eventtest.Exec()
	second.ID, second.Timestamp, second.Process.PID = event.NewID(), first.Timestamp.Add(time.Second), 4343
	matcher, correlator := set.NewMatcher(), set.NewCorrelator(CorrelatorOptions{})
	var alerts []*event.Alert
	for _, e := range []*event.Event{first, second} {
		matches := matcher.Match(e, nil)
		for _, m := range matches {
			alerts = append(alerts, m.Alert(e))
		}
		for _, c := range correlator.Add(e.Timestamp, e, matches, nil) {
			alerts = append(alerts, c.Alert(e))
		}
	}
	if len(alerts) != 3 {
		t.Fatalf("got %d alerts want two of the rule and one of the correlation", len(alerts))
	}
	want := &event.Alert{
		Timestamp: first.Timestamp, Severity: event.High, RuleID: "R-1", RuleName: "Shell", Description: "Someone is in.",
		Cluster: first.Cluster, NodeName: first.NodeName, PodName: first.PodName, PodNamespace: first.PodNamespace,
		Workload: first.Workload, MITRETactic: "Execution", MITREID: "T1059.004", EventIDs: []string{first.ID},
		Fingerprint: event.Fingerprint("R-1", first, "/bin/bash"), Count: 1, FirstSeen: first.Timestamp, LastSeen: first.Timestamp,
		Event: first,
		Metadata: event.AlertMetadata{
			Source: "apss", RecommendedActions: []string{"Isolate the pod."},
			References:     []string{"https://attack.mitre.org/techniques/T1059/004/"},
			FalsePositives: []string{"A test."},
		},
	}
	if diff := cmp.Diff(want, alerts[0], cmpopts.IgnoreFields(event.Alert{}, "ID")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if alerts[1].Fingerprint != alerts[0].Fingerprint || alerts[1].ID == alerts[0].ID {
		t.Errorf("a repeat: got id %s fingerprint %s, before %s %s", alerts[1].ID, alerts[1].Fingerprint, alerts[0].ID, alerts[0].Fingerprint)
	}
	together := alerts[2]
	if diff := cmp.Diff([]string{first.ID, second.ID}, together.EventIDs); diff != "" || together.FirstSeen != first.Timestamp ||
		together.LastSeen != second.Timestamp || together.RuleID != "R-2" || together.Severity != event.Critical {
		t.Errorf("got %+v want the correlation's, over both events", together)
	}
	for _, a := range alerts {
		if err := a.Validate(); err != nil {
			t.Errorf("%s: %v", a.RuleID, err)
		}
	}
}

// What is one incident in two processes has one fingerprint, though its correlation counts each process by itself.
func TestFingerprintOfACorrelationHasNoPid(t *testing.T) {
	for _, name := range []string{"process.pid", "ProcessId", "process.ppid", "ParentProcessId", "process.session_id"} {
		set := compile(t, Options{}, `title: Shell
id: R-1
logsource: {category: process_creation}
detection: {s: {process.name: bash}, condition: s}
---
title: Shells
id: R-2
correlation: {type: event_count, rules: [R-1], group-by: [process.exe, `+name+`], timespan: 1m, condition: {gte: 1}}
`)
		matcher, correlator := set.NewMatcher(), set.NewCorrelator(CorrelatorOptions{})
		var prints []string
		for pid := range int32(2) {
			e := eventtest.Exec()
			e.Process.PID, e.Process.PPID, e.Process.SessionID = 100+pid, 200+pid, 300+uint32(pid)
			for _, c := range correlator.Add(e.Timestamp, e, matcher.Match(e, nil), nil) {
				prints = append(prints, c.Alert(e).Fingerprint)
			}
		}
		want := event.Fingerprint("R-2", eventtest.Exec(), "/bin/bash")
		if diff := cmp.Diff([]string{want, want}, prints); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
