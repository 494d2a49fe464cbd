package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

// letters has the webhook refuse an alert for its content, and does with apssctl what somebody on call would: sees that
// there is a dead letter, looks at it, mends the receiver and brings the letter again, twice.
func (p *play) letters(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("/tmp", "apss-demo-") // the rule is about /tmp, wherever TMPDIR is
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	defer func() { cancel(); _ = os.RemoveAll(dir) }() // what the system removes later is of no use to anybody
	program := filepath.Join(dir, "poisoned")
	if err := copyProgram("sleep", program); err != nil {
		return err
	}
	hook := p.Receiver(system.Webhook)
	hook.Switches.Set(standin.Faults{Refuse: program, RefuseWith: 422})
	defer hook.Switches.Set(standin.Faults{})
	s := suspicion{
		"a program whose alert the webhook refuses", "APSS-018", "T1059",
		func(e *event.Event) bool { return e.Process != nil && e.Process.Exe == program },
	}
	p.alerts.expect(s)
	cmd := exec.CommandContext(running, program, "9") //nolint:gosec // a copy of sleep
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running %s: %w", program, err)
	}
	defer func() { cancel(); _ = cmd.Wait() }() // killed, as meant
	if err := p.alerted(ctx, s); err != nil {
		return err
	}
	a, _, err := p.alerts.wait(ctx, s.fits)
	if err != nil {
		return err
	}
	letter, err := p.letter(ctx)
	if err != nil {
		return err
	}
	p.tell("apssctl dlq list: %s has %s", hook.Name, letter)
	if letter.Status != 422 || letter.Topic != "alerts" || letter.Reason == "" {
		p.fault("the dead letter is %s, want an alert that was refused with 422", letter)
	}
	shown, err := p.control(ctx, "dlq", "show", letter.ID)
	if err != nil {
		return err
	}
	if !strings.Contains(shown, a.ID) || !strings.Contains(shown, program) {
		p.fault("apssctl dlq show %s does not show the alert %s: %s", letter.ID, a.ID, shown)
	}
	if n := hook.Alerts.Get(a.ID); n.Delivered != 0 || n.Dead != 1 {
		p.fault("the books of the webhook have %+v of the refused alert", n)
	}
	warned := func(r *report) bool { i := r.of(hook.Name); return i.DeadLetters == 1 && i.Status == "warning" }
	if err := p.until(ctx, "the webhook's dead letter", warned); err != nil {
		return err
	}
	hook.Switches.Set(standin.Faults{})
	for _, step := range []struct {
		args      []string
		say       string
		delivered uint32
	}{
		{[]string{"dlq", "replay", "-dry-run", "-integration", hook.Name}, letter.ID, 0},
		{[]string{"dlq", "replay", "-integration", hook.Name, "-reason", "422"}, "1 letters brought, 0 left", 1},
		{[]string{"dlq", "replay", "-integration", hook.Name}, "0 letters brought, 0 left", 1},
		{[]string{"dlq", "list", "-integration", hook.Name}, "no such dead letters", 1},
	} {
		out, err := p.control(ctx, step.args...)
		if err != nil {
			return err
		}
		if !strings.Contains(out, step.say) {
			p.fault("apssctl %s does not say %q: %s", strings.Join(step.args, " "), step.say, out)
		}
		if n := hook.Alerts.Get(a.ID).Delivered; n != step.delivered {
			p.fault("after apssctl %s the webhook has the alert %d times, want %d", strings.Join(step.args, " "), n, step.delivered)
		}
	}
	p.tell("the webhook is mended; apssctl dlq replay, twice: it has the alert once, and the letter is gone")
	return nil
}

// deadLetter is a line of apssctl dlq list -json.
type deadLetter struct {
	ID          string `json:"id"`
	Integration string `json:"integration"`
	Topic       string `json:"topic"`
	Reason      string `json:"reason"`
	Status      int    `json:"receiver_status"`
}

func (l deadLetter) String() string {
	return fmt.Sprintf("%s (%s, HTTP %d: %s)", l.ID, l.Topic, l.Status, l.Reason)
}

// letter waits for the webhook's dead letter.
func (p *play) letter(ctx context.Context) (letter deadLetter, err error) {
	waiting, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	for {
		out, err := p.control(waiting, "dlq", "list", "-json", "-integration", system.Webhook)
		if err == nil && out != "" {
			if err := json.Unmarshal([]byte(out), &letter); err != nil {
				return letter, fmt.Errorf("apssctl dlq list -json printed %q, want one line of JSON: %w", out, err)
			}
			return letter, nil
		}
		if err != nil && waiting.Err() == nil {
			return letter, err
		}
		if pause(waiting, 200*time.Millisecond) != nil {
			return letter, fmt.Errorf("the alert that the webhook refused is no dead letter after %v", arrival)
		}
	}
}
