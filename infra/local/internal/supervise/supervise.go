// Package supervise runs a program as it is deployed: its own process, its own environment and no other, output to a
// log. It restarts nothing: an end is reported, and the owner decides.
//
// A program dies with its supervisor, also when that is killed (Linux), and it does not get the terminal's Ctrl-C:
// the owner ends programs in the order that is right.
package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Program says what to run.
type Program struct {
	Name string // short; before each line in the log
	Path string
	Args []string
	Env  []string  // all of it
	Log  io.Writer // gets whole lines, one write each; must be safe for concurrent use
}

const (
	tailLines = 20
	maxLine   = 16 << 10 // longer lines are cut
	// pipeWait bounds the wait for output of grandchildren after the program's end.
	pipeWait = 2 * time.Second
)

// Process is a running or ended program. Safe for concurrent use.
type Process struct {
	name string
	pid  int
	cmd  *exec.Cmd
	out  *lines
	done chan struct{}
	err  error // valid after done
}

// Start runs p.
func Start(p Program) (*Process, error) {
	cmd := exec.Command(p.Path, p.Args...) //nolint:gosec,noctx // the program that the person asked for; it ends by signals
	cmd.Env = p.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would inherit ours
	}
	cmd.WaitDelay = pipeWait
	cmd.SysProcAttr = attributes()
	pr := &Process{name: p.Name, cmd: cmd, done: make(chan struct{}), out: &lines{prefix: p.Name + " | ", log: p.Log}}
	cmd.Stdout, cmd.Stderr = pr.out, pr.out
	started := make(chan error)
	go func() {
		// The kernel kills the child when the thread that started it ends: keep the thread (prctl(2), PR_SET_PDEATHSIG).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil
		}
		pr.out.flush()
		pr.err = err
		close(pr.done)
	}()
	if err := <-started; err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not there: run make build", p.Path)
		}
		return nil, fmt.Errorf("starting %s: %w", p.Path, err)
	}
	pr.pid = cmd.Process.Pid
	return pr, nil
}

// PID returns the process's id.
func (p *Process) PID() int { return p.pid }

// Done is closed when the program has ended and its output is written.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the program ended: nil for exit code 0. It is valid after Done.
func (p *Process) Err() error {
	<-p.done
	if p.err == nil {
		return nil
	}
	return fmt.Errorf("%s (pid %d): %w", p.name, p.pid, p.err)
}

// Tail returns the last lines of output.
func (p *Process) Tail() []string { return p.out.last() }

// Kill ends the program as kill -9 does, and returns when it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// Stop ends the program with SIGTERM and, where that did not end it within grace, with SIGKILL, which is an error.
func (p *Process) Stop(grace time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.Err()
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s (pid %d) did not end within %v of SIGTERM and was killed", p.name, p.pid, grace)
	}
}

// lines splits output into lines for the log and keeps the last ones.
type lines struct {
	prefix string
	log    io.Writer

	mu   sync.Mutex
	part []byte
	tail []string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(b)
	for {
		line, rest, found := bytes.Cut(b, []byte("\n"))
		l.part = append(l.part, line[:min(len(line), maxLine-len(l.part))]...)
		if !found {
			return n, nil
		}
		l.emit()
		b = rest
	}
}

func (l *lines) emit() {
	line := string(l.part)
	l.part = l.part[:0]
	if l.tail = append(l.tail, line); len(l.tail) > tailLines {
		l.tail = l.tail[1:]
	}
	if l.log != nil {
		_, _ = io.WriteString(l.log, l.prefix+line+"\n") // a full disk must not stop the program
	}
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.part) > 0 {
		l.emit()
	}
}

func (l *lines) last() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.tail...)
}
