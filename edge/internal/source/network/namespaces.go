package network

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
)

const (
	// surveyEvery is how often all processes are asked for their namespace, because one may enter another; new
	// processes are asked with the next poll. Of 300 processes it takes 2 ms, so where no process began since, and so none
	// that is about to enter one, it is done in every sixth turn.
	surveyEvery     = 5 * time.Second
	surveyQuietEach = 6
	// maxNew bounds the new pids that are asked one by one; a miss costs about 3 microseconds.
	maxNew = 256
	// othersAPoll bounds how many namespaces besides our own one poll looks at, in turn: 70 us each when nothing happened.
	othersAPoll = 8
)

// attach opens what n is watched through: sock_diag where the kernel allows it, else /proc. It reports whether n is still
// what its process is in.
func (s *Sensor) attach(n *namespace) (there bool) {
	if n.lister != nil { // a test's
		return true
	}
	var conn *sockdiag.Conn
	err := s.inside(n, func() error {
		n.ephemeral = s.files.ephemeral()
		c, closes, err := dial(s.buf)
		if err == nil {
			conn, n.notices = c, closes
		}
		return err
	})
	if err != nil && !n.home() && s.identify(strconv.Itoa(int(n.pid))) != n.id {
		return false // it ended, or went elsewhere: nothing was refused
	}
	if err != nil {
		s.stats.Refused = err.Error()
		s.log.Warn("sock_diag is refused: connections that end between two polls may go unseen", "namespace", n.id, "error", err)
		n.lister = newProcLister(n.dir)
		return true
	}
	n.lister = &diagLister{conn: conn, buf: s.buf, open: func() (c *sockdiag.Conn, err error) {
		err = s.inside(n, func() error {
			c, err = sockdiag.Open()
			return err
		})
		return c, err
	}}
	if s.follow != nil {
		s.follow(n)
	}
	return true
}

// inside runs f in the namespace n.
func (s *Sensor) inside(n *namespace, f func() error) error {
	if n.home() {
		return f()
	}
	return s.enter(filepath.Join(s.config.Proc, strconv.Itoa(int(n.pid)), "ns", "net"), func() error {
		// The pid may be another process's by now.
		if id := s.identify("thread-self"); id != n.id {
			return fmt.Errorf("process %d has left network namespace %d", n.pid, n.id)
		}
		return f()
	})
}

// identify tells a process's network namespace; 0 when it has none, as a zombie, or is gone. The kernel makes the
// files of /proc/PID/net once for each namespace (fs/proc/generic.c, proc_alloc_inum).
func (s *Sensor) identify(process string) uint64 {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(s.config.Proc, process, "net", "tcp"), &st) != nil {
		return 0
	}
	return st.Ino
}

// survey finds the network namespaces that came and went. What is in a new one is new, unless it is the baseline.
func (s *Sensor) survey(now time.Time, baseline bool) {
	if s.config.Namespaces <= 1 || s.spaces[0].id == 0 {
		return
	}
	before, newest := s.newest, s.files.newest()
	s.newest = newest
	s.settled = s.settled && newest == before && newest != 0
	if !surveyDue(now.Sub(s.surveyed), s.settled) && (newest == before || !s.entered(before, newest)) {
		return
	}
	s.settled, s.surveyed = true, now
	pids := s.owners.pids()
	slices.Reverse(pids) // the oldest process of a namespace is the one that will stay
	members := make(map[int32]uint64, len(pids))
	first := make(map[uint64]int32)
	for _, pid := range pids {
		id := s.identify(strconv.Itoa(int(pid)))
		members[pid] = id
		if _, found := first[id]; !found && id != 0 {
			first[id] = pid
		}
	}
	s.members = members
	s.spaces = slices.DeleteFunc(s.spaces, func(n *namespace) bool {
		pid, found := first[n.id]
		delete(first, n.id) // what stays is new
		if n.home() {
			return false
		}
		if !found {
			s.vanished(n, now)
			return true
		}
		if members[n.pid] != n.id {
			n.move(pid)
		}
		return false
	})
	s.stats.NamespacesLeftOut = 0
	for _, pid := range pids {
		id := members[pid]
		if first[id] != pid || id == 0 {
			continue
		}
		if len(s.spaces) >= s.config.Namespaces {
			s.stats.NamespacesLeftOut++
			continue
		}
		n := s.newNamespace(id, pid, s.netOf(pid))
		n.ephemeral = s.spaces[0].ephemeral
		if !s.attach(n) {
			s.settled = false // the next survey finds another process of it, if there is one
			continue
		}
		s.spaces = append(s.spaces, n)
		if err := n.begin(now, baseline); err != nil {
			s.log.Debug("a network namespace cannot be listed", "process", pid, "error", err)
		}
	}
	if s.stats.NamespacesLeftOut > 0 && !s.said.many {
		s.said.many = true
		s.log.Warn("there are more network namespaces than are watched: connections in the others go unseen", "limit", s.config.Namespaces)
	}
}

// entered reports whether a process between these pids may be in a namespace that is not watched.
func (s *Sensor) entered(before, newest int32) bool {
	if newest <= before || newest-before > maxNew {
		return true
	}
	for pid := newest; pid > before; pid-- {
		id := s.identify(strconv.Itoa(int(pid)))
		if id != 0 && !slices.ContainsFunc(s.spaces, func(n *namespace) bool { return n.id == id }) {
			return true
		}
	}
	return false
}

// surveyDue reports whether to ask all processes, that long after it was done last; quiet when none began since.
func surveyDue(since time.Duration, quiet bool) bool {
	return since >= surveyEvery && !quiet || since >= surveyQuietEach*surveyEvery
}

func (s *Sensor) netOf(pid int32) string {
	return filepath.Join(s.config.Proc, strconv.Itoa(int(pid)), "net")
}

// move makes pid the process through which n is seen.
func (n *namespace) move(pid int32) {
	n.pid, n.dir = pid, n.netOf(pid)
	if l, ok := n.lister.(*procLister); ok {
		l.dir = n.dir
	}
}

// vanished ends all that was in n.
func (s *Sensor) vanished(n *namespace, now time.Time) {
	n.hear(now)
	n.settle(now)
	for k, c := range n.table {
		n.ended(k, c, now)
		n.forget(k, c)
	}
	n.end()
}
