package alerting

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func TestAnEventIsMarkedAndMakesAlerts(t *testing.T) {
	r := start(t, Config{Pack: true, Suppression: fiveMinutes()})
	e := exec("/tmp/xmrig")
	alerts := r.evaluate(e)
	slices.Sort(alerts)
	if diff := cmp.Diff([]string{"APSS-002", "APSS-018"}, alerts); diff != "" {
		t.Fatalf("alerts (-want +got):\n%s", diff)
	}
	if e.Severity != event.Critical || !slices.Contains(e.Rules, "APSS-002") || !slices.Contains(e.Rules, "APSS-018") || len(e.Rules) != 2 {
		t.Errorf("got the event %s of rules %v, want CRITICAL of APSS-002 and APSS-018", e.Severity, e.Rules)
	}
	for _, a := range r.told() {
		if err := a.Validate(); err != nil {
			t.Error(err)
		}
		if a.Event != e || len(a.Event.Rules) != 2 || a.Event.Severity != event.Critical {
			t.Errorf("%s: got an alert that does not carry the whole event", a.RuleID)
		}
		if a.PodName != e.PodName || a.PodNamespace != e.PodNamespace || a.Workload != e.Workload || a.Cluster != e.Cluster || a.NodeName != e.NodeName {
			t.Errorf("%s: got an alert of %s/%s, want the event's place", a.RuleID, a.PodNamespace, a.PodName)
		}
		if a.MITREID == "" || a.MITRETactic == "" || len(a.Metadata.RecommendedActions) == 0 || len(a.Metadata.References) == 0 || len(a.Metadata.FalsePositives) == 0 {
			t.Errorf("%s: got %+v, want technique, tactic, actions, references and false positives", a.RuleID, a)
		}
	}
	again := exec("/tmp/xmrig")
	again.Process.PID, again.Process.StartTime = 99, time.Now()
	if got := r.evaluate(again); got != nil {
		t.Errorf("a repeat: got alerts of %v, want it counted", got)
	}
	if len(again.Rules) != 2 || again.Severity != event.Critical {
		t.Errorf("a repeat: got the event %s of rules %v, want it marked all the same", again.Severity, again.Rules)
	}
}

func TestBase(t *testing.T) {
	for _, c := range []struct {
		typ      event.Type
		external bool
		want     event.Severity
	}{
		{event.ProcessExec, false, event.Info}, {event.ProcessExit, false, event.Info}, {event.FileRead, false, event.Info},
		{event.FileModify, false, event.Low}, {event.FileChmod, false, event.Low}, {event.NetworkListen, false, event.Low},
		{event.NetworkConnect, false, event.Info}, {event.NetworkConnect, true, event.Low}, {event.NetworkClose, true, event.Info},
		{event.AgentHeartbeat, false, event.Info},
	} {
		e := &event.Event{Type: c.typ, Network: &event.Network{IsExternal: c.external}}
		r := start(t, Config{})
		r.evaluate(e)
		if e.Severity != c.want || e.Rules != nil {
			t.Errorf("%s, external %v: got %s of rules %v, want %s", c.typ, c.external, e.Severity, e.Rules, c.want)
		}
	}
}

func TestTheSensorsSeverityStands(t *testing.T) {
	r := start(t, Config{Dirs: []string{folder(t, map[string]string{"a.yml": rule("T-1", "bash", "low")})}})
	for _, c := range []struct{ sensor, want event.Severity }{{event.Info, event.Low}, {event.High, event.High}, {200, event.Critical}} {
		e := exec("/bin/bash")
		e.Severity = c.sensor
		r.evaluate(e)
		if e.Severity != c.want {
			t.Errorf("a sensor's %d: got %s, want %s", c.sensor, e.Severity, c.want)
		}
	}
}

const counting = `title: Twice
id: C-1
correlation: {type: event_count, rules: [part], group-by: [process.exe], timespan: 1h, condition: {gte: 2}}
level: high
---
title: Part
id: part
logsource: {category: process_creation}
detection: {s: {process.name: id}, condition: s}
level: critical
`

func TestPartsOfACorrelationMakeNoNoise(t *testing.T) {
	r := start(t, Config{Dirs: []string{folder(t, map[string]string{"a.yml": counting})}})
	first, second := exec("/bin/id"), exec("/bin/id")
	if got := r.evaluate(first); got != nil || first.Rules != nil || first.Severity != event.Info {
		t.Errorf("the first: got alerts of %v, event %s of %v; want none", got, first.Severity, first.Rules)
	}
	if diff := cmp.Diff([]string{"C-1"}, r.evaluate(second)); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"C-1"}, second.Rules); diff != "" || second.Severity != event.High {
		t.Errorf("the second is %s of rules (-want +got):\n%s", second.Severity, diff)
	}
	if diff := cmp.Diff([]string{first.ID, second.ID}, r.told()[0].EventIDs); diff != "" {
		t.Errorf("the alert's events (-want +got):\n%s", diff)
	}
}

// What the agent says of itself is judged as well; that makes no further event.
func TestTheAgentsOwnEvents(t *testing.T) {
	r := start(t, Config{Suppression: fiveMinutes(), Dirs: []string{folder(t, map[string]string{"a.yml": "title: Last\nid: T-1\n" +
		"logsource: {product: apss, category: agent}\ndetection: {s: {metadata.final: true}, condition: s}\nlevel: high\n"})}})
	heartbeat := func(final bool) *event.Event {
		return &event.Event{ID: event.NewID(), AgentID: "c/n", Type: event.AgentHeartbeat, Timestamp: time.Now(),
			Metadata: map[string]any{"final": final, "rules": r.Summary()}}
	}
	if diff := cmp.Diff([]string{"T-1"}, r.evaluate(heartbeat(false), heartbeat(true), heartbeat(true))); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
}

func TestAnEventThatMatchesNothingAllocatesNothing(t *testing.T) {
	r := start(t, Config{Pack: true, Suppression: fiveMinutes()})
	for name, e := range quiet() {
		r.Evaluate(e, r.take) // the evaluator is made
		if len(e.Rules) > 0 {
			t.Fatalf("%s: matches %v: the test needs another event", name, e.Rules)
		}
		if got := testing.AllocsPerRun(500, func() { r.Evaluate(e, r.take) }); got != 0 {
			t.Errorf("%s: got %v allocations, want none", name, got)
		}
	}
}

// quiet are events of ordinary work.
func quiet() map[string]*event.Event {
	program := exec("/usr/bin/java")
	program.Process.Args = []string{"java", "-Xmx2g", "-jar", "/opt/app.jar"}
	program.Process.Cmdline = strings.Join(program.Process.Args, " ")
	file := eventtest.FileModify()
	file.File.Path, file.Rules = "/srv/app/data.json", nil
	conn := eventtest.Connect()
	conn.Process, conn.Rules = program.Process, nil
	conn.Network.DstPort, conn.Network.DstIP, conn.Network.IsExternal, conn.Network.IsSuspiciousPort = 8443, "10.0.0.9", false, false
	return map[string]*event.Event{"program": program, "file": file, "connection": conn}
}

func TestRunTellsOfRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Pack: true, Suppression: fiveMinutes()})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx, r.take) })
		time.Sleep(time.Hour) // nothing is open
		began := time.Now()
		for range 5 {
			r.evaluate(exec("/opt/xmrig"))
			time.Sleep(time.Second)
		}
		time.Sleep(5*time.Minute - 5*time.Second - time.Millisecond)
		synctest.Wait()
		if n := len(r.told()); n != 1 {
			t.Fatalf("before the window closes: got %d alerts, want one", n)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := len(r.told()); n != 2 {
			t.Fatalf("after %v: got %d alerts, want the summary too", time.Since(began), n)
		}
		if a := r.told()[1]; !a.Metadata.Summary || a.Count != 5 || a.Metadata.Suppressed != 4 || a.Fingerprint != r.told()[0].Fingerprint {
			t.Errorf("got %+v, want the summary of five", a)
		}
		r.evaluate(exec("/opt/xmrig"), exec("/opt/xmrig")) // in the window that followed
		cancel()
		running.Wait()
		if n := len(r.told()); n != 3 || r.told()[2].Count != 2 {
			t.Errorf("at the end: got %d alerts, want the summary of what was open", n)
		}
		if got := r.evaluate(exec("/opt/xmrig")); len(got) != 1 {
			t.Errorf("after the end: got %v, want the alert at once", got)
		}
	})
}

// The agent may find out later that it sees less: the rules in force stay, and what is said of them changes.
func TestSee(t *testing.T) {
	r := start(t, Config{Pack: true})
	all, loaded := r.Coverage(), r.Summary()["loaded_at"]
	r.See([]detect.Sight{{Type: func(e event.Type) bool { return e != event.ProcessExec }}})
	got := r.Coverage()
	if got.Live+got.Degraded+got.Blind != all.Live+all.Degraded+all.Blind || got.Blind <= all.Blind {
		t.Errorf("got %d live, %d degraded, %d blind; before %d, %d, %d", got.Live, got.Degraded, got.Blind, all.Live, all.Degraded, all.Blind)
	}
	if r.Summary()["loaded_at"] != loaded {
		t.Error("the rules were read anew")
	}
	if r.Reload() || r.Coverage().Blind != got.Blind {
		t.Error("a look at the folders undoes it")
	}
}

// Many sensors emit while the rules are read again and again: each event is judged, and each match told once.
func TestConcurrentUseAndReloads(t *testing.T) {
	dir := folder(t, map[string]string{"a.yml": rule("T-1", "bash", "high"), "c.yml": counting})
	r := start(t, Config{Pack: true, Dirs: []string{dir}, Suppression: fiveMinutes()})
	ctx, cancel := context.WithCancel(t.Context())
	var running, sensors sync.WaitGroup
	running.Go(func() { r.Run(ctx, r.take) })
	const each = 300
	for s := range 4 {
		sensors.Go(func() {
			for i := range each {
				e := exec("/bin/bash")
				r.Evaluate(e, r.take)
				if !slices.Contains(e.Rules, "T-1") {
					t.Errorf("got the rules %v, want T-1", e.Rules)
				}
				r.Evaluate(exec("/bin/id"), r.take)
				r.Evaluate(exec(fmt.Sprintf("/opt/%d/%d", s, i)), r.take)
			}
		})
	}
	for i := range 8 {
		put(t, dir, "b.yml", rule(fmt.Sprintf("T-%d", i+2), "zsh", "low"))
		r.Reload() // or Run is the first to see it
	}
	sensors.Wait()
	cancel()
	running.Wait()
	if ids := r.ids(); !slices.Contains(ids, "T-9") {
		t.Errorf("got the rules %v, want the last ones", ids)
	}
	told := map[string]int{}
	for _, a := range r.told() {
		told[a.RuleID] += max(a.Metadata.Suppressed, 1)
	}
	// Correlations use two matches up: none may be lost by a reload.
	if told["T-1"] != 4*each || told["C-1"] != 4*each/2 {
		t.Errorf("got T-1 told %d times and C-1 %d times, want %d and %d", told["T-1"], told["C-1"], 4*each, 2*each)
	}
}
