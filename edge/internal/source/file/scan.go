package file

import (
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// cause is why a name is looked at.
type cause struct {
	origin  origin
	at      time.Time
	written bool   // the kernel said so
	moved   bool   // the kernel said that the name was moved away
	touched bool   // the kernel said that the inode alone changed
	brief   bool   // the kernel said that the name came and went
	told    bool   // the kernel said of this name, or of a folder that it was in, that it came or went
	below   bool   // the name was found in a folder that is entered
	deep    bool   // folders are entered that are known
	renew   bool   // watches may have ended unseen
	diff    string // of the one name that is looked at
}

func (c *cause) effort() effort {
	switch {
	case c.origin == silent:
		return hashLater
	case c.written:
		return hashAlways
	case c.touched:
		return hashMoved
	}
	return hashChanged
}

// batch gathers what is found in one go, so that renames can be paired.
type batch struct {
	changes []change
	diffs   int // bytes of them
	stop    func() bool

	doubts []doubt
	unsure bool      // a name came of which the kernel has told nothing yet, or one was moved to where it has not told yet
	sure   bool      // nothing is doubted any more
	left   time.Time // when the first name was moved away; zero: none was
}

// doubt is a name that stands for another inode than it did, or for none, of which the kernel has told nothing: what it
// has to tell, such as that a folder above was moved, is still on its way.
type doubt struct {
	*node
	cause
}

func (b *batch) doubt(n *node, c cause) {
	c.diff = ""
	b.doubts = append(b.doubts, doubt{n, c})
}

func (b *batch) add(n *node, c cause, prev, cur *state) {
	if c.origin == silent {
		return
	}
	if b.diffs += len(c.diff); b.diffs > maxBatchDiffs || cur == nil {
		c.diff = ""
	}
	b.changes = append(b.changes, change{
		container: n.view().container, path: n.path(), prev: prev, cur: cur, at: c.at, origin: c.origin, written: c.written, moved: c.moved, diff: c.diff,
	})
}

// look looks at the entry name of the folder parent, which is at place on the disk.
func (s *Sensor) look(b *batch, parent *node, place, name string, c cause) *node {
	n := parent.add(name)
	if f := n.folder; f != nil {
		if f.own {
			s.counters.change(func(t *Stats) { t.Own++ })
			return n
		}
		if f.root != nil {
			s.refresh(b, f.root, c)
			return n
		}
	}
	place = join(place, name)
	s.pace.at(place)
	cur, diff, err := s.observe(n, place, c)
	if err != nil {
		s.skip(place, err)
		n.prune()
		return n
	}
	c.diff = diff
	s.settle(b, n, cur, c)
	return n
}

// again looks at n for a reason that is not a hint.
func (s *Sensor) again(b *batch, n *node, c cause) {
	switch {
	case n.root() != nil:
		s.refresh(b, n.root(), c)
	case n.parent != nil:
		s.look(b, n.parent, n.parent.place(), n.name, c)
	}
}

// settle makes cur the state of n and adds to b what changed.
func (s *Sensor) settle(b *batch, n *node, cur state, c cause) {
	known := n.state.kind != absent
	if !known && cur.kind != absent && (!c.told || c.below) && c.origin != silent {
		b.unsure = !b.sure
	}
	switch {
	case known && cur.id != n.state.id && !c.told && !b.sure:
		b.doubt(n, c)
		return
	case cur.kind == absent:
		if known {
			b.unsure = b.unsure || c.moved && !b.sure // a slow reader of the queue may have the old name alone
			s.vanish(b, n, c)
		} else if c.brief {
			s.counters.change(func(t *Stats) { t.Transient++ })
		}
		n.prune()
		return
	case known:
		s.update(b, n, cur, c)
	case s.size >= s.config.Limits.Files:
		s.counters.change(func(t *Stats) { t.Skipped.Files++ })
		s.sayMany.Do(func() {
			s.config.Logger.Warn("more files than the limit: the others are not watched", "limit", s.size, "one", n.path())
		})
		n.prune()
		return
	default:
		b.add(n, c, nil, &cur)
		s.count(&cur, 1)
		s.keep(n, cur)
	}
	if n.state.hashing == deferred {
		s.postpone(n, c.origin)
	}
	c.diff = ""
	if n.state.kind == directory && (c.deep || n.folder == nil || n.folder.watch == nil && !n.folder.polled) {
		s.enter(b, n, c)
	}
}

// update makes cur the state of n, which has another.
func (s *Sensor) update(b *batch, n *node, cur state, c cause) {
	if st := &n.state; s.isLog(n) && st.kind == cur.kind && st.id == cur.id && st.size <= cur.size {
		st.size, st.mtime, st.ctime = cur.size, cur.mtime, cur.ctime // which is no news, nor worth a write to the disk
	}
	prev := n.state
	d := compare(&prev, &cur, c.written)
	if d&undecided != 0 {
		cur = keepContent(&prev, &cur)
		s.postpone(n, c.origin)
	}
	if prev == cur {
		return
	}
	if prev.kind == directory {
		if cur.kind != directory {
			s.empty(b, n, c)
		}
		if cur.id != prev.id {
			s.watches.leave(n) // and it is entered anew
			n.asFolder().polled = false
		}
	}
	if d&^undecided != 0 || prev.id != cur.id {
		b.add(n, c, &prev, &cur)
	}
	if d&content != 0 {
		n.modified = s.elapsed(c.at)
	}
	s.count(&prev, -1)
	s.count(&cur, 1)
	s.keep(n, cur)
}

// keep makes st the state of n in the baseline, and on the disk later.
func (s *Sensor) keep(n *node, st state) {
	n.state = st
	if n.view() == s.main { // a container's baseline ends with it, at the latest with the agent
		s.unsaved.add(n)
	}
}

// count keeps the numbers of what is in the baseline.
func (s *Sensor) count(st *state, by int) {
	s.size += by
	s.counters.change(func(t *Stats) {
		if st.kind == directory {
			t.Folders += by
		} else {
			t.Files += by
		}
	})
}

// postpone hashes n when the rate limit allows.
func (s *Sensor) postpone(n *node, o origin) {
	if o == silent {
		o = rescan // what changes until then is told
	}
	s.backlog[n] = o
}

// vanish takes n and everything below it out of the baseline, the leaves first.
func (s *Sensor) vanish(b *batch, n *node, c cause) {
	s.empty(b, n, c)
	s.remove(b, n, c)
}

// empty takes everything below n out of the baseline.
func (s *Sensor) empty(b *batch, n *node, c cause) {
	var below []*node
	n.all(func(m *node) bool {
		if m != n {
			below = append(below, m)
		}
		return true
	})
	for _, m := range slices.Backward(below) {
		s.remove(b, m, c)
		m.prune()
	}
}

func (s *Sensor) remove(b *batch, n *node, c cause) {
	s.watches.leave(n)
	s.texts.forget(n)
	delete(s.polled, n)
	delete(s.backlog, n)
	if n.folder != nil {
		n.folder.polled = false
	}
	if n.state.kind == absent {
		return
	}
	prev := n.state
	b.add(n, c, &prev, nil)
	s.count(&prev, -1)
	s.keep(n, state{})
}

// enter watches the folder n and looks at its entries.
func (s *Sensor) enter(b *batch, n *node, c cause) {
	place := n.place()
	s.pace.at(place)
	depth := 0
	for m := n; m.root() == nil && m.parent != nil; m = m.parent {
		depth++
	}
	f := n.asFolder()
	switch {
	case depth > s.config.Limits.Depth:
		s.counters.change(func(t *Stats) { t.Skipped.Depth++ })
		f.polled = true
		return
	case (f.root != nil || n.parent.state.dev != n.state.dev) && isPseudo(place):
		s.counters.change(func(t *Stats) { t.Skipped.Pseudo++ })
		s.empty(b, n, c) // it may be mounted over what was known
		f.polled = true
		return
	}
	w, fresh, err := s.watches.of(place, true)
	if err == nil && !fresh && c.renew {
		if err = s.watches.renew(w); err != nil {
			s.watches.drop(w)
		}
	}
	if err == nil {
		s.watches.tell(w, n)
		f.polled = false
		delete(s.polled, n)
	} else {
		s.unwatched(place, err)
		f.polled = true
		s.polled[n] = struct{}{}
	}
	s.read(b, n, place, c)
}

// read looks at every entry of the folder n and at every name that it had.
func (s *Sensor) read(b *batch, n *node, place string, c cause) {
	d, err := openFolder(place)
	if err != nil {
		s.skip(place, err)
		return
	}
	defer d.Close()
	c.below = true
	s.round++
	round := s.round
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if b.stop() {
				return
			}
			s.look(b, n, place, name, c).round = round
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.skip(place, err)
			return
		}
	}
	if n.folder == nil {
		return
	}
	for name, child := range n.folder.children {
		if child.round != round && (child.state.kind != absent || child.root() != nil) {
			s.look(b, n, place, name, c)
		}
	}
}

// openFolder opens place if it is a folder, and never waits at a FIFO that took its name.
func openFolder(place string) (*os.File, error) {
	return os.OpenFile(solid(place), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// readNames returns the names in the folder place.
func readNames(place string) ([]string, error) {
	d, err := openFolder(place)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
