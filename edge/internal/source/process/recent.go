package process

import (
	"cmp"
	"slices"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

const (
	// maxRecent bounds the programs that are remembered for [Sensor.Recent]: a second of a storm, a minute of usual work.
	maxRecent = 512
	// maxInhabitants bounds the processes that are named of one container: some may hide their file system.
	maxInhabitants = 4
	// settled is how old a process is when it is where it will stay: a runtime starts a container's first process outside
	// and moves it in.
	settled = 5 * time.Second
)

// Began is a program that a process ran lately. It is shared: it must not be changed.
type Began struct {
	*event.Process

	At        time.Time // when it ran the program, which is later than the process's start
	Container string    // the id of the one it runs in; empty: none, or unknown
}

// Recent returns the last programs that began, at most maxRecent, the newest last. It takes in what the mechanism has
// gathered, so that a program is known here before its event is emitted: who asks wants to know who did what a moment
// ago. Those of which nothing but a name or a pid is known are not among them.
func (s *Sensor) Recent() []Began {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil {
		return nil // it does not run
	}
	now := time.Now()
	list, all := s.mechanism.take(s, now)
	s.lookAtForks(now)
	if list {
		s.listed = time.Time{} // at the next scan
	}
	s.lookAll = s.lookAll || all
	return slices.Concat(s.began[s.oldest:], s.began[:s.oldest])
}

// remember keeps the program of e, which was seen at that time, for Recent.
func (s *Sensor) remember(e *entry, at time.Time) {
	p := e.process
	if p.Cmdline == "" && p.Cwd == "" {
		return
	}
	if age := at.Sub(p.StartTime); !s.announced && age > 0 && age < listEvery {
		at = p.StartTime // a look comes later than what it finds
	}
	b := Began{Process: p, At: at}
	if c := s.container(e); c != nil {
		b.Container = c.ID
	}
	if len(s.began) < maxRecent {
		s.began = append(s.began, b)
		return
	}
	s.began[s.oldest] = b
	s.oldest = (s.oldest + 1) % maxRecent
}

// Inhabitant is a process of a container.
type Inhabitant struct {
	PID       int32
	Container string // its id
}

// Inhabitants returns the oldest processes of each container in view, at most maxInhabitants of each, by container and
// age: those through which its file system is reached for as long as possible. The agent's own are not among them.
func (s *Sensor) Inhabitants() []Inhabitant {
	s.mu.Lock()
	defer s.mu.Unlock()
	type lodger struct {
		Inhabitant

		start uint64
	}
	now := time.Now()
	var all []lodger
	for pid, e := range s.tree {
		if e.process == nil || e.own || !e.gone.IsZero() {
			continue
		}
		if e.where == nil && !e.settled {
			s.container(e)
			e.settled = now.Sub(e.born) >= settled
		}
		if e.where != nil {
			all = append(all, lodger{Inhabitant{pid, e.where.ID}, e.start})
		}
	}
	slices.SortFunc(all, func(a, b lodger) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.start, b.start), cmp.Compare(a.PID, b.PID))
	})
	out := make([]Inhabitant, 0, len(all))
	for _, l := range all {
		if n := len(out); n < maxInhabitants || out[n-maxInhabitants].Container != l.Container {
			out = append(out, l.Inhabitant)
		}
	}
	return out
}
