package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/view"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// window is the agent's, so short that the summary of repeats comes within the run.
	window = 3 * time.Second
	// repeats of a deed that is told once.
	repeats = 3
	// stay is how many seconds a program of a deed runs, unless the act ends before: longer than an agent stalls that is to
	// read it.
	stay = "10"
)

// intrude does what intruders do, one deed after the other, without effect: programs are copies of sleep under other
// names, command lines are comments, the socket is a connection to this process, the files are in the demo folder.
func (p *play) intrude(ctx context.Context) (err error) {
	tools, err := os.MkdirTemp("/tmp", "apss-demo-") // rules are about /tmp, wherever TMPDIR is
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	defer func() {
		cancel() // kills what still sleeps
		for _, cmd := range started {
			_ = cmd.Wait()
		}
		err = errors.Join(err, os.RemoveAll(tools))
	}()
	run := func(stdin *os.File, program string, args ...string) error {
		cmd := exec.CommandContext(running, program, args...) //nolint:gosec // what is written below
		if stdin != nil {
			cmd.Stdin = stdin
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("running %s: %w", program, err)
		}
		started = append(started, cmd)
		return nil
	}
	pretend := func(command string) func() error { // the shell takes it for a comment
		return func() error { return run(nil, "sh", "-c", "sleep "+stay+"; : apss-demo # "+command) }
	}
	miner, drift, ash := filepath.Join(tools, "xmrig"), filepath.Join(tools, "updater"), filepath.Join(tools, "ash")
	for name, original := range map[string]string{miner: "sleep", drift: "sleep", ash: "sh"} {
		if err := copyProgram(original, name); err != nil {
			return err
		}
	}
	helper, job := filepath.Join(p.demo, "helper"), filepath.Join(p.demo, "cron.d", "job")
	if err := os.WriteFile(helper, nil, 0o600); err != nil {
		return err
	}
	shows := func(part string) func(*event.Event) bool {
		return func(e *event.Event) bool { return e.Process != nil && strings.Contains(e.Process.Cmdline, part) }
	}
	runs := func(exe string) func(*event.Event) bool {
		return func(e *event.Event) bool { return e.Process != nil && e.Process.Exe == exe }
	}
	changes := func(path string) func(*event.Event) bool {
		return func(e *event.Event) bool { return e.File != nil && e.File.Path == path }
	}
	for _, s := range []struct {
		suspicion
		do func() error
	}{
		{suspicion{"a reverse shell on a command line", "APSS-001", "T1059.004", shows("/dev/tcp/203.0.113.7/4444")}, nil}, // the act process
		{suspicion{"an ssh key is added", "APSS-048", "T1098.004", changes(p.Config.Keys())}, nil},                         // the act files
		{suspicion{"a shell with a socket for its input", "APSS-001", "T1059.004", runs(ash)}, func() error { return p.socketShell(run, ash) }},
		{suspicion{"a program called xmrig", "APSS-002", "T1496", runs(miner)}, func() error { return run(nil, miner, stay) }},
		{suspicion{"a new program in /tmp", "APSS-018", "T1059", runs(drift)}, func() error { return run(nil, drift, stay) }},
		{suspicion{"password hashes are read", "APSS-036", "T1003.008", shows("head -c 0 /etc/shadow")}, pretend("head -c 0 /etc/shadow")},
		{suspicion{"a job is put into cron by a command", "APSS-054", "T1053.003", shows(">> /etc/cron.d/")}, pretend("echo '* * * * * root true' >> /etc/cron.d/apss-demo")},
		{suspicion{"a file gets the setuid bit", "APSS-079", "T1548.001", changes(helper)}, func() error { return os.Chmod(helper, 0o700|os.ModeSetuid) }},
		{suspicion{"a job is edited, by a rule that was added meanwhile", "DEMO-001", "T1053.003", changes(job)}, func() error { return p.ownRule(ctx, job) }},
	} {
		p.alerts.expect(s.suspicion)
		if s.do != nil {
			if err := s.do(); err != nil {
				return fmt.Errorf("%s: %w", s.deed, err)
			}
		}
		if err := p.alerted(ctx, s.suspicion); err != nil {
			return err
		}
	}
	for range repeats {
		if err := run(nil, miner, stay); err != nil {
			return err
		}
	}
	waiting, stop := context.WithTimeout(ctx, arrival)
	defer stop()
	told := 0
	for told < repeats {
		a, _, err := p.alerts.wait(waiting, func(a *event.Alert) bool {
			return a.RuleID == "APSS-002" && a.Metadata.Summary && runs(miner)(a.Event) && a.Count > told
		})
		if err != nil {
			return fmt.Errorf("the miner ran %d times more: no summary told of all within %v", repeats, arrival)
		}
		told += a.Metadata.Suppressed
		p.tell("%d times more: counted, and told as one: %s", a.Metadata.Suppressed, view.AlertEssence(a))
	}
	return nil
}

// alerted waits for the alert of a deed and tells it.
func (p *play) alerted(ctx context.Context, s suspicion) error {
	waiting, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	a, at, err := p.alerts.wait(waiting, s.fits)
	if err != nil {
		return fmt.Errorf("%s: no alert of %s within %v", s.deed, s.rule, arrival)
	}
	p.tell("ALERT %-8s %s", a.Severity, view.AlertEssence(a))
	if do := a.Metadata.RecommendedActions; len(do) > 0 {
		p.tell("      %s on the topic %d ms after it happened; do first: %s", s.deed, at.Sub(a.Event.Timestamp).Milliseconds(), do[0])
	}
	return nil
}

func (a *alerts) expect(s suspicion) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expected = append(a.expected, s)
}

// socketShell starts a shell that would take orders from a connection, and sends none: it ends when the connection does.
func (p *play) socketShell(run func(*os.File, string, ...string) error, shell string) error {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	master, err := net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr))
	if err != nil {
		return err
	}
	time.AfterFunc(10*time.Second, func() { _ = master.Close() })
	conn, err := listener.AcceptTCP()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	socket, err := conn.File()
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	return run(socket, shell)
}

// ownRule gives the agent a rule while it runs, and edits a file until the rule has seen it.
func (p *play) ownRule(ctx context.Context, job string) error {
	rule := fmt.Sprintf(`title: Scheduled job of the demo changed
id: DEMO-001
description: A rule of one's own, laid over the pack by RULES_DIRS.
references: [https://attack.mitre.org/techniques/T1053/003/]
tags: [attack.persistence, attack.t1053.003]
logsource: {category: file_event, product: linux}
detection: {job: {TargetFilename: %q}, condition: job}
falsepositives: [This demo.]
level: medium
apss: {actions: [Read the file and remove what you cannot explain.], group-by: [file.path]}
`, job)
	if err := os.MkdirAll(filepath.Dir(job), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.Config.RulesDir(), "demo.yml"), []byte(rule), 0o600); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	for waiting.Err() == nil {
		f, err := os.OpenFile(job, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString("* * * * * root true\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		look, stop := context.WithTimeout(waiting, 200*time.Millisecond)
		_, _, err = p.alerts.wait(look, func(a *event.Alert) bool { return a.RuleID == "DEMO-001" })
		stop()
		if err == nil {
			return nil
		}
	}
	return nil // the missing alert is reported by who waits for it
}

// copyProgram copies a program of the PATH under another name.
func copyProgram(name, to string) (err error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700) //nolint:gosec // a program
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
