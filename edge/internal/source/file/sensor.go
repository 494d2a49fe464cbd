package file

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/time/rate"

	"github.com/apss-sensor/apss/shared/event"
)

// Sensor watches files. Run does all of its work in one goroutine, which alone touches the tree; a second one empties
// the kernel's queue into hints and a third writes the state file.
type Sensor struct {
	config   Config
	counters counters

	emit     func(*event.Event)
	top      *node
	size     int      // of the baseline
	covered  []string // the watched paths of the loaded baseline
	roots    []*root
	patterns []*root
	hints    *hints
	watches  *watches
	observer *observer
	polled   map[*node]struct{}
	backlog  map[*node]origin // to be hashed when the rate limit allows
	unsaved  unsaved
	round    uint32

	// What is said once a minute at the most; the numbers are in Stats.
	sayFault, saySkip, sayFull, sayMany, sayLost rate.Sometimes
}

// New returns a sensor for c, or everything that is wrong with c.
func New(c Config) (*Sensor, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("file sensor: %w", err)
	}
	s := &Sensor{
		config:  c,
		hints:   newHints(c.Settle),
		polled:  make(map[*node]struct{}),
		backlog: make(map[*node]origin),
		unsaved: unsaved{limit: 2 * c.Limits.Files, whole: true},
	}
	for _, say := range []*rate.Sometimes{&s.sayFault, &s.saySkip, &s.sayFull, &s.sayMany, &s.sayLost} {
		say.Interval = time.Minute
	}
	s.watches = newWatches(s.hints, c.Limits.Watches)
	s.observer = newObserver(c.Limits, func() {
		s.counters.change(func(t *Stats) { t.Skipped.Permission++ })
	})
	s.plant()
	return s, nil
}

// Name returns "file".
func (s *Sensor) Name() string { return "file" }

// Run watches until ctx ends and then returns nil; call it once. Each event is given to emit, which takes it over and
// must not block for long; its id, identity and severity are not filled in. sealed must return nil only when all that
// was emitted before the call is durable; the baseline is saved only then. Run returns an error only if it cannot work
// at all; what it cannot do besides is in the log and in Stats.
func (s *Sensor) Run(ctx context.Context, emit func(*event.Event), sealed func(ctx context.Context) error) error {
	s.emit = emit
	var wg sync.WaitGroup
	defer wg.Wait()
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		s.watches.fs = watcher
		wg.Go(func() { s.hints.pump(watcher) })
		defer watcher.Close()
	} else {
		s.config.Logger.Warn("all files are polled for want of an inotify instance; raise fs.inotify.max_user_instances",
			"every", s.config.Poll, "error", err)
	}
	var sv *saver
	if s.config.StateFile != "" {
		sv = &saver{store: &store{path: s.config.StateFile}, sealed: sealed, fault: s.fault, in: make(chan snapshot, 1)}
		s.unsaved.whole = !s.loadState(sv.store)
		wg.Go(func() { sv.run(ctx) })
		defer close(sv.in)
	}
	s.begin(ctx)
	if ctx.Err() != nil {
		return nil // half a baseline is none
	}
	s.loop(ctx, sv)
	return nil
}

// plant makes an empty tree that knows the sensor's own files.
func (s *Sensor) plant() {
	s.covered = nil
	s.top = &node{folder: &folder{real: s.config.Root}}
	own := s.config.Exclude
	if f := s.config.StateFile; f != "" && s.config.Root == "/" {
		own = append(slices.Clone(own), f, f+newSuffix, f+corruptSuffix)
	}
	for _, path := range own {
		s.top.addPath(path).asFolder().own = true
		steps, place, err := resolve(s.config.Root, path)
		if err != nil || len(steps) == 0 {
			continue
		}
		if last := steps[len(steps)-1]; place == "" && strings.HasSuffix(path, "/"+last.name) {
			place = join(last.dir, last.name)
		}
		if place != "" { // the same by another name
			s.top.addPath(strip(s.config.Root, place)).asFolder().own = true
		}
	}
}

// begin makes the baseline, or compares the one that was loaded with the tree.
func (s *Sensor) begin(ctx context.Context) {
	b := newBatch(ctx)
	c := cause{origin: whileDown, at: time.Now(), deep: true}
	s.size = 0
	s.top.all(func(n *node) bool {
		if n.state.kind != absent {
			s.count(&n.state, 1)
		}
		return true
	})
	for _, path := range s.config.Paths {
		if isPattern(path) {
			p := &root{path: path}
			s.patterns = append(s.patterns, p)
			if slices.Contains(s.covered, path) {
				s.recall(p)
			}
		} else {
			s.addRoot(path)
		}
	}
	s.all(b, c)
	if !b.stop() {
		s.forgetUnwatched(b)
	}
	s.flush(b)
	st := s.Stats()
	s.config.Logger.Info("file sensor watches", "files", st.Files, "folders", st.Folders, "watches", s.watches.len(),
		"polled", len(s.polled), "took", time.Since(c.at).Round(time.Millisecond))
}

// forgetUnwatched takes out of the loaded baseline what no watched path covers any more.
func (s *Sensor) forgetUnwatched(b *batch) {
	var old []*node
	s.top.all(func(n *node) bool {
		if n.state.kind == absent {
			return true
		}
		for m := n; m != nil; m = m.parent {
			if m.folder != nil && m.folder.own {
				break
			}
			if m.root() != nil {
				return true
			}
		}
		old = append(old, n)
		return true
	})
	for _, n := range slices.Backward(old) {
		s.remove(b, n, cause{origin: silent})
		n.prune()
	}
}

// all looks at every watched path, in their order.
func (s *Sensor) all(b *batch, c cause) {
	s.counters.change(func(t *Stats) { t.Rescans++ })
	for _, r := range slices.Clone(s.roots) {
		s.refresh(b, r, c)
	}
	for _, p := range s.patterns {
		s.expand(b, p, c)
	}
	s.adopt(b, c)
}

// loop does what is due until ctx ends.
func (s *Sensor) loop(ctx context.Context, sv *saver) {
	now := time.Now()
	rescanAt, pollAt, saveAt := now.Add(s.config.Rescan), now.Add(s.config.Poll), now
	var cost time.Duration // of the last rescan
	var ended time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.save(sv)
			return
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
		due, next := s.hints.take(now, s.busy)
		s.process(b, due)
		if !now.Before(rescanAt) {
			s.all(b, cause{origin: rescan, at: now, deep: true, renew: true})
			ended = time.Now()
			cost, rescanAt = ended.Sub(now), ended.Add(s.config.Rescan)
		}
		if !now.Before(pollAt) {
			s.poll(b, cause{origin: rescan, at: now})
			pollAt = time.Now().Add(s.config.Poll)
		}
		s.flush(b)
		next = earliest(next, s.catchUp(b))
		if sv != nil && (!s.unsaved.empty() || sv.whole.Load()) {
			if !now.Before(saveAt) {
				s.save(sv)
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

// busy reports whether the content of the file at place changed so lately that it is likely to change again.
func (s *Sensor) busy(place string) bool {
	dir, name := split(place)
	w := s.watches.at(dir)
	if w == nil {
		return false
	}
	since := time.Now().Add(-5 * s.config.Settle).UnixNano()
	for _, n := range w.nodes {
		if c := n.child(name); c != nil && c.modified > since {
			return true
		}
	}
	for _, r := range w.steps[name] {
		if r.node.modified > since {
			return true
		}
	}
	return false
}

// process looks at what the kernel told of.
func (s *Sensor) process(b *batch, due []*hint) {
	for _, h := range due {
		c := cause{
			at: h.seen, written: h.written(), moved: h.ops.Has(fsnotify.Rename), touched: h.ops == fsnotify.Chmod,
			brief: h.ops.Has(fsnotify.Create) && h.ops.Has(fsnotify.Remove),
		}
		if w := s.watches.at(h.path); w != nil {
			if h.ops.Has(fsnotify.Remove) || h.ops.Has(fsnotify.Rename) {
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
				if h.structural() || !r.leads(dir, name) {
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
	c.written, c.moved, c.touched, c.brief = false, false, false, false
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

// save hands what is unsaved to the saver, if that has nothing in hand.
func (s *Sensor) save(sv *saver) {
	if sv == nil || len(sv.in) > 0 {
		return
	}
	s.unsaved.whole = s.unsaved.whole || sv.whole.Load()
	if !s.unsaved.empty() {
		sv.in <- s.unsaved.take(s.top, s.config.Paths) // the only sender, and there is room
	}
}

func newBatch(ctx context.Context) *batch {
	return &batch{stop: func() bool { return ctx.Err() != nil }}
}

// flush emits what b holds.
func (s *Sensor) flush(b *batch) {
	for _, c := range pair(b.changes) {
		for _, e := range c.events() {
			s.counters.change(func(t *Stats) { t.tally(e.Type) })
			s.emit(e)
		}
	}
	b.changes = nil
}
