package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/standin/pagerduty"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/infra/local/internal/view"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// silence is how long Slack does not answer.
	silence = 20 * time.Second
	// hangDeeds are done meanwhile.
	hangDeeds = 4
	// incidentWindow is the functions', so short that the update of repeats comes within the run.
	incidentWindow = 2 * time.Second
	// resolveAfter is longer than the run: what was opened stays open.
	resolveAfter = 5 * time.Minute
	// callTimeout is short, so that what Slack did not answer comes again within the run.
	callTimeout = 5 * time.Second
)

// hang lets Slack answer nothing for a while, and does what is told the others meanwhile.
func (p *play) hang(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("/tmp", "apss-demo-") // the rule is about /tmp, wherever TMPDIR is
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	defer func() {
		cancel()
		for _, cmd := range started {
			_ = cmd.Wait() // killed, as meant
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	back := time.Now().Add(silence)
	p.Receiver(system.Slack).Switches.Set(standin.Faults{Hang: true, For: standin.Duration(silence)})
	p.tell("Slack does not answer for %v", silence)
	for i := range hangDeeds {
		program := filepath.Join(dir, fmt.Sprintf("implant-%d", i))
		if err := copyProgram("sleep", program); err != nil {
			return err
		}
		s := suspicion{
			fmt.Sprintf("a new program in /tmp while Slack hangs (%d)", i+1), "APSS-018", "T1059",
			func(e *event.Event) bool { return e.Process != nil && e.Process.Exe == program },
		}
		p.alerts.expect(s)
		since := time.Now()
		cmd := exec.CommandContext(running, program, "9") //nolint:gosec // a copy of sleep
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("running %s: %w", program, err)
		}
		started = append(started, cmd)
		if err := p.alerted(ctx, s); err != nil {
			return err
		}
		a, _, err := p.alerts.wait(ctx, s.fits)
		if err != nil {
			return err
		}
		waiting, stop := context.WithDeadline(ctx, back)
		err = poll(waiting, func() bool { return p.at(a).sweet > 0 && p.at(a).hook > 0 && len(p.at(a).incidents) > 0 })
		stop()
		seen := p.at(a)
		switch {
		case err != nil:
			p.fault("%s: not everybody else had its alert before Slack was back", s.deed)
		case len(seen.messages) > 0:
			p.fault("%s: Slack has its message although it hangs", s.deed)
		default:
			p.tell("      at Sweet Security, PagerDuty and the webhook %d ms after it began; Slack still hangs", time.Since(since).Milliseconds())
		}
	}
	return p.waits(ctx, system.Slack, back)
}

// poll looks until there is what is waited for, or ctx ends.
func poll(ctx context.Context, there func() bool) error {
	for !there() {
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// whereabouts of an alert, or of its incident.
type whereabouts struct {
	sweet, hook         uint32            // how often Sweet Security's stand-in has it, and the webhook's
	messages, incidents []standin.Message // at Slack and PagerDuty
}

func (p *play) at(a *event.Alert) (w whereabouts) {
	w.sweet = p.Receiver(system.SweetSecurity).Alerts.Get(a.ID).Delivered
	w.hook = p.Receiver(system.Webhook).Alerts.Get(a.ID).Delivered
	for _, m := range p.Receiver(system.Slack).Board.Messages() {
		if strings.Contains(m.Text, a.Fingerprint) {
			w.messages = append(w.messages, m)
		}
	}
	for _, m := range p.Receiver(system.PagerDuty).Board.Messages() {
		if strings.Contains(m.Key, a.Fingerprint) {
			w.incidents = append(w.incidents, m)
		}
	}
	return w
}

// faultsOf says what is not as it should be with an alert that stands for a deed.
func faultsOf(s suspicion, a *event.Alert, w whereabouts, published int64) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, s.deed+": "+fmt.Sprintf(format, args...)) }
	if w.sweet != 1 {
		fault("Sweet Security has its alert %d times, want once", w.sweet)
	}
	if w.hook != 1 {
		fault("the webhook has its alert %d times, want once", w.hook)
	}
	times := fmt.Sprintf("seen %d times", published)
	if published == 1 {
		times = "seen once"
	}
	if len(w.messages) != 1 {
		fault("Slack shows %d messages of it, want one", len(w.messages))
	}
	for _, m := range w.messages {
		names := map[string]string{"what": a.RuleName, "where": a.NodeName, "technique": a.MITREID, "count": times}
		if do := a.Metadata.RecommendedActions; len(do) > 0 {
			names["action"] = do[0]
		}
		for what, text := range names {
			if !strings.Contains(m.Text, text) {
				fault("Slack's message does not name the %s %q", what, text)
			}
		}
		// A reply that failed comes again with its edit: there may be more of these.
		if told := len(m.Thread) > 0 && m.Edits >= len(m.Thread); told != (published > 1) || !told && m.Edits > 0 {
			fault("it was seen %d times, and Slack's message has %d edits and %d replies", published, m.Edits, len(m.Thread))
		}
	}
	switch {
	case len(w.incidents) != 1:
		fault("PagerDuty has %d incidents of it, want one", len(w.incidents))
	case w.incidents[0].State != pagerduty.Open:
		fault("PagerDuty's incident is %s, want it open", w.incidents[0].State)
	case !strings.Contains(w.incidents[0].Text, times):
		fault("PagerDuty's incident does not say that it was %s", times)
	}
	return faults
}

// whole says what is not as it should be with the alerts of all, those of the deeds one by one. It needs the books
// balanced at one moment: what others on this machine do raises alerts too.
func (p *play) whole() (faults []string) {
	p.alerts.mu.Lock()
	expected, all := p.alerts.expected, p.alerts.inOrder
	p.alerts.mu.Unlock()
	for _, s := range expected {
		for _, a := range all {
			if s.fits(a) && !a.Metadata.Summary {
				faults = append(faults, faultsOf(s, a, p.at(a), published(all, a.Fingerprint))...)
				break // a second one is a fault by itself
			}
		}
	}
	faults = append(faults, p.silences()...)
	for _, r := range p.Receivers() {
		b := r.Balance()
		if b.Published != b.Delivered+b.Dead+b.Waiting || b.Waiting > 0 || b.Dead > 0 || b.Twice > 0 {
			faults = append(faults, fmt.Sprintf("alerts to %s: published %d, delivered %d, dead %d, waiting %d, twice %d",
				r.Kind, b.Published, b.Delivered, b.Dead, b.Waiting, b.Twice))
		}
		if r.Incidents == nil {
			continue
		}
		if t := r.Incidents.Totals(); t.Doubled > 0 || t.Untold > 0 || t.Overflow > 0 {
			faults = append(faults, fmt.Sprintf("incidents at %s: %d have more than one message, %d none, %d were not followed", r.Kind, t.Doubled, t.Untold, t.Overflow))
		}
	}
	return faults
}

// published is how many events of an incident were told of on the topic.
func published(all []*event.Alert, fingerprint string) (n int64) {
	for _, a := range all {
		if a.Fingerprint == fingerprint {
			n += system.Weight(a)
		}
	}
	return n
}

// told waits until everybody has been told of everything, shows what people see, and returns what is missing.
func (p *play) told(ctx context.Context) (rows []ReceiverRow, faults []string) {
	p.tell("waiting for Slack, and for counts of repeats")
	if poll(ctx, func() bool { faults = p.whole(); return len(faults) == 0 }) == nil {
		p.tell("everybody was told of everything")
	}
	fmt.Fprintln(p.out)
	for _, r := range p.Receivers() {
		b := r.Balance()
		row := ReceiverRow{Name: r.Name, Published: b.Published, Delivered: b.Delivered, Dead: b.Dead, Waiting: b.Waiting, Twice: b.Twice}
		line := fmt.Sprintf("alerts to %s: published %d = delivered %d + dead-lettered %d + waiting %d", r.Kind, b.Published, b.Delivered, b.Dead, b.Waiting)
		if r.Board != nil {
			row.Messages = r.Board.Posted()
			line += fmt.Sprintf(", in %d messages", row.Messages)
		}
		rows = append(rows, row)
		fmt.Fprintln(p.out, line)
	}
	for _, r := range p.Receivers() {
		if r.Board == nil {
			continue
		}
		fmt.Fprintf(p.out, "\n%s shows, of %d messages:\n", r.Kind, r.Board.Posted())
		for _, line := range examples(r.Board.Messages()) {
			fmt.Fprintln(p.out, "  "+line)
		}
	}
	return rows, append(faults, p.faults()...)
}

// examples are the message with most changes in whole, and the others' titles.
func examples(all []standin.Message) (lines []string) {
	const most = 15
	if len(all) == 0 {
		return nil
	}
	best := slices.MaxFunc(all, func(a, b standin.Message) int { return a.Edits - b.Edits })
	for _, m := range all {
		if m.ID != best.ID && len(lines) < most {
			lines = append(lines, view.MessageTitle(m))
		}
	}
	if extra := len(all) - 1 - len(lines); extra > 0 {
		lines = append(lines, fmt.Sprintf("... and %d more", extra))
	}
	return append(lines, view.MessageText(best, 40)...)
}
