package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/netns"
	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// listEvery is how often the sockets are listed though the pulse stands still: a UDP socket may get a peer unseen.
	listEvery = 10 * time.Second
	// listOthersEvery is the same for other namespaces than our own, of which there are many.
	listOthersEvery = time.Minute
)

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
	// Namespaces is how many network namespaces are watched at most: our own and those of the processes that Proc shows.
	// Only our own when 0. In the others it takes CAP_SYS_ADMIN and CAP_SYS_PTRACE to see more than polls of /proc show.
	Namespaces int
	// Process describes a process for the events; nil when only pid and uid are to be known. It may return nil.
	Process func(pid int32) *event.Process
	// Recent returns the programs that began lately, the newest last, and what it returns is not changed any more. It may
	// be nil.
	Recent func() []Began
	// Container returns where a process runs; nil when nothing tells. It may return nil.
	Container func(pid int32) *event.Container
	// Logger takes what a person should know; nothing is logged when nil.
	Logger *slog.Logger
}

// Sensor watches connections. Its methods may be called concurrently; Run only once.
type Sensor struct {
	watching atomic.Bool

	config Config
	log    *slog.Logger
	mine   cookies // sockets of the agent
	seed   maphash.Seed
	// follow waits for a namespace's notices; nil when nothing runs.
	follow func(*namespace)
	enter  func(path string, f func() error) error

	mu        sync.Mutex
	files     smallFiles
	owners    *owners
	spaces    []*namespace // our own first
	turn      int          // the one of the others that is looked at next
	members   map[int32]uint64
	newest    int32     // pid when that was looked at last
	surveyed  time.Time // when all processes were asked last
	settled   bool      // no process began since, as far as is known
	searched  time.Duration
	tracked   int
	accounted uint64
	stats     Stats
	buf       []byte
	sockets   []socket // of the last list
	heard     []sockdiag.Socket
	events    []*event.Event
	recent    []Began // if asked for since the last poll or wake
	asked     bool
	said      struct{ denied, crowded, unreadable, many bool }
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
		config:  c,
		log:     c.Logger,
		seed:    maphash.MakeSeed(),
		enter:   netns.Enter,
		files:   smallFiles{proc: c.Proc, buf: make([]byte, 16<<10)},
		owners:  newOwners(c.Proc),
		members: make(map[int32]uint64),
		buf:     make([]byte, sockdiag.BufferSize),
	}
	s.spaces = []*namespace{s.newNamespace(0, 0, filepath.Join(c.Proc, "net"))}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Name returns "network".
func (s *Sensor) Name() string { return "network" }

// Control marks a socket as the agent's own before it is used, so that a connection makes no event even when it is over
// before it was listed. It is for net.Dialer and net.ListenConfig.
func (s *Sensor) Control(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		if cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			s.mine.add(cookie, time.Now())
		}
	})
}

// Watching returns nil once the baseline stands: what is open then is a part of it. Safe for concurrent use.
func (s *Sensor) Watching() error {
	if !s.watching.Load() {
		return errors.New("the baseline of the sockets is not taken yet")
	}
	return nil
}

// Run emits what happens until ctx ends. It returns an error only when the sockets cannot be listed at all.
func (s *Sensor) Run(
	ctx context.Context, emit func(*event.Event), _ func(ctx context.Context) error,
) error {
	ctx, stop := context.WithCancel(ctx)
	var followers sync.WaitGroup
	ready := make(chan *namespace)
	s.follow = func(n *namespace) {
		closes := n.notices
		followers.Go(func() {
			for closes.Wait() == nil {
				select {
				case ready <- n:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	defer followers.Wait()
	defer s.close()
	defer stop()
	if err := s.open(time.Now()); err != nil {
		return fmt.Errorf("network sensor: %w; mount procfs or turn the sensor off", err)
	}
	s.watching.Store(true)
	defer s.watching.Store(false)
	tick := time.NewTicker(s.config.Interval)
	defer tick.Stop()
	hunt := time.NewTimer(0)
	defer hunt.Stop()
	hunting := true // the timer runs
	for {
		var events []*event.Event
		var next time.Duration
		select {
		case <-hunt.C:
			events, next = s.hunt(time.Now())
			if hunting = next > 0; hunting {
				hunt.Reset(next)
			}
		case <-ctx.Done():
			return nil
		case <-tick.C:
			events = s.poll(time.Now())
		case n := <-ready:
			events = s.wake(n, time.Now())
		}
		for _, e := range events {
			emit(e)
		}
		if !hunting {
			if next = s.hunting(); next > 0 {
				hunting = true
				hunt.Reset(next)
			}
		}
	}
}

// open takes the baseline.
func (s *Sensor) open(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	home := s.spaces[0]
	home.id = s.identify("")
	home.ephemeral = s.files.ephemeral()
	s.attach(home)
	if err := home.begin(now, true); err != nil {
		return err
	}
	s.survey(now, true)
	s.stats = Stats{Refused: s.stats.Refused, Listing: "sock_diag", NamespacesLeftOut: s.stats.NamespacesLeftOut}
	if home.notices == nil {
		s.stats.Listing = "/proc/net"
	}
	return nil
}

// close ends what open and polls opened.
func (s *Sensor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.spaces {
		n.end()
	}
}

// poll looks once, at our own namespace and some others, and returns what happened.
func (s *Sensor) poll(now time.Time) []*event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun()
	s.stats.Polls++
	s.survey(now, false)
	s.spaces[0].look(now)
	others := s.spaces[1:]
	for range min(len(others), othersAPoll) {
		s.turn = (s.turn + 1) % len(others)
		others[s.turn].look(now)
	}
	if s.owners.denied > 0 && !s.said.denied {
		s.said.denied = true
		s.log.Warn("the open files of a process may not be read: connections of such processes have no process; " +
			"run as its user, or as root with CAP_SYS_PTRACE and CAP_DAC_OVERRIDE")
	}
	return s.events
}

// wake takes the notices of a namespace and returns what happened.
func (s *Sensor) wake(n *namespace, now time.Time) []*event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun()
	if !n.gone {
		n.hear(now)
	}
	return s.events
}

func (s *Sensor) begun() {
	s.events, s.searched = nil, 0
	s.recent, s.asked = nil, false
}
