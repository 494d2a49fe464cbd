// Package measure is apss-local bench: what the system takes of time and of the machine. It prints lines
//
//	BENCH <name> <value> <unit>
//
// Latencies are from the return of the system call that changed a file to the event's arrival at the stand-in, or on the
// topic, seen by a subscriber in this process; those of alerts are from the start of a program to its alert on the topic,
// and to each receiver. How far a receiver that hangs delays the others is measured with alerts that are published at a
// steady pace, in turns with it and without.
// The agent's cost is the kernel's account of it (proc_pid_stat(5), proc_pid_status(5)) with 300 more processes asleep on
// the machine than it has anyway: while nothing is asked of it, and while 200 programs start in a second; and again for an
// agent without the rule pack. What else starts on the machine costs the agent too; the rate of it stands beside, and what
// is left of the idle cost without it.
package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	changes   = 150
	spacing   = 30 * time.Millisecond // between an arrival and the next change, plus a little that varies
	arrival   = 10 * time.Second
	plainFile = "notes"
)

// Run measures and prints.
func Run(ctx context.Context, c system.Config, out io.Writer) (err error) {
	seen := newSeen()
	raised := &raised{arrived: make(chan time.Time, 1)}
	delivered := newDeliveries()
	c.NoRate = true
	s, err := system.Start(ctx, c, system.Watcher{
		Published: seen.published, Delivered: seen.delivered, Alerted: raised.see, AlertDelivered: delivered.alert, Shown: delivered.shown,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop(ctx)) }()
	if err := s.StartAgent(ctx); err != nil {
		return err
	}
	plain, err := seen.measure(ctx, filepath.Join(c.Demo(), plainFile))
	if err != nil {
		return err
	}
	plain.print(out, "file-to-receiver", plain.receiver)
	high, err := seen.measure(ctx, c.Keys())
	if err != nil {
		return err
	}
	if high.severity >= event.High {
		high.print(out, "high-file-to-topic", high.topic)
		high.print(out, "high-file-to-receiver", high.receiver)
	} else {
		err = fmt.Errorf("changes of %s are %v events, want HIGH: their latency would mean nothing", c.Keys(), high.severity)
	}
	if err := errors.Join(err, raised.measure(ctx, out)); err != nil {
		return err
	}
	if err := errors.Join(delivered.deeds(ctx, out), delivered.isolation(ctx, s, out)); err != nil {
		return err
	}
	for _, agent := range []struct {
		suffix string
		noPack bool
	}{{"", false}, {"-without-rules", true}} {
		s.KillAgent() // what it did so far is in its memory
		s.Config.NoPack = agent.noPack
		if err := s.StartAgent(ctx); err != nil {
			return err
		}
		if err := costs(ctx, s.Agent().PID(), agent.suffix, out); err != nil {
			return err
		}
	}
	return nil
}

// latencies of one file's changes.
type latencies struct {
	topic, receiver []time.Duration
	severity        event.Severity // the least
}

func (l latencies) print(out io.Writer, name string, all []time.Duration) {
	printQuantiles(out, name, all)
}

func printQuantiles(out io.Writer, name string, all []time.Duration) {
	quantilesOf(all).report(out, name)
}

type quantiles struct{ median, p99 time.Duration }

// quantilesOf sorts all, which must not be empty.
func quantilesOf(all []time.Duration) quantiles {
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))] }
	return quantiles{at(0.5), at(0.99)}
}

func (q quantiles) report(out io.Writer, name string) {
	for _, v := range []struct {
		name string
		time.Duration
	}{{"median", q.median}, {"p99", q.p99}} {
		fmt.Fprintf(out, "BENCH %s-%s %.1f ms\n", name, v.name, float64(v.Microseconds())/1000)
	}
}

// seen holds the first sight of events of the file that is being changed, by their size: each change adds a byte.
type seen struct {
	mu      sync.Mutex
	path    string
	size    int64 // of the change that is awaited
	topic   time.Time
	arrived chan arrived
}

type arrived struct {
	topic, receiver time.Time
	severity        event.Severity
}

func newSeen() *seen { return &seen{arrived: make(chan arrived, 1)} }

func (s *seen) published(raw event.Raw, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.awaited(raw); ok && s.topic.IsZero() {
		s.topic = at
	}
}

func (s *seen) delivered(raw event.Raw, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.awaited(raw)
	if !ok {
		return
	}
	topic := s.topic
	if topic.IsZero() {
		topic = at // the topic's subscriber is a moment behind
	}
	s.path = ""
	s.arrived <- arrived{topic, at, e.Severity}
}

func (s *seen) awaited(raw event.Raw) (*event.Event, bool) {
	if s.path == "" {
		return nil, false
	}
	e, err := event.Decode(raw)
	return e, err == nil && e.File != nil && e.File.Path == s.path && e.File.Size >= s.size
}

func (s *seen) await(path string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path, s.size, s.topic = path, size, time.Time{}
}

func (s *seen) measure(ctx context.Context, path string) (l latencies, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	l.severity = event.Critical
	size, err := s.warm(ctx, f)
	if err != nil {
		return l, err
	}
	timeout := time.NewTimer(arrival)
	defer timeout.Stop()
	for i := range changes {
		size++
		s.await(path, size)
		if _, err := f.WriteString("x"); err != nil {
			return l, err
		}
		since := time.Now()
		timeout.Reset(arrival)
		select {
		case a := <-s.arrived:
			l.topic = append(l.topic, a.topic.Sub(since))
			l.receiver = append(l.receiver, a.receiver.Sub(since))
			l.severity = min(l.severity, a.severity)
		case <-timeout.C:
			return l, fmt.Errorf("change %d of %s did not arrive within %v", i, path, arrival)
		case <-ctx.Done():
			return l, ctx.Err()
		}
		if err := pause(ctx, spacing+time.Duration(i%17)*time.Millisecond); err != nil { // never in step with a poll
			return l, err
		}
	}
	return l, nil
}

// warm changes the file until a change arrives: what is there when the agent first looks is no event. It returns the
// file's size.
func (s *seen) warm(ctx context.Context, f *os.File) (size int64, err error) {
	const tries = 20
	for range tries {
		if _, err := f.WriteString("x"); err != nil {
			return 0, err
		}
		size++
		s.await(f.Name(), 1)
		timer := time.NewTimer(arrival / tries)
		select {
		case <-s.arrived:
			timer.Stop()
			return size, pause(ctx, time.Second) // for what else there is to come
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
	}
	return 0, fmt.Errorf("the agent does not tell of changes of %s: nothing within %v", f.Name(), arrival)
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
