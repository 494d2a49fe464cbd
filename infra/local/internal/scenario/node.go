package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/standin/pagerduty"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// silentRule is that of the functions' alert about an agent that stopped without a goodbye.
	silentRule = "APSS-AGENT-SILENT"
	otherNode  = "apss-demo-other-node"
	heartbeat  = time.Second
	silentFor  = 4 * time.Second
)

// otherNode has an agent of another node killed, and started again after people were told that it is silent. It runs beside
// the other acts, and waits for Slack also while that hangs.
func (p *play) otherNode(ctx context.Context) error {
	p.tell("another node's agent starts, which only sends heartbeats")
	process, err := p.StartQuiet(ctx, otherNode)
	if err != nil {
		return err
	}
	known := func(r *report) bool { return r.Agents.Live >= 2 }
	if err := p.until(ctx, "two live agents", known); err != nil {
		return err
	}
	p.Kill(process)
	killed := time.Now()
	p.tell("the other node's agent is killed (kill -9); nobody is told")
	silent, at, err := p.heardOf(ctx, false)
	if err != nil {
		return err
	}
	p.tell("ALERT %-8s %s %s: %s", silent.Severity, silent.RuleID, silent.RuleName, silent.Event.AgentID)
	p.tell("      on the topic %.1f s after the kill", at.Sub(killed).Seconds())
	listed := func(r *report) bool {
		return slices.ContainsFunc(r.Agents.Silent, func(a silentAgent) bool { return a.ID == silent.Event.AgentID })
	}
	if err := p.until(ctx, "the silent agent", listed); err != nil {
		return err
	}
	// Its exit code may say that something fails: Slack may hang by now.
	if out, _, _, err := p.Control(ctx, "status"); err != nil || !strings.Contains(out, "silent: "+silent.Event.AgentID) {
		p.fault("apssctl status does not name the silent agent: %s, %v", out, err)
	}
	if err := p.people(ctx, silent, pagerduty.Open, ""); err != nil {
		return err
	}
	if _, err := p.StartQuiet(ctx, otherNode); err != nil {
		return err
	}
	back, _, err := p.heardOf(ctx, true)
	if err != nil {
		return err
	}
	if back.Fingerprint != silent.Fingerprint {
		p.fault("the end of the silence has another fingerprint than its begin")
	}
	if err := p.people(ctx, silent, pagerduty.Resolved, "Resolved"); err != nil {
		return err
	}
	p.tell("the other node's agent is back: Slack and PagerDuty show its incident as resolved")
	p.once = append(p.once, silent)
	return nil
}

// heardOf waits for the alert about the other node's silence, or its end.
func (p *play) heardOf(ctx context.Context, resolved bool) (*event.Alert, time.Time, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, at, err := p.alerts.wait(waiting, func(a *event.Alert) bool { return isSilence(a, resolved) })
	if err != nil {
		return nil, at, fmt.Errorf("no alert of %s about %s with resolved=%t within %v", silentRule, otherNode, resolved, patience)
	}
	return a, at, nil
}

func isSilence(a *event.Alert, resolved bool) bool {
	return a.RuleID == silentRule && a.NodeName == otherNode && a.Event != nil && a.Resolved == resolved
}

// people waits until PagerDuty shows an incident in a state, and Slack one whose title has a word.
func (p *play) people(ctx context.Context, a *event.Alert, state, word string) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	shows := func(all []standin.Message, f func(standin.Message) bool) bool { return len(all) == 1 && f(all[0]) }
	err := poll(waiting, func() bool {
		w := p.at(a)
		return shows(w.incidents, func(m standin.Message) bool { return m.State == state }) &&
			shows(w.messages, func(m standin.Message) bool { return strings.Contains(m.Title, word) })
	})
	if err != nil {
		return fmt.Errorf("not both Slack and PagerDuty show the incident of the silent agent, %s, after %v", state, patience)
	}
	return nil
}

// silences says what is not as it should be with what people were told of the other node's agent, at the end.
func (p *play) silences() (faults []string) {
	p.alerts.mu.Lock()
	began, ended := 0, 0
	for _, a := range p.alerts.inOrder {
		if isSilence(a, false) {
			began++
		}
		if isSilence(a, true) {
			ended++
		}
	}
	p.alerts.mu.Unlock()
	if began != 1 || ended != 1 {
		faults = append(faults, fmt.Sprintf("%d alerts say that the agent of the other node is silent, and %d that it is back: want one each", began, ended))
	}
	for _, a := range p.once {
		w := p.at(a)
		if len(w.messages) != 1 || len(w.incidents) != 1 || w.sweet != 1 || w.hook != 1 {
			faults = append(faults, fmt.Sprintf("of the silent agent there are %d messages at Slack, %d incidents at PagerDuty, %d alerts at %s and %d at the webhook: want one each",
				len(w.messages), len(w.incidents), w.sweet, system.SweetSecurity, w.hook))
		}
	}
	return faults
}
