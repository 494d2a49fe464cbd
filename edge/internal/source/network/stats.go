package network

// Stats is what a sensor did since it started.
type Stats struct {
	// Listing is how the sockets of our own network namespace are listed: "sock_diag" or "/proc/net".
	Listing string
	// Refused is why sock_diag is not used, there or in some other namespace; empty when it is.
	Refused string
	// Opened is how many TCP connections the kernel counted in the network namespaces that are watched, both ends of a
	// local one and failed attempts counted. 0 where it keeps no counters.
	Opened uint64
	// MissedAtMost is Opened less the TCP connections that were seen.
	MissedAtMost uint64
	// Connects, Listens and Closes count events.
	Connects, Listens, Closes uint64
	// ShortLived are those of Connects that were over when they were seen.
	ShortLived uint64
	// Excluded are new sockets that make no events: the agent's own and ignored ones.
	Excluded uint64
	// Joined, Inferred and Unjoined are Connects and Listens: those whose process was found, those that have one which
	// tells at least where they belong, and those without one. Guessed are those of Unjoined that have candidates.
	Joined, Inferred, Unjoined, Guessed uint64
	// Denied counts processes whose open files the kernel refused to show.
	Denied uint64
	// Crowded counts lists that were cut because there were too many sockets.
	Crowded uint64
	// Notices is how many ends of sockets the kernel told; Overruns is how often it dropped some.
	Notices, Overruns uint64
	// Nameless are ends of TCP sockets without a peer that were not known: never connected, or connected and reset by
	// their own side before they were seen.
	Nameless uint64
	// Namespaces is how many network namespaces are watched, NamespacesByProc those of them through /proc only, and
	// NamespacesLeftOut those beyond the bound.
	Namespaces, NamespacesByProc, NamespacesLeftOut int
	// Sockets is how many are tracked now.
	Sockets int
	// Hunts counts lists for the processes of short connections.
	Hunts uint64
	// Polls counts looks, Lists how often the sockets of a namespace were listed.
	Polls, Lists uint64
}

// Stats returns the counters. It may be called concurrently.
func (s *Sensor) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.MissedAtMost = st.Opened - min(st.Opened, s.accounted)
	st.Denied = s.owners.denied
	st.Sockets = s.tracked
	st.Namespaces = len(s.spaces)
	for _, n := range s.spaces {
		if n.notices == nil {
			st.NamespacesByProc++
		}
	}
	return st
}

// Coverage is what a sensor saw of the connections of a span of time.
type Coverage struct {
	Listing      string `json:"listing"`
	Opened       uint64 `json:"opened"`
	Connects     uint64 `json:"connects"`
	Listens      uint64 `json:"listens"`
	ShortLived   uint64 `json:"short_lived"`
	MissedAtMost uint64 `json:"missed_at_most"`
	Joined       uint64 `json:"joined"`
	Inferred     uint64 `json:"inferred"`
	Unjoined     uint64 `json:"unjoined"`
	Guessed      uint64 `json:"guessed"`
	Excluded     uint64 `json:"excluded"`
}

// CoverageSince returns what happened between the Stats before and these.
func (s Stats) CoverageSince(before Stats) Coverage {
	if s.Polls < before.Polls { // the sensor was started again
		before = Stats{}
	}
	return Coverage{
		Listing: s.Listing,
		Opened:  s.Opened - before.Opened, Connects: s.Connects - before.Connects, Listens: s.Listens - before.Listens,
		ShortLived: s.ShortLived - before.ShortLived, MissedAtMost: s.MissedAtMost - min(s.MissedAtMost, before.MissedAtMost),
		Joined: s.Joined - before.Joined, Inferred: s.Inferred - before.Inferred, Unjoined: s.Unjoined - before.Unjoined,
		Guessed: s.Guessed - before.Guessed, Excluded: s.Excluded - before.Excluded,
	}
}
