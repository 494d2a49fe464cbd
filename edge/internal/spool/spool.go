package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// The bounds of the settings.
const (
	MinSegmentBytes = 64 << 10
	MaxSegmentBytes = 64 << 20
)

// ErrLocked is the error of Open for a folder that another process uses.
var ErrLocked = errors.New("the spool folder is in use by another process")

// errClosed is the error of what comes after Close.
var errClosed = errors.New("the spool is closed")

const (
	restart  = time.Second // between two tries to start in a folder that cannot be used
	sayAgain = time.Minute // between two log lines about the same trouble
)

// Config says where and how much.
type Config struct {
	Dir          string
	MaxBytes     int64 // of all segments; at least twice SegmentBytes
	SegmentBytes int64 // a segment that has more is not appended to
	// Sync has every record on the disk before Append returns.
	Sync bool
	// Fresh is how many records just appended are kept in memory to be handed on without reading them back.
	Fresh  int
	Logger *slog.Logger
}

// Record is a payload that waits.
type Record struct {
	Payload []byte
	Events  int

	seg *segment
	entry
}

// Stats are a spool's counters since it was opened, and what it holds.
type Stats struct {
	Records, Events int64 // that wait
	Bytes, Segments int64 // on disk

	Appended, Confirmed         int64 // records
	AppendedBytes               int64
	LostRecords, LostEvents     int64 // unconfirmed, in segments that gave way
	LostBytes                   int64
	Corrupt, CorruptBytes, Torn int64 // places and bytes of damage, bytes cut off ends
	Failures                    int64 // operations that the disk refused
}

// Spool is an open folder. Safe for concurrent use.
type Spool struct {
	c Config

	mu       sync.Mutex
	started  bool
	closed   bool
	tried    time.Time // to start
	lock     *os.File
	segments []*segment // by number
	active   *segment   // the newest, or nil
	next     uint64     // number of the next segment
	cursor   *segment   // where handing out is; may be gone
	at       int        // in cursor.index
	fresh    []*Record  // handed out before what the cursor is at
	behind   int64      // records that wait to be read back and handed out
	bytes    int64      // of the segments
	scratch  []byte
	more     chan struct{} // closed when something was appended
	stats    Stats
	err      error // of the last operation on the disk
	said     time.Time
	unsaid   int64 // failures since
	owed     bool  // trouble was said, and not yet that it is over
}

// Open opens or makes the folder. A folder that cannot be used now, for whatever reason but [ErrLocked], is no error:
// Append returns it, and tries again.
func Open(c Config) (*Spool, error) {
	s := &Spool{c: c, more: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(); errors.Is(err, ErrLocked) {
		return nil, err
	}
	return s, nil
}

// Append stores payload, which it owns from then on. It waits for the disk only.
func (s *Spool) Append(payload []byte, events int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if len(payload) > MaxRecord {
		return fmt.Errorf("a record of %d bytes: at most %d", len(payload), MaxRecord)
	}
	if err := s.start(); err != nil {
		return err
	}
	e, err := s.write(payload, events)
	if a := s.active; err != nil && a != nil && a.waiting.records == 0 && a.size > 0 {
		s.remove(a) // what fills the disk may be this segment, of which nothing is needed any more
		e, err = s.write(payload, events)
	}
	if err != nil {
		return s.trouble("appending", err)
	}
	s.healed()
	a := s.active
	s.bytes += e.end() - a.size
	a.size = e.end()
	a.waiting.add(e)
	s.stats.Appended++
	s.stats.AppendedBytes += int64(len(payload))
	if s.behind == 0 && len(s.fresh) < s.c.Fresh {
		a.out.add(e)
		s.fresh = append(s.fresh, &Record{Payload: payload, Events: events, seg: a, entry: e})
	} else {
		s.behind++
		a.index = append(a.index, e)
	}
	close(s.more)
	s.more = make(chan struct{})
	return nil
}

// Next waits for the oldest record that was not yet handed out. Its error is ctx's, or says that the spool is closed.
func (s *Spool) Next(ctx context.Context) (*Record, error) {
	for {
		s.mu.Lock()
		r, more, closed := s.due(), s.more, s.closed
		s.mu.Unlock()
		switch {
		case r != nil:
			return r, nil
		case closed:
			return nil, errClosed
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Confirm marks r as delivered.
func (s *Spool) Confirm(r *Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Confirmed++
	if s.closed || r.seg.gone {
		return
	}
	r.seg.out.remove(r.entry)
	r.seg.waiting.remove(r.entry)
	if r.seg.waiting.records == 0 && r.seg != s.active {
		s.remove(r.seg)
		return
	}
	// A mark that cannot be written means that the record comes twice after a restart.
	if _, err := r.seg.file.WriteAt([]byte{confirmed}, int64(r.off)+stateAt); err != nil {
		s.failed("confirming", err)
	}
}

// Release gives r back undelivered: it is handed out again after the folder was opened anew.
func (s *Spool) Release(r *Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.seg.out.remove(r.entry)
	if r.seg.gone {
		s.lose(tally{1, int64(r.events), int64(r.length)})
	}
}

// Stats returns the counters.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Segments, st.Bytes = int64(len(s.segments)), s.bytes
	for _, g := range s.segments {
		st.Records += g.waiting.records
		st.Events += g.waiting.events
	}
	return st
}

// Err returns what the disk said last, nil when it took what it was given.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the spool; what waits stays on disk.
func (s *Spool) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	close(s.more)
	if a := s.active; a != nil && a.waiting.records == 0 {
		s.remove(a)
	}
	for _, g := range s.segments {
		closeFile(g.file)
	}
	closeFile(s.lock)
}
