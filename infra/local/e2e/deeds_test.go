package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

// promised is how soon a deed is told. A machine that is busy with other things gets as many tries as there are.
const (
	promised = 5 * time.Second
	tries    = 3
)

// unhurried is how long the intruder thinks between two deeds. One is up to three alerts, and Slack takes 50 messages a minute
// of us, five of them at once; what is more, and not CRITICAL, waits up to a minute for a message of many.
const unhurried = 3 * time.Second

// theDeeds are an intruder's, as witness does them, with what is to be told of each.
var theDeeds = []struct{ deed, what, rule, technique string }{
	{"token", "the service account's token is read", "APSS-038", "T1552.001"},
	{"key", "an ssh key is added", "APSS-048", "T1098.004"},
	{"shell", "a web server runs a shell", "APSS-009", "T1190"},
	{"reverse", "a shell takes its orders from a connection", "APSS-001", "T1059.004"},
	{"drop", "a program is brought and run", "APSS-018", "T1059"},
	{"cron", "a job is put into cron", "APSS-056", "T1053.003"},
}

// intrude has all deeds done in a pod of a Deployment that was broken into, until each was told within what is promised.
func (in *cloud) intrude(m *master, c *cluster, attested bool) (pod *corev1.Pod) {
	in.t.Helper()
	slow := map[string]time.Duration{}
	for try := range tries {
		name := fmt.Sprintf("shop-%d", try)
		m.breakIn(c, name)
		pod = c.deployed(name)
		in.watched(m, pod)
		clear(slow)
		for _, d := range theDeeds {
			if took := in.deed(m, pod, name, d.deed, d.what, d.rule, d.technique, attested); took > promised {
				slow[d.what] = took
			}
		}
		if len(slow) == 0 {
			return pod
		}
		in.happened("later than %v in try %d: %v", promised, try+1, slow)
	}
	in.t.Errorf("in none of %d tries all deeds were told within %v; in the last one: %v", tries, promised, slow)
	return pod
}

// watched waits until what a pod does is seen: an agent takes a moment to find a container that has just begun, and what is
// there by then is how it was.
func (in *cloud) watched(m *master, pod *corev1.Pod) {
	in.t.Helper()
	implant, n := m.caught(pod.Name), 0
	in.await("the first file of "+pod.Name+" at Sweet Security", func(context.Context) error {
		in.mu.Lock()
		seen := slices.ContainsFunc(in.events, func(a arrival[*event.Event]) bool {
			return a.what.PodName == pod.Name && a.what.File != nil && strings.HasPrefix(a.what.File.Path, "/etc/cron.d/job-hello-")
		})
		in.mu.Unlock()
		if seen {
			return nil
		}
		n++
		if _, err := implant.tell("cron", fmt.Sprint("hello-", n)); err != nil {
			return err
		}
		return fmt.Errorf("%d files were written", n)
	})
}

// deed has one done, and returns how long it took until everybody was told.
func (in *cloud) deed(m *master, pod *corev1.Pod, name, deed, what, rule, technique string, attested bool) time.Duration {
	t := in.t
	t.Helper()
	workload := "Deployment/" + name
	in.pause(unhurried)
	in.happened("%s in %s", what, pod.Name)
	did := m.caught(pod.Name).order(t, deed, time.Now().UnixNano())
	mine := func(a *event.Alert) bool {
		return a.RuleID == rule && a.PodName == pod.Name && a.Event != nil && !strings.Contains(path(a.Event), "hello")
	}
	told := map[string]time.Time{}
	alert := in.alert("the alert: "+what, mine)
	a := alert.what
	told["topic"] = alert.at
	if a.PodNamespace != pod.Namespace || a.NodeName != pod.Spec.NodeName || a.Workload != workload || a.MITREID != technique {
		t.Errorf("%s: the alert is of %s/%s (%s) on %q with technique %s, want %s/%s (%s) on %q with %s", what,
			a.PodNamespace, a.PodName, a.Workload, a.NodeName, a.MITREID, pod.Namespace, pod.Name, workload, pod.Spec.NodeName, technique)
	}
	e := in.event("the event: "+what, func(e *event.Event) bool { return slices.Contains(a.EventIDs, e.ID) })
	told["Sweet Security"] = e.at
	if e.what.PodName != pod.Name || e.what.PodNamespace != pod.Namespace || e.what.Workload != workload || !slices.Contains(e.what.Rules, rule) ||
		attested && e.what.AgentID != "e2e/"+pod.Name {
		t.Errorf("%s: the event is of %s/%s (%s) by %s with rules %v", what, e.what.PodNamespace, e.what.PodName, e.what.Workload, e.what.AgentID, e.what.Rules)
	}
	for _, receiver := range []string{system.Slack, system.PagerDuty} {
		message := in.message(receiver, what, func(m standin.Message) bool { return strings.Contains(m.Text, a.Fingerprint) })
		told[receiver] = message.at
		for _, want := range []string{rule, technique, pod.Name, pod.Namespace, workload} {
			if !strings.Contains(message.what.Text, want) {
				t.Errorf("%s: %s does not show %q:\n%s", what, receiver, want, message.what.Text)
			}
		}
	}
	var most time.Duration
	var text []string
	for _, where := range slices.Sorted(maps.Keys(told)) {
		took := told[where].Sub(did)
		most = max(most, took)
		text = append(text, fmt.Sprintf("%s %d ms", where, took.Milliseconds()))
	}
	in.happened("%s: %s %s, %s", what, rule, technique, strings.Join(text, ", "))
	return most
}

// path is of the file that an event is about.
func path(e *event.Event) string {
	if e.File == nil {
		return ""
	}
	return e.File.Path
}
