package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	programs, err := newRenamed(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, programs.close()) }()
	var all []time.Duration
	for i := range changes {
		name, err := programs.link(fmt.Sprintf("program-%03d", i))
		if err != nil {
			return err
		}
		r.await(name)
		since, err := programs.start(name)
		if err != nil {
			return err
		}
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
