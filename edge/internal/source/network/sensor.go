package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// listEvery is how often the sockets are listed though the pulse stands still: a UDP socket may get a peer unseen.
const listEvery = 10 * time.Second

// Config is what a sensor needs to know. The zero value watches this machine.
type Config struct {
	// Proc is where procfs is mounted; "/proc" when empty.
	Proc string
	// Interval is the time between two polls; 200 ms when 0.
	Interval time.Duration
	// Self is the agent's pid, whose sockets make no events; our own when 0.
	Self int32
	// SuspiciousPorts are [DefaultSuspiciousPorts] when nil.
	SuspiciousPorts []uint16
	// InternalNets are the cluster's own ranges besides the private ones; [DefaultInternalNets] when nil.
	InternalNets []netip.Prefix
	// Ignore lists endpoints whose connections make no events: where the agent sends to. An unspecified address stands
	// for every address.
	Ignore []netip.AddrPort
	// Process describes a process for the events; nil when only pid and uid are to be known. It may return nil.
	Process func(pid int32) *event.Process
	// Logger takes what a person should know; nothing is logged when nil.
	Logger *slog.Logger
}

// lister lists the sockets of a network namespace; it appends to dst.
type lister interface {
	list(dst []socket) ([]socket, error)
}

// Sensor watches connections. Its methods may be called concurrently; Run only once.
type Sensor struct {
	config Config
	log    *slog.Logger
	lister lister

	mu        sync.Mutex
	files     smallFiles
	owners    *owners
	sockets   []socket // of the last list
	table     map[key]*conn
	listening map[service]time.Time // when each was listening last
	ephemeral ports
	pulse     pulse
	unsettled bool      // the next poll must list
	listed    time.Time // when the sockets were listed last
	accounted uint64
	stats     Stats
	events    []*event.Event
	said      struct{ denied, crowded, unreadable bool }
}

// service is where a process listens.
type service struct {
	protocol protocol
	port     uint16
}

// New checks c. It touches nothing outside.
func New(c Config) (*Sensor, error) {
	c.Proc = cmp.Or(c.Proc, "/proc")
	c.Interval = cmp.Or(c.Interval, 200*time.Millisecond)
	c.Self = cmp.Or(c.Self, int32(os.Getpid()))
	if c.Interval < time.Millisecond {
		return nil, fmt.Errorf("network sensor: the interval %v is shorter than 1ms", c.Interval)
	}
	for _, p := range c.InternalNets {
		if !p.IsValid() {
			return nil, errors.New("network sensor: an internal range is not a valid prefix")
		}
	}
	if c.SuspiciousPorts == nil {
		c.SuspiciousPorts = DefaultSuspiciousPorts()
	}
	if c.InternalNets == nil {
		c.InternalNets = DefaultInternalNets()
	}
	s := &Sensor{
		config:    c,
		log:       c.Logger,
		lister:    newProcLister(c.Proc),
		files:     smallFiles{proc: c.Proc, buf: make([]byte, 16<<10)},
		owners:    newOwners(c.Proc),
		table:     make(map[key]*conn),
		listening: make(map[service]time.Time),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Name returns "network".
func (s *Sensor) Name() string { return "network" }

// Run emits what happens until ctx ends. It returns an error only when the sockets cannot be listed at all.
func (s *Sensor) Run(
	ctx context.Context, emit func(*event.Event), _ func(ctx context.Context) error,
) error {
	if err := s.open(time.Now()); err != nil {
		return fmt.Errorf("network sensor: %w; mount procfs or turn the sensor off", err)
	}
	tick := time.NewTicker(s.config.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, e := range s.poll(time.Now()) {
			emit(e)
		}
	}
}

// open takes the baseline. The pulse is read before the list: what changes in between is seen in the next poll.
func (s *Sensor) open(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ephemeral = s.files.ephemeral()
	s.pulse, _ = s.files.pulse()
	if err := s.list(now, true); err != nil {
		return err
	}
	s.stats = Stats{}
	return nil
}

// poll looks once and returns what happened.
func (s *Sensor) poll(now time.Time) []*event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = nil
	s.stats.Polls++
	p, ok := s.files.pulse()
	if ok && p == s.pulse && !s.unsettled && now.Sub(s.listed) < listEvery {
		return nil
	}
	if ok {
		s.stats.Opened += p.opened() - min(p.opened(), s.pulse.opened())
		s.pulse = p
	}
	if err := s.list(now, false); err != nil && !s.said.unreadable {
		s.said.unreadable = true
		s.log.Error("sockets cannot be listed: connections go unseen until they can", "error", err)
	}
	if s.owners.denied > 0 && !s.said.denied {
		s.said.denied = true
		s.log.Warn("the open files of a process may not be read: connections of such processes have no process; " +
			"run as its user, or as root with CAP_SYS_PTRACE and CAP_DAC_OVERRIDE")
	}
	return s.events
}

// list lists the sockets and compares them with those that are known.
func (s *Sensor) list(now time.Time, baseline bool) error {
	var err error
	s.sockets, err = s.lister.list(s.sockets[:0])
	crowded := errors.Is(err, errCrowded)
	if err != nil && !crowded {
		return err
	}
	s.stats.Lists++
	s.listed = now
	if crowded {
		s.stats.Crowded++
		if !s.said.crowded {
			s.said.crowded = true
			s.log.Warn("there are more sockets than are tracked: connections go unseen", "limit", maxSockets)
		}
	}
	s.compare(now, baseline, crowded)
	return nil
}
