package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// raised waits for the alert about one program.
type raised struct {
	mu      sync.Mutex
	exe     string // "": none is awaited
	arrived chan time.Time
}

func (r *raised) see(a *event.Alert, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exe != "" && a.Event != nil && a.Event.Process != nil && a.Event.Process.Exe == r.exe {
		r.exe = ""
		r.arrived <- at
	}
}

func (r *raised) await(exe string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exe = exe
}

// measure runs programs from /tmp, each under a name of its own so that none is the repeat of another, and prints how long
// the alerts took to their topic.
func (r *raised) measure(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("/tmp", "apss-bench-") // the rule is about /tmp, wherever TMPDIR is
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	defer func() {
		cancel() // kills them
		for _, cmd := range started {
			_ = cmd.Wait()
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		return err
	}
	original := filepath.Join(dir, "program")
	if err := os.WriteFile(original, program, 0o700); err != nil { //nolint:gosec // it is to be run
		return err
	}
	var all []time.Duration
	for i := range changes {
		name := filepath.Join(dir, fmt.Sprintf("program-%03d", i))
		if err := os.Link(original, name); err != nil {
			return err
		}
		r.await(name)
		cmd := exec.CommandContext(running, name, "60") //nolint:gosec // a copy of sleep
		since := time.Now()
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("running %s: %w", name, err)
		}
		started = append(started, cmd)
		timeout := time.NewTimer(arrival)
		select {
		case at := <-r.arrived:
			all = append(all, at.Sub(since))
		case <-timeout.C:
			return fmt.Errorf("the alert of %s did not arrive within %v", name, arrival)
		case <-ctx.Done():
			return ctx.Err()
		}
		timeout.Stop()
		if err := pause(ctx, spacing+time.Duration(i%17)*time.Millisecond); err != nil {
			return err
		}
	}
	printQuantiles(out, "exec-to-alert", all)
	return nil
}
