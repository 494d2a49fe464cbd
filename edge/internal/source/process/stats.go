package process

import "maps"

// Stats is what a sensor did since it started.
type Stats struct {
	// Created is how many pids the kernel handed out at most, for processes and for threads.
	Created uint64
	// Threads are those of Created that turned out to be threads.
	Threads uint64
	// MissedAtMost is Created less all that was looked at.
	MissedAtMost uint64
	// Full, Partial and ByName count exec events by their capture.
	Full, Partial, ByName uint64
	// Forks are new processes that ran no program of their own when they were first seen; with the connector, those that
	// ran none within a second.
	Forks uint64
	// Twice counts what is in more than one of the others: forks that ran a program later or ended where that may have
	// gone unseen, and programs that took the place of another in the same process. Created is Threads, Forks, Full,
	// Partial, ByName, Excluded and MissedAtMost less Twice, give or take what is being looked at.
	Twice uint64
	// Exits counts exit events.
	Exits uint64
	// Excluded are new processes that make no events: the agent's own, kernel threads, and what began while the baseline
	// was taken.
	Excluded uint64
	// Denied are processes of which the kernel refused to show a part.
	Denied uint64
	// Redacted counts credentials that were taken out of arguments.
	Redacted uint64
	// HeldUp counts reads of processes that the kernel held up, Blocked is how many of them it does now. Such a process is
	// reported without its command line.
	HeldUp  uint64
	Blocked int
	// Trimmed are processes whose command line was not kept for their children, because too many run.
	Trimmed uint64
	// Processes is how many are known now.
	Processes int
	// Lost counts what a mechanism announced and the sensor could not take; it looked into every process then.
	Lost uint64
	// Namespaces are those whose executables are watched, by that many Watches; WatchesRefused could not be made; of
	// Hidden processes the executables may not be watched.
	Namespaces, Watches, WatchesRefused, Hidden int
	// Mechanism is the one in use, Refused says why each better one is not.
	Mechanism string
	Refused   map[string]string
	// Scans and Lists count readings of the cursor and of the list of pids.
	Scans, Lists uint64
	// CursorBlind says that the cursor cannot be used here, so that Created counts only what was seen.
	CursorBlind bool
}

// Stats returns the counters. It may be called concurrently.
func (s *Sensor) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Blocked, st.HeldUp = s.blocked.stats()
	st.Mechanism, st.Refused = s.using, maps.Clone(s.refused)
	st.MissedAtMost = st.Created - min(st.Created, s.accounted)
	for _, e := range s.tree {
		if e.gone.IsZero() {
			st.Processes++
		}
	}
	return st
}

// Coverage is what a sensor saw of what happened in a span of time. Created is Threads, Forks, Full, Partial, ByName,
// Excluded and MissedAtMost less Twice, give or take what began in one span and was read in the next.
type Coverage struct {
	Mechanism    string            `json:"mechanism"`
	Refused      map[string]string `json:"refused,omitempty"`
	Created      uint64            `json:"created"`
	Full         uint64            `json:"full"`
	Partial      uint64            `json:"partial"`
	ByName       uint64            `json:"by_name"`
	MissedAtMost uint64            `json:"missed_at_most"`
	// Unknown says that nothing bounds what was missed.
	Unknown  bool   `json:"unknown,omitempty"`
	Lost     uint64 `json:"lost"`
	HeldUp   uint64 `json:"held_up,omitempty"`
	Threads  uint64 `json:"threads"`
	Forks    uint64 `json:"forks"`
	Twice    uint64 `json:"twice"`
	Excluded uint64 `json:"excluded"`
	Exits    uint64 `json:"exits"`
}

// CoverageSince returns what happened between the Stats before and these. A later look may find what an earlier one
// counted as missed: what was missed is not less than none.
func (s Stats) CoverageSince(before Stats) Coverage {
	if s.Created < before.Created { // the sensor was started again
		before = Stats{}
	}
	return Coverage{
		Mechanism: s.Mechanism, Refused: s.Refused,
		Created: s.Created - before.Created,
		Full:    s.Full - before.Full, Partial: s.Partial - before.Partial, ByName: s.ByName - before.ByName,
		MissedAtMost: s.MissedAtMost - min(s.MissedAtMost, before.MissedAtMost),
		Unknown:      s.CursorBlind,
		Lost:         s.Lost - before.Lost, HeldUp: s.HeldUp - before.HeldUp,
		Threads: s.Threads - before.Threads, Forks: s.Forks - before.Forks, Twice: s.Twice - before.Twice,
		Excluded: s.Excluded - before.Excluded, Exits: s.Exits - before.Exits,
	}
}
