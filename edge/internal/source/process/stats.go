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
	// never did.
	Forks uint64
	// Exits counts exit events.
	Exits uint64
	// Excluded are new processes that make no events: the agent's own and kernel threads.
	Excluded uint64
	// Denied are processes of which the kernel refused to show a part.
	Denied uint64
	// Redacted counts credentials that were taken out of arguments.
	Redacted uint64
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
	st.Mechanism, st.Refused = s.using, maps.Clone(s.refused)
	st.MissedAtMost = st.Created - min(st.Created, s.accounted)
	for _, e := range s.tree {
		if e.gone.IsZero() {
			st.Processes++
		}
	}
	return st
}
