package file

import (
	"context"
	"maps"
	"slices"
	"time"
)

// loop does what is due until ctx ends.
func (s *Sensor) loop(ctx context.Context, sv *saver) {
	now := time.Now()
	rescanAt, pollAt, saveAt := now.Add(s.config.Rescan), now.Add(s.config.Poll), now
	var cost time.Duration // of the last rescan
	var ended time.Time
	var roots <-chan []Root
	var moved []string // points at which the mounts changed
	if s.config.Roots != nil {
		roots = s.config.Roots(ctx)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.pace.rest()
		select {
		case <-ctx.Done():
			s.save(sv, true)
			return
		case list, ok := <-roots:
			if !ok {
				roots = nil
				continue
			}
			s.setRoots(ctx, list)
		case moved = <-s.mounts.changes():
		case <-s.hints.wake:
		case <-timer.C:
		}
		now = time.Now()
		if lost, err := s.hints.overflowed(); lost {
			s.counters.change(func(t *Stats) { t.Overflows++ })
			s.sayLost.Do(func() {
				s.config.Logger.Warn("events of the kernel were lost: everything is compared with the baseline", "error", err)
			})
			// At most a fifth of the time goes into rescans.
			at := latest(now.Add(2*s.config.Settle), ended.Add(4*cost))
			rescanAt = earliest(rescanAt, at)
		}
		b := newBatch(ctx)
		due, next := s.hints.take(now, time.Time{}, s.busy)
		s.process(b, due)
		if moved != nil {
			s.remounted(b, s.main, moved, cause{origin: remount, at: now, deep: true})
			moved = nil
		}
		if !now.Before(rescanAt) {
			s.all(b, cause{origin: rescan, at: now, deep: true, renew: true})
			ended = time.Now()
			cost, rescanAt = ended.Sub(now), ended.Add(s.config.Rescan)
		}
		if !now.Before(pollAt) {
			s.poll(b, cause{origin: rescan, at: now})
			s.remountedIn(b, cause{origin: remount, at: now, deep: true})
			pollAt = time.Now().Add(s.config.Poll)
		}
		s.flush(b)
		next = earliest(next, s.catchUp(b))
		if sv != nil && (!s.unsaved.empty() || sv.whole.Load()) {
			if !now.Before(saveAt) {
				s.save(sv, false)
				saveAt = now.Add(saveEvery)
			}
			next = earliest(next, saveAt)
		}
		s.counters.change(func(t *Stats) {
			t.Watches, t.Polled, t.Unhashed = s.watches.len(), s.countPolled(), len(s.backlog)
		})
		timer.Reset(time.Until(earliest(next, earliest(rescanAt, pollAt))))
	}
}

// earliest returns the earlier of two times, of which a may be zero: never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// elapsed returns how long at was after the sensor was made, in nanoseconds, however the clock is set.
func (s *Sensor) elapsed(at time.Time) int64 { return int64(at.Sub(s.made)) }

// busy reports whether the content of the file at place changed so lately that it is likely to change again.
func (s *Sensor) busy(place string) bool {
	dir, name := split(place)
	w := s.watches.at(dir)
	if w == nil {
		return false
	}
	since := max(0, s.elapsed(time.Now().Add(-5*s.config.Settle)))
	for _, n := range w.nodes {
		if c := n.child(name); c != nil && c.modified > since {
			return true
		}
	}
	for _, r := range w.steps[name] {
		if r.node != nil && r.node.modified > since {
			return true
		}
	}
	return false
}

// process looks at what the kernel told of.
func (s *Sensor) process(b *batch, due []*hint) {
	for _, h := range due {
		if h.ops.has(movedAway) {
			b.left = earliest(b.left, h.first)
		}
		c := cause{
			at: h.seen, written: h.written(), moved: h.ops.has(movedAway), touched: h.ops == touched,
			told: h.structural(), brief: h.ops.has(created) && h.ops.has(removed),
		}
		if w := s.watches.at(h.path); w != nil {
			if h.ops.has(removed) || h.ops.has(movedAway) {
				s.watches.drop(w)
			} else {
				for _, n := range slices.Clone(w.nodes) {
					s.again(b, n, c)
				}
			}
		}
		dir, name := split(h.path)
		if w := s.watches.at(dir); w != nil {
			for _, n := range slices.Clone(w.nodes) {
				s.look(b, n, n.place(), name, c)
			}
			for _, r := range slices.Clone(w.steps[name]) {
				if r.node == nil { // of a pattern, a folder on the way
					if h.structural() {
						s.expand(b, r, c)
					}
				} else if h.structural() || !r.leads(dir, name) {
					s.refresh(b, r, c)
				} else {
					s.inspect(b, r, c)
				}
			}
			if h.structural() {
				for _, p := range slices.Clone(w.steps[anyName]) {
					s.expand(b, p, c)
				}
			}
		}
		s.adopt(b, c)
	}
}

// adopt looks again at what lost its watch.
func (s *Sensor) adopt(b *batch, c cause) {
	c.written, c.moved, c.touched, c.brief, c.told = false, false, false, false, false
	for len(s.watches.lost) > 0 {
		lost := s.watches.lost
		s.watches.lost = nil
		for _, w := range lost {
			for _, n := range w.nodes {
				s.again(b, n, c)
			}
			for _, rs := range w.steps {
				for _, r := range rs {
					if r.node == nil {
						s.expand(b, r, c)
					} else {
						s.refresh(b, r, c)
					}
				}
			}
		}
	}
}

// poll looks at what has no watch, and tries for one.
func (s *Sensor) poll(b *batch, c cause) {
	for n := range maps.Clone(s.polled) {
		n.folder.polled = false
		s.again(b, n, c)
	}
	for _, r := range slices.Clone(s.roots) {
		if r.polled {
			s.refresh(b, r, c)
		}
	}
	for _, p := range s.patterns {
		if p.polled {
			s.expand(b, p, c)
		}
	}
	s.adopt(b, c)
}

func (s *Sensor) countPolled() int {
	n := len(s.polled)
	for _, r := range s.roots {
		if r.polled {
			n++
		}
	}
	return n
}

// catchUp hashes what had to wait, for a few milliseconds at a time, and returns when to go on (zero: all is done).
func (s *Sensor) catchUp(b *batch) time.Time {
	now := time.Now()
	before := len(s.backlog)
	for n, o := range s.backlog {
		if b.stop() {
			return time.Time{}
		}
		if time.Since(now) > 2*time.Millisecond {
			if len(s.backlog) == before {
				break // all of them too large for what the limit has left
			}
			s.flush(b)
			return time.Now()
		}
		if s.observer.limiter.Tokens() < smallFile {
			break
		}
		delete(s.backlog, n)
		s.again(b, n, cause{origin: o, at: now})
	}
	s.flush(b)
	if len(s.backlog) == 0 {
		return time.Time{}
	}
	return time.Now().Add(50 * time.Millisecond)
}

// save hands what is unsaved to the saver, if that has room for it; the last time it waits for that.
func (s *Sensor) save(sv *saver, last bool) {
	if sv == nil || len(sv.in) > 0 && !last {
		return
	}
	s.unsaved.whole = s.unsaved.whole || sv.whole.Load()
	if !s.unsaved.empty() {
		sv.in <- s.unsaved.take(s.top, s.config.Paths) // the only sender
	}
}

func newBatch(ctx context.Context) *batch {
	return &batch{stop: func() bool { return ctx.Err() != nil }}
}

// makeSure brings b to what happened: a look sees at once what the kernel tells a moment later, so what b holds may be
// one half of a rename. It waits until all that the kernel told so far is in, looks at the renames among it, and then
// believes what it still finds changed.
func (s *Sensor) makeSure(b *batch) {
	for round := 0; len(b.doubts) > 0 || b.unsure; round++ {
		doubts := b.doubts
		b.doubts, b.unsure, b.sure = nil, false, round >= 2 // what happens on and on is told as it looks
		whole := s.hints.caughtUp()
		due, _ := s.hints.take(time.Now().Add(pairing), b.left, s.busy)
		s.process(b, due)
		for _, d := range doubts {
			if whole || d.deep { // else the comparison that follows finds it
				d.told = true
				s.again(b, d.node, d.cause)
			}
		}
	}
}

// flush emits what b holds.
func (s *Sensor) flush(b *batch) {
	s.makeSure(b)
	changes := pair(compose(b.changes))
	s.nameLinks(changes)
	s.nameWriters(changes)
	for _, c := range changes {
		for _, e := range c.events() {
			s.counters.change(func(t *Stats) { t.tally(e.Type) })
			s.emit(e)
		}
	}
	b.changes, b.diffs, b.sure, b.left = nil, 0, false, time.Time{}
}
