package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// start takes the folder: lock, and what a former process left.
func (s *Spool) start() error {
	if s.started {
		return nil
	}
	now := time.Now()
	if s.err != nil && now.Sub(s.tried) < restart {
		return s.err
	}
	s.tried = now
	err := s.take()
	if errors.Is(err, ErrLocked) {
		s.err = err
		return err
	}
	if err != nil {
		return s.trouble("opening", err)
	}
	s.started = true
	return nil
}

func (s *Spool) take() error {
	if err := os.MkdirAll(s.c.Dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(s.c.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closeFile(lock)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s: %w: give each agent its own", s.c.Dir, ErrLocked)
		}
		return fmt.Errorf("locking %s: %w", s.c.Dir, err)
	}
	if err := s.load(); err != nil {
		closeFile(lock)
		return err
	}
	s.lock = lock
	return nil
}

// load reads what a former process left.
func (s *Spool) load() error {
	ids, err := list(s.c.Dir)
	if err != nil {
		return err
	}
	s.segments, s.active, s.cursor, s.behind, s.bytes = nil, nil, nil, 0, 0
	var room []byte
	for _, id := range ids {
		s.next = id + 1
		g := &segment{id: id}
		if err := s.enter(g, &room); err != nil {
			closeFile(g.file)
			s.failed("reading "+segmentName(id), err) // it stays where it is, for a person or a better day
			continue
		}
		s.segments = append(s.segments, g)
		s.bytes += g.size
		if g.waiting.records == 0 {
			s.remove(g)
			continue
		}
		s.behind += g.waiting.records
		g.forget() // read again when it is due
	}
	if n := len(s.segments); n > 0 && s.segments[n-1].size < s.c.SegmentBytes {
		s.active = s.segments[n-1]
		return s.enter(s.active, &room)
	}
	return nil
}

// enter opens g and lists what waits in it.
func (s *Spool) enter(g *segment, room *[]byte) (err error) {
	if g.file == nil {
		if g.file, err = os.OpenFile(filepath.Join(s.c.Dir, segmentName(g.id)), os.O_RDWR, 0); err != nil {
			return err
		}
	}
	if g.indexed {
		return nil
	}
	data, err := readSegment(g.file, *room)
	if err != nil {
		return err
	}
	*room = data
	first := g.size == 0
	var d damage
	g.index, g.waiting, g.size, g.indexed = nil, tally{}, int64(len(data)), true
	for r := range scan(data, &d) {
		if !r.done {
			g.index = append(g.index, r.entry)
			g.waiting.add(r.entry)
		}
	}
	if !first || d == (damage{}) {
		return nil
	}
	s.stats.Corrupt += int64(d.corrupt)
	s.stats.CorruptBytes += int64(d.skipped)
	s.stats.Torn += int64(d.torn)
	s.c.Logger.Warn("the spool has a damaged segment; its valid records are sent", "segment", g.file.Name(), "damage", d.String())
	if d.torn > 0 {
		g.size -= int64(d.torn)
		return g.file.Truncate(g.size)
	}
	return nil
}

// write puts a record at the end of the active segment, or of a new one.
func (s *Spool) write(payload []byte, events int) (entry, error) {
	need := int64(headerSize + len(payload))
	if need > s.c.MaxBytes {
		return entry{}, fmt.Errorf("a record of %d bytes does not fit into %d", need, s.c.MaxBytes)
	}
	for len(s.segments) > 0 && s.bytes+need > s.c.MaxBytes {
		s.evict(s.segments[0])
	}
	if s.active == nil || s.active.size >= s.c.SegmentBytes {
		if err := s.roll(); err != nil {
			return entry{}, err
		}
	}
	a := s.active
	s.scratch = appendRecord(s.scratch[:0], payload, events)
	_, err := a.file.WriteAt(s.scratch, a.size)
	if err == nil && s.c.Sync {
		err = unix.Fdatasync(int(a.file.Fd()))
	}
	if err != nil {
		_ = a.file.Truncate(a.size) // or the next record overwrites it, or the next start cuts it off
		return entry{}, err
	}
	return entry{uint32(a.size), uint32(len(payload)), uint32(events)}, nil
}

// roll begins a new segment.
func (s *Spool) roll() error {
	path := filepath.Join(s.c.Dir, segmentName(s.next))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrNotExist) { // somebody removed the folder
		if err = os.MkdirAll(s.c.Dir, 0o700); err == nil {
			f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		}
	}
	if err != nil {
		return err
	}
	if s.c.Sync {
		if err := syncDir(s.c.Dir); err != nil {
			closeFile(f)
			_ = os.Remove(path)
			return err
		}
	}
	s.next++
	old := s.active
	s.active = &segment{id: s.next - 1, file: f, indexed: true}
	s.segments = append(s.segments, s.active)
	if old != nil && old.waiting.records == 0 {
		s.remove(old)
	} else if old != nil && old != s.cursor && old.out.records == 0 {
		old.forget()
	}
	return nil
}

// evict removes the oldest segment for want of room.
func (s *Spool) evict(g *segment) {
	lost := tally{g.waiting.records - g.out.records, g.waiting.events - g.out.events, g.waiting.bytes - g.out.bytes}
	s.lose(lost)
	s.behind -= lost.records
	s.remove(g)
	if lost.records > 0 && s.mayComplain() {
		s.c.Logger.Error("the spool is full: the oldest segments give way",
			"dir", s.c.Dir, "lost_records", s.stats.LostRecords, "lost_events", s.stats.LostEvents)
	}
}

func (s *Spool) lose(t tally) {
	s.stats.LostRecords += t.records
	s.stats.LostEvents += t.events
	s.stats.LostBytes += t.bytes
}

func (s *Spool) remove(g *segment) {
	if err := os.Remove(filepath.Join(s.c.Dir, segmentName(g.id))); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.failed("removing "+segmentName(g.id), err)
	}
	g.forget()
	g.gone = true
	s.bytes -= g.size
	if s.active == g {
		s.active = nil
	}
	s.segments = slices.DeleteFunc(s.segments, func(o *segment) bool { return o == g })
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer closeFile(d)
	return d.Sync()
}
