package process

import (
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/redact"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// listEvery is how often the pids are listed, to notice exits.
	listEvery = time.Second
	// young is how long a process is looked at in each list; later it is in every fourth, because reading 300 stats
	// takes 2.3 ms of CPU and few processes call execve late.
	young = 5 * time.Second
	// forkEvery is how soon a fork is looked at again, until forkAge: between fork and execve lie well under 1 ms as a
	// rule.
	forkEvery, forkAge = 2 * time.Millisecond, 20 * time.Millisecond
	// maxProbes bounds the pids that are opened one by one when the cursor moved; a miss costs about 3 microseconds,
	// a list of 300 processes 100.
	maxProbes = 1024
)

// Config is what a sensor needs to know. The zero value watches this machine.
type Config struct {
	// Proc is where procfs is mounted; "/proc" when empty.
	Proc string
	// Passwd is the passwd(5) file that names users; "/etc/passwd" when empty.
	Passwd string
	// Interval is the time between two looks at the cursor; 100 ms when 0.
	Interval time.Duration
	// Self is the agent's pid: it and what it starts make no events. Our own when 0.
	Self int32
	// Mechanisms are those to try, in their order; all of [Mechanisms] when empty. Polling is the last in any case.
	Mechanisms []string
	// Env names the variables whose values an exec event shows; [DefaultEnv] when nil, none when empty.
	Env []string
	// Container returns the container of a process that started at that clock tick, nil for the host's; it is false when
	// the process could not be read. Nil when nothing tells.
	Container func(pid int32, start uint64) (*event.Container, bool)
	// Redact takes credentials out of arguments and variables.
	Redact redact.Redactor
	// Logger takes what a person should know; nothing is logged when nil.
	Logger *slog.Logger
}

// Sensor watches processes. Its methods may be called concurrently; Run only once.
type Sensor struct {
	watching atomic.Bool

	config Config
	log    *slog.Logger
	loadID int // of loadavg, kept open: a look at the cursor costs one system call
	boot   time.Time

	untried []string // of Run's goroutine
	blocked *blocked
	// mechanism is changed by Run's goroutine alone, with the lock; without it that may read it.
	mechanism mechanism

	mu        sync.Mutex
	using     string            // the mechanism's name
	refused   map[string]string // why others are not used
	announced bool              // the kernel announces each fork, exec and exit
	lookAll   bool              // the next scan looks into everything
	unseen    unseen
	read      *reader
	helper    *helper // nil until it is needed
	users     users
	tree      map[int32]*entry
	stats     Stats
	accounted uint64
	cursor    int32
	pidMax    int32
	listed    time.Time      // when the pids were listed last
	fresh     []int32        // forks of the last second that ran no program yet
	depth     int            // of parents being read
	doubts    int            // lists that showed what the cursor did not announce
	events    []*event.Event // that the next scan hands out
	began     []Began        // a ring, once it is full
	oldest    int            // in it
	said      struct{ denied, unreadable bool }
}

// New checks c. It touches nothing outside.
func New(c Config) (*Sensor, error) {
	c.Proc = cmp.Or(c.Proc, "/proc")
	c.Passwd = cmp.Or(c.Passwd, "/etc/passwd")
	c.Interval = cmp.Or(c.Interval, 100*time.Millisecond)
	c.Self = cmp.Or(c.Self, int32(os.Getpid()))
	if c.Interval < time.Millisecond {
		return nil, fmt.Errorf("process sensor: the interval %v is shorter than 1ms", c.Interval)
	}
	if err := checkMechanisms(c.Mechanisms); err != nil {
		return nil, err
	}
	if len(c.Mechanisms) == 0 {
		c.Mechanisms = Mechanisms()
	}
	if c.Env == nil {
		c.Env = DefaultEnv()
	}
	s := &Sensor{
		config: c,
		log:    c.Logger,
		loadID: -1,
		boot:   bootTime(),
		users:  users{path: c.Passwd},
		tree:   make(map[int32]*entry),

		blocked:   &blocked{},
		mechanism: polling{},
		using:     Polling,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// bootTime is computed once: what a clock that is set later does must not change a process's identity. Of several
// tries the one that was interrupted the least counts, and the earlier end of it: no process starts in the future.
func bootTime() (boot time.Time) {
	least := time.Duration(-1)
	for range 8 {
		before := time.Now()
		var up unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil { // cannot fail since Linux 2.6.39
			return time.Time{}
		}
		if took := time.Since(before); least < 0 || took < least {
			least, boot = took, before.Add(-time.Duration(up.Nano()))
		}
	}
	return boot
}

// Name returns "process".
func (s *Sensor) Name() string { return "process" }

// open takes the baseline. The cursor is read before the list: what starts in between is in both.
func (s *Sensor) open(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := newReader(s.config.Proc)
	if err != nil {
		return err
	}
	s.read = r
	r.cut, r.env, r.blocked = s.config.Redact, s.config.Env, s.blocked
	s.loadID, err = unix.Open(filepath.Join(s.config.Proc, "loadavg"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.loadID = -1
	}
	s.tree, s.fresh, s.unseen = make(map[int32]*entry), nil, unseen{}
	s.events, s.began, s.oldest = nil, nil, 0
	s.pidMax = s.read.pidMax()
	s.cursor, _ = s.readCursor()
	n, err := r.list(func(pid int32) { s.look(pid, now, baseline) })
	if err == nil && n == 0 {
		err = fmt.Errorf("there is no process in %s: %w", s.config.Proc, fs.ErrNotExist)
	}
	if err != nil {
		s.closeLocked()
		return err
	}
	s.listed = now
	s.stats, s.accounted = Stats{}, 0
	return nil
}

func (s *Sensor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
}

func (s *Sensor) closeLocked() {
	s.dismiss()
	s.read.close()
	s.read = nil
	if s.loadID >= 0 {
		_ = unix.Close(s.loadID)
		s.loadID = -1
	}
}

// scan looks once and returns what happened, in the order of the processes' starts, and when to look again.
func (s *Sensor) scan(now time.Time) ([]*event.Event, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Scans++
	list, all := s.mechanism.take(s, now)
	all, s.lookAll = all || s.lookAll, false
	next := s.lookAtForks(now)
	if list || all || now.Sub(s.listed) >= listEvery || s.stats.CursorBlind {
		s.list(now, all)
	}
	s.nameUnseen(now, all)
	slices.SortStableFunc(s.events, func(a, b *event.Event) int {
		return cmp.Or(a.Timestamp.Compare(b.Timestamp), a.Process.StartTime.Compare(b.Process.StartTime))
	})
	events := s.events
	s.events = nil
	return events, next
}

// passCursor reads the pids that the cursor passed.
func (s *Sensor) passCursor(now time.Time) (list, all bool) {
	cur, ok := s.readCursor()
	if !ok || cur == s.cursor {
		return false, false
	}
	if cur < s.cursor {
		s.pidMax = s.read.pidMax()
	}
	gap := span{prev: s.cursor, cur: cur, max: s.pidMax}
	s.cursor = cur
	s.stats.Created += uint64(gap.len())
	if gap.len() > maxProbes {
		return true, true // any pid may have been reused
	}
	for pid := range gap.newestFirst() {
		if s.look(pid, now, passed) {
			s.account(pid)
		}
	}
	return false, false
}

// lookAtForks looks again at what has forked and not run its program yet.
func (s *Sensor) lookAtForks(now time.Time) time.Duration {
	next := s.mechanism.every(s.config.Interval)
	s.fresh = slices.DeleteFunc(s.fresh, func(pid int32) bool {
		e := s.tree[pid]
		if e == nil || !e.forked || now.Sub(e.born) >= listEvery { // from then on the list does
			return true
		}
		if e.born.Equal(now) || s.look(pid, now, listed) {
			if e.forked && now.Sub(e.born) < forkAge {
				next = min(next, forkEvery)
			}
		}
		return !e.forked
	})
	return next
}

// list notices exits and what the cursor did not announce. It looks into all processes, or into the young ones and a
// quarter of the others, or, where the kernel announces what happens and nothing was lost, into none.
func (s *Sensor) list(now time.Time, all bool) {
	s.stats.Lists++
	s.listed = now
	turn := int32(s.stats.Lists % 4)
	unannounced := false
	_, err := s.read.list(func(pid int32) {
		e := s.tree[pid]
		if s.announced && !all {
			if e != nil {
				e.list = s.stats.Lists
			}
			return
		}
		if e == nil || !e.gone.IsZero() || all || now.Sub(e.born) < young || pid%4 == turn {
			s.look(pid, now, listed)
		}
		seen := s.tree[pid]
		if seen == nil {
			return
		}
		seen.list = s.stats.Lists
		if seen != e { // new
			s.account(pid)
			unannounced = true
			if s.stats.CursorBlind {
				s.stats.Created++
			}
		}
	})
	if err != nil {
		if !s.said.unreadable {
			s.said.unreadable = true
			s.log.Error("processes cannot be listed: exits go unseen", "error", err)
		}
		return
	}
	crowded := len(s.tree) > maxDetailed
	slack := uint64(0)
	if s.announced {
		slack = 1 // the announcement, which tells more, may be on its way
	}
	for pid, e := range s.tree {
		if s.announced && e.forked && e.counted && now.Sub(e.born) >= listEvery {
			s.tallyFork(e)
		}
		switch {
		case e.list == s.stats.Lists || e.gone.IsZero() && e.list+slack == s.stats.Lists:
		case e.gone.IsZero():
			s.exit(e, now)
		case crowded || now.Sub(e.gone) >= linger:
			delete(s.tree, pid)
		}
	}
	s.judgeCursor(unannounced && !all)
}

// judgeCursor gives the cursor up when lists keep showing processes that it did not announce: it is constant where the
// kernel is an imitation (gVisor), and another namespace's when procfs is mounted from elsewhere.
func (s *Sensor) judgeCursor(unannounced bool) {
	const patience = 3 // one may be a process whose pid was chosen for it, clone3(2) set_tid
	if !unannounced || s.stats.CursorBlind || s.announced {
		return
	}
	if cur, ok := s.readCursor(); ok && cur != s.cursor {
		return // it moves: these started after it was read, and the next scan passes them
	}
	if s.doubts++; s.doubts < patience {
		return
	}
	s.stats.CursorBlind = true
	s.log.Warn("the newest pid in loadavg says nothing here: every scan lists all processes, and what was missed is unknown")
}

func (s *Sensor) readCursor() (int32, bool) { return cursorOf(s.loadID) }

// Process returns what is known of pid: what the sensor saw, or what a look shows now. It returns nil when there is no
// such process and none that ended within the last seconds, or it is a kernel thread. The caller may keep and change it.
func (s *Sensor) Process(pid int32) *event.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil {
		return nil
	}
	e := s.tree[pid]
	st, err := s.read.statOf(pid)
	same := e != nil && (err != nil || e.is(st.start) && !e.changed(st))
	if same && (!e.forked || err != nil) {
		return e.process.Clone()
	}
	if same && e.asked != nil && st.forked() {
		return e.asked.Clone()
	}
	if err != nil {
		return nil
	}
	d, err := s.inspect(pid)
	if err != nil || d.stat.kernel() || d.stat.thread {
		return nil
	}
	p := s.describe(pid, d)
	if e != nil && e.is(d.stat.start) && e.forked && d.stat.forked() {
		e.image, e.asked = d.stat.image, p.Clone() // a fork that serves connections is asked for with each
	}
	return p
}

// sayDenied says once that permissions are missing.
func (s *Sensor) sayDenied(pid int32) {
	s.stats.Denied++
	if s.said.denied {
		return
	}
	s.said.denied = true
	s.log.Warn("a process's executable or directory may not be read; events of such processes are partial: "+
		"run as its user, or as root with CAP_SYS_PTRACE", "pid", pid)
}
