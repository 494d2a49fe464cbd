package network

// Stats is what a sensor did since it started.
type Stats struct {
	// Opened is how many TCP connections the kernel counted in this network namespace, both ends of a local one and
	// failed attempts counted. 0 where it keeps no counters.
	Opened uint64
	// MissedAtMost is Opened less the TCP connections that were seen.
	MissedAtMost uint64
	// Connects, Listens and Closes count events.
	Connects, Listens, Closes uint64
	// ShortLived are those of Connects that were over when they were seen.
	ShortLived uint64
	// Excluded are new sockets that make no events: the agent's own and ignored ones.
	Excluded uint64
	// Unjoined are events whose process was not found.
	Unjoined uint64
	// Denied counts processes whose open files the kernel refused to show.
	Denied uint64
	// Crowded counts lists that were cut because there were too many sockets.
	Crowded uint64
	// Sockets is how many are tracked now.
	Sockets int
	// Polls and Lists count looks at the counters and at the sockets.
	Polls, Lists uint64
}

// Stats returns the counters. It may be called concurrently.
func (s *Sensor) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.MissedAtMost = st.Opened - min(st.Opened, s.accounted)
	st.Denied = s.owners.denied
	st.Sockets = len(s.table)
	return st
}
