// Package scenario plays make demo-once: deeds on this machine that intruders do, here without effect, and their alerts; a
// look at the health of everything and a test of each receiver, by HTTP and with apssctl; a dead letter that is read and
// brought again; an agent that falls silent and comes back; a kill of the agent in the middle of a burst, outages
// of Pub/Sub and of receivers, a poison event; and then accounts for every deed and every event, by its id, and for what
// each receiver was told of every alert.
package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/infra/local/internal/view"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// atMost is how long all of it may take: the promise of make demo-once.
	atMost = 58 * time.Second
	// atMostOutside is the same on a Pub/Sub that is not ours: Google's emulator lets a pull wait for seconds where there is
	// nothing, and apssctl pulls a dozen times.
	atMostOutside = 3 * time.Minute
	// arrival bounds the wait for one deed.
	arrival = 20 * time.Second
	// settle bounds the wait for everything that is in flight at the end.
	settle  = 20 * time.Second
	refusal = 6 * time.Second // of the receiver

	burstPace   = 10 * time.Millisecond
	burstBefore = 120 // files with the agent running
	burstDown   = 60  // while it is dead
	burstAfter  = 180 // while the receiver refuses
	// outageBefore the kill Pub/Sub is out of reach for so many files, so that the kill finds a spool with something in it.
	outageBefore = 50
)

// story tells what happens, and remembers it. Safe for concurrent use.
type story struct {
	out     io.Writer
	started time.Time

	telling sync.Mutex
	lines   []TimelineLine
	late    []string // what was not as it should be when it was looked at
}

func (st *story) tell(format string, args ...any) {
	line := TimelineLine{At: time.Since(st.started).Seconds(), Text: view.Printable(fmt.Sprintf(format, args...))}
	st.telling.Lock()
	defer st.telling.Unlock()
	st.lines = append(st.lines, line)
	fmt.Fprintf(st.out, "%6.2fs  %s\n", line.At, line.Text)
}

// fault notes what is not as it should be.
func (st *story) fault(format string, args ...any) {
	st.telling.Lock()
	defer st.telling.Unlock()
	st.late = append(st.late, fmt.Sprintf(format, args...))
}

// faults are those that were noted.
func (st *story) faults() []string {
	st.telling.Lock()
	defer st.telling.Unlock()
	return slices.Clone(st.late)
}

// Run plays the scenario and prints the story, or with asJSON the result, on out. Its error says what was lost.
func Run(ctx context.Context, c system.Config, out io.Writer, asJSON bool) error {
	most := atMost
	if c.Emulator != "" {
		most = atMostOutside
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	st := &story{out: out, started: time.Now()}
	if asJSON {
		st.out = os.Stderr
	}
	// The service's shortest waits, so that an outage's end is felt at once.
	c.MinBackoff, c.MaxBackoff, c.MaxPushBackoff = 250*time.Millisecond, 2*time.Second, time.Second
	c.AlertWindow = window
	c.IncidentWindow, c.ResolveAfter, c.CallTimeout, c.NoRate = incidentWindow, resolveAfter, callTimeout, true
	c.CanaryEvery, c.Heartbeat, c.Silence = canaryEvery, heartbeat, silentFor
	p := &play{story: st, tracker: newTracker(), demo: c.Demo(), sealed: make(map[string]bool), alerts: newAlerts()}
	result, err := p.run(ctx, c)
	if err != nil {
		return err
	}
	result.Seconds = time.Since(st.started).Seconds()
	if asJSON {
		result.Timeline = st.lines
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(result)
	}
	if !result.OK {
		err = errors.Join(err, fmt.Errorf("the scenario failed: %d faults", len(result.Faults)))
	}
	return err
}

// play is one run.
type play struct {
	*story
	*tracker
	*system.System
	demo      string
	groups    []group
	alerts    *alerts
	latencies []Latency
	sealed    map[string]bool // ids in the spool of the killed agent
	once      []*event.Alert  // about silent agents
}

func (p *play) run(ctx context.Context, c system.Config) (result Result, err error) {
	if err := os.MkdirAll(filepath.Join(p.demo, "burst"), 0o700); err != nil {
		return result, err
	}
	p.System, err = system.Start(ctx, c, system.Watcher{
		Published: p.published, Delivered: p.delivered, Dead: p.dead, Alerted: p.alerts.see,
	})
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, p.Stop(ctx)) }()
	if err := p.StartAgent(ctx); err != nil {
		return result, err
	}
	a := p.Addresses()
	p.tell("started: agent (pid %d), Pub/Sub on %s, functions on %s", p.Agent().PID(), a.PubSub, a.Functions)
	for _, r := range p.Receivers() {
		p.tell("started: %s's stand-in on %s", r.Kind, r.Addr)
	}
	playing, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	var another sync.WaitGroup
	another.Go(func() { ended <- p.otherNode(playing) })
	defer func() {
		end()
		another.Wait()
	}()
	together := func(acts ...func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error { return atOnce(ctx, acts...) }
	}
	acts := []func(context.Context) error{
		p.files, p.process, p.connection, p.intrude, p.health, together(p.hang, p.letters), p.burst, p.poison,
		func(context.Context) error { return <-ended },
	}
	for _, act := range acts {
		if err := act(ctx); err != nil {
			return result, p.explain(err)
		}
		select {
		case err := <-p.Trouble():
			return result, err
		default:
		}
	}
	return p.account(ctx)
}

// atOnce runs acts at the same time; the first that fails ends the others.
func atOnce(ctx context.Context, acts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(acts))
	var wg sync.WaitGroup
	for _, act := range acts {
		wg.Go(func() {
			if err := act(ctx); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed // nil when none did
}

// explain adds what a program said to an error that it may have caused.
func (p *play) explain(err error) error {
	select {
	case trouble := <-p.Trouble():
		return errors.Join(err, trouble)
	default:
		return fmt.Errorf("%w; the agent's last lines:\n    %s", err, strings.Join(p.Agent().Tail(), "\n    "))
	}
}

// arrived waits for the event of a deed at the receiver and tells how long it took.
func (p *play) arrived(ctx context.Context, deed string, since time.Time, match func(*sighting) bool) error {
	waiting, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	s, err := p.wait(waiting, func(s *sighting) bool { return s.delivered > 0 && match(s) })
	if err != nil {
		return fmt.Errorf("%s: nothing of it reached the receiver within %v", deed, arrival)
	}
	took := s.deliveredAt.Sub(since)
	p.latencies = append(p.latencies, Latency{deed, string(s.typ), s.severity.String(), float64(took.Microseconds()) / 1000})
	p.tell("%-34s %-15s %-8s at the receiver after %d ms", deed, s.typ, s.severity, took.Milliseconds())
	if s.detail != "" {
		p.tell("    %s", s.detail)
	}
	return nil
}

// account waits until everything that was published has ended, and draws the table.
func (p *play) account(ctx context.Context) (Result, error) {
	p.tell("quiet: waiting for what is in flight")
	until := time.Now()
	waiting, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	missing := true
	for missing && waiting.Err() == nil {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		_, result := tally(p.groups, p.all(), p.sealed, until)
		if missing = result.InFlight > 0 || !result.OK; missing {
			select {
			case <-changed:
			case <-waiting.Done():
			}
		}
	}
	table, result := tally(p.groups, p.all(), p.sealed, until)
	result.Table, result.Latencies = table, p.latencies
	for _, fault := range untold(p.all()) {
		result.OK = false
		result.Faults = append(result.Faults, fault)
	}
	if p.overflow > 0 {
		result.OK = false
		result.Faults = append(result.Faults, fmt.Sprintf("%d events were not followed: more than %d", p.overflow, maxSightings))
	}
	var ofAlerts, ofReceivers []string
	result.Alerts, ofAlerts = p.alerts.account(p.all())
	result.Receivers, ofReceivers = p.told(ctx)
	result.Faults = slices.Concat(result.Faults, ofAlerts, ofReceivers)
	result.OK = result.OK && len(result.Faults) == 0
	fmt.Fprintln(p.out, "\nalerts of the deeds:")
	for _, row := range result.Alerts {
		for _, line := range row.lines() {
			fmt.Fprintln(p.out, line)
		}
	}
	fmt.Fprintln(p.out)
	for _, line := range tableLines(table) {
		fmt.Fprintln(p.out, line)
	}
	fmt.Fprintf(p.out, "\npublished %d = delivered %d + dead-lettered %d + in flight %d; %d of them sensed after the fact, while the agent was down\n",
		result.Published, result.Delivered, result.Dead, result.InFlight, result.WhileDown)
	const show = 20
	for i, f := range result.Faults {
		if i == show {
			fmt.Fprintf(p.out, "FAULT: and %d more\n", len(result.Faults)-show)
			break
		}
		fmt.Fprintln(p.out, "FAULT:", view.Printable(f))
	}
	if result.OK {
		fmt.Fprintln(p.out, "nothing was lost")
	}
	return result, nil
}

// spooled lists what the killed agent had sealed and nobody confirmed.
func (p *play) spooled(ctx context.Context, c system.Config) error {
	cmd := exec.CommandContext(ctx, c.Program("apss-agent"), "spool", c.SpoolDir()) //nolint:gosec // our own program
	cmd.Env = []string{}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("listing the spool with %s: %w", strings.Join(cmd.Args, " "), err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 16<<20)
	shown := 0
	for lines.Scan() {
		raw := event.Raw(lines.Bytes())
		id, err := raw.ID()
		if err != nil {
			return fmt.Errorf("listing the spool: %w", err)
		}
		if a, err := event.DecodeAlert(raw); err == nil && a.RuleID != "" {
			p.alerts.sealed = append(p.alerts.sealed, id)
			continue
		}
		p.sealed[id] = true
		if e, err := event.Decode(raw); err == nil && shown < 3 {
			p.tell("    in the spool: %s %s %s", id, e.Type, view.Essence(e))
			shown++
		}
	}
	if more := len(p.sealed) - shown; more > 0 {
		p.tell("    in the spool: and %d more events", more)
	}
	if n := len(p.alerts.sealed); n > 0 {
		p.tell("    in the spool: and %d alerts", n)
	}
	return lines.Err()
}

func (p *play) refuse(f standin.Faults) { p.Receiver(system.SweetSecurity).Switches.Set(f) }
