package file

import (
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// Stats are plain numbers: what the sensor has in hand, and what it did since it started.
type Stats struct {
	// In hand.
	Files, Folders int // in the baseline; Folders are not among Files
	Roots          int // containers
	Watches        int // inotify watches
	ReadWatches    int // inotify watches for reads
	Polled         int // folders and watched paths without a watch
	Unhashed       int // files whose hash waits for the rate limit
	// StalledAt is what the sensor has looked at for Stalled, which is too long: its file system does not answer. Empty
	// when all is well.
	StalledAt string
	Stalled   time.Duration

	// Events by operation.
	Created, Modified, Deleted, Renamed, Chmods, Chowns, Reads int

	Overflows  int // times that events of the kernel were lost
	Rescans    int // comparisons of everything with the baseline, the one at the start included
	Remounts   int // changes of what is mounted
	MountLists int // looks at what is mounted in a container
	Transient  int // files that came and went before they could be looked at
	Own        int // looks at the agent's own files that were spared
	Skipped    Skipped

	WriterSearches int // searches for the processes that have changed files open
	WritersMissed  int // changes that came too fast for one

	Opens         int // opens of read paths by others that the kernel told of
	ReadOverflows int // times that reads were lost in the kernel's queue
	ReadsUnsure   int // reads that were not told: they could have been our own, or there were too many readers

	Stalls int // times that a file system did not answer

	StateFaults int // state files that were set aside, and writes of it that failed
}

// Skipped counts what the sensor did not take in, by reason. What is met again at a rescan counts again.
type Skipped struct {
	Permission  int // not allowed to list, to stat or to read: known by stat alone, or not at all
	Roots       int // containers beyond Limits.Roots at this moment
	Files       int // beyond Limits.Files
	Depth       int // folders beyond Limits.Depth
	Watches     int // folders beyond the limit of watches: polled
	ReadWatches int // files and folders whose reads are not seen, for want of watches
	Pseudo      int // file systems such as proc
	Other       int // other errors, in the log
}

type counters struct {
	mu sync.Mutex
	s  Stats
}

func (c *counters) change(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.s)
}

// Stats returns the numbers of this moment. It may be called at any time.
func (s *Sensor) Stats() Stats {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	st := s.counters.s
	st.StalledAt, st.Stalled = s.pace.stalled(time.Now())
	return st
}

// tally counts an event by its operation.
func (t *Stats) tally(typ event.Type) {
	switch typ {
	case event.FileCreate:
		t.Created++
	case event.FileModify:
		t.Modified++
	case event.FileDelete:
		t.Deleted++
	case event.FileRename:
		t.Renamed++
	case event.FileChmod:
		t.Chmods++
	case event.FileChown:
		t.Chowns++
	case event.FileRead:
		t.Reads++
	default:
	}
}
