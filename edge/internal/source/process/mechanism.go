package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// The mechanisms, the best first.
const (
	// Connector is the kernel's process connector: every fork, exec and exit.
	Connector = "connector"
	// Opens watches executables being opened and reads the newest pids at once.
	Opens = "opens"
	// Polling looks at the cursor at intervals. It works wherever there is a procfs.
	Polling = "polling"
)

// gather is how long a scan waits for more after the first news.
const gather = 20 * time.Millisecond

// mechanism is a way to learn that programs start.
type mechanism interface {
	// run gathers until ctx ends and calls wake when there is something to take. An error says that it is of no use any
	// more.
	run(ctx context.Context, wake func()) error
	// take tells the sensor, whose lock is held, what was gathered; what it returns asks for a list of the pids, and for
	// a look into all of them.
	take(s *Sensor, now time.Time) (list, all bool)
	// busy is what its goroutine reads; nil when it reads nothing.
	busy() *busy
	// every is how often to scan without news.
	every(interval time.Duration) time.Duration
	close()
}

// polling is the mechanism of last resort: nothing announces anything.
type polling struct{}

func (polling) run(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (polling) take(s *Sensor, now time.Time) (list, all bool) { return s.passCursor(now) }

func (polling) every(interval time.Duration) time.Duration { return interval }

func (polling) busy() *busy { return nil }

func (polling) close() {}

// Mechanisms are the names that [Config].Mechanisms may hold, the best first.
func Mechanisms() []string { return []string{Connector, Opens, Polling} }

func checkMechanisms(names []string) error {
	for _, name := range names {
		if !slices.Contains(Mechanisms(), name) {
			return fmt.Errorf("process sensor: there is no mechanism %q; there are %s", name, strings.Join(Mechanisms(), ", "))
		}
	}
	return nil
}

var errOtherProc = errors.New("procfs is not mounted at /proc: the kernel's pids may not be those that it shows")

// choose takes the first mechanism that works of those that were not tried yet, and notes why others do not.
func (s *Sensor) choose(ctx context.Context) {
	for len(s.untried) > 0 {
		name := s.untried[0]
		s.untried = s.untried[1:]
		m, err := s.tryInTime(ctx, name)
		if err == nil {
			s.use(m, name)
			return
		}
		s.refuse(name, err)
	}
	s.use(polling{}, Polling)
}

func (s *Sensor) use(m mechanism, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mechanism, s.using = m, name
}

func (s *Sensor) refuse(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = make(map[string]string)
	}
	s.refused[name] = err.Error()
}

func (s *Sensor) try(name string, at *busy) (mechanism, error) {
	switch name {
	case Connector:
		return dialConnector(s.config, s.blocked, at)
	case Opens:
		return watchOpens(s.config, s.blocked, at)
	default:
		return polling{}, nil
	}
}

// Watching returns nil once the baseline stands: what started before is a part of it. Safe for concurrent use.
func (s *Sensor) Watching() error {
	if !s.watching.Load() {
		return errors.New("the baseline of the processes is not taken yet")
	}
	return nil
}

// Run emits what happens until ctx ends. It returns an error only when there is no procfs to watch.
func (s *Sensor) Run(
	ctx context.Context, emit func(*event.Event), _ func(ctx context.Context) error,
) error {
	s.untried = slices.Clone(s.config.Mechanisms)
	s.choose(ctx)
	if err := s.open(time.Now()); err != nil {
		s.mechanism.close()
		return fmt.Errorf("process sensor: %w; mount procfs or turn the sensor off", err)
	}
	defer s.close()
	s.watching.Store(true)
	defer s.watching.Store(false)
	for {
		s.log.Info("watching processes", "mechanism", s.using, "refused", s.refused)
		err := s.watch(ctx, emit)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errHeldUp) { // what holds it up is left alone from now on
			s.untried = append([]string{s.using}, s.untried...)
		} else {
			s.log.Warn("a mechanism ended: another one takes over", "mechanism", s.using, "error", err)
			s.refuse(s.using, err)
		}
		s.choose(ctx)
		s.resume()
	}
}

// watch scans when its mechanism has news, and now and then, until ctx ends or the mechanism does, which it closes.
func (s *Sensor) watch(ctx context.Context, emit func(*event.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	m := s.mechanism
	news, ended, closed := make(chan struct{}, 1), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(closed)
		defer m.close()
		ended <- m.run(ctx, func() {
			select {
			case news <- struct{}{}:
			default: // the scan to come takes it too
			}
		})
	}()
	mayWait := 2 * patience
	defer func() {
		cancel()
		select {
		case <-closed:
		case <-time.After(mayWait): // the kernel holds it up
		}
	}()
	var over overseer
	due := time.Now().Add(s.config.Interval)
	wait := time.NewTimer(s.config.Interval)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case <-news:
			if soon := time.Now().Add(gather); soon.Before(due) {
				due = soon
				wait.Reset(gather)
			}
			continue
		case <-wait.C:
		}
		events, next := s.scan(time.Now())
		for _, e := range events {
			emit(e)
		}
		now := time.Now()
		if pid := over.check(m.busy(), now); pid != 0 {
			s.blocked.add(pid, closed)
			s.sayBlocked(pid)
			mayWait = 0
			return fmt.Errorf("%w: pid %d", errHeldUp, pid)
		}
		due = now.Add(next)
		wait.Reset(next)
	}
}

// resume goes on where another mechanism ended: what happened in between is found by a look into everything.
func (s *Sensor) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announced = false
	s.cursor, _ = s.readCursor()
	s.listed = time.Time{}
	s.lookAll = true
}
