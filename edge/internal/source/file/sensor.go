package file

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/apss-sensor/apss/shared/event"
)

// Sensor watches files. Run does all of its work in one goroutine, which alone touches the tree; a second one empties
// the kernel's queue into hints and a third writes the state file.
type Sensor struct {
	config   Config
	made     time.Time
	counters counters
	watching atomic.Bool
	pace     pace

	emit     func(*event.Event)
	main     *view   // that under Config.Root
	top      *node   // of it
	views    []*view // it and the containers'
	scopes   scopes
	size     int      // of the baseline
	covered  []string // the watched paths of the loaded baseline
	roots    []*root
	patterns []*root
	hints    *hints
	watches  *watches
	observer *observer
	texts    *texts
	search   *search
	writers  *writers
	reads    *reads
	mounts   *mounts
	polled   map[*node]struct{}
	backlog  map[*node]origin // to be hashed when the rate limit allows
	unsaved  unsaved
	round    uint32
	linksAt  time.Time // when hard links may be looked for again

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
		made:    time.Now(),
		pace:    pace{limit: stallAfter, every: paceEvery},
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
	s.observer.copySize = c.Limits.DiffSize
	s.texts = newTexts(c)
	s.search = newSearch(c.Proc)
	s.writers = newWriters(s.search, func(dropped, searches int) {
		s.counters.change(func(t *Stats) { t.WritersMissed += dropped; t.WriterSearches += searches })
	})
	s.reads = newReads(s)
	s.observer.open = s.reads.open
	s.hints.changing = s.writers.ask
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
	var emitting sync.Mutex // reads and changes are told by two goroutines
	s.emit = func(e *event.Event) {
		emitting.Lock()
		defer emitting.Unlock()
		emit(e)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	notifier, err := newNotifier()
	if err == nil {
		s.watches.fs = notifier
		if s.hints.fence, err = newFence(notifier); err == nil {
			defer s.hints.fence.file.Close()
		} else {
			s.config.Logger.Warn("a rename may be told as a delete and a create", "error", err)
		}
		wg.Go(func() { s.hints.pump(notifier) })
		wg.Go(func() { s.writers.run(ctx) })
		defer notifier.close()
	} else {
		s.config.Logger.Warn("all files are polled for want of an inotify instance; raise fs.inotify.max_user_instances",
			"every", s.config.Poll, "error", err)
	}
	if s.mounts, err = openMounts(s.config.Proc); err == nil {
		wg.Go(func() {
			if err := s.mounts.run(ctx); err != nil {
				s.config.Logger.Warn("changes of mounts are found by comparisons only", "every", s.config.Rescan, "error", err)
			}
		})
	} else {
		s.config.Logger.Warn("changes of mounts are found by comparisons only", "every", s.config.Rescan, "error", err)
	}
	if len(s.config.ReadPaths) > 0 {
		if err := s.reads.start(); err == nil {
			wg.Go(func() { s.reads.run(ctx) })
		} else {
			s.config.Logger.Warn("reads of files are not seen; raise fs.inotify.max_user_instances", "error", err)
		}
	}
	var sv *saver
	if s.config.StateFile != "" {
		sv = &saver{store: &store{path: s.config.StateFile}, sealed: sealed, fault: s.fault, in: make(chan snapshot, 1)}
		s.unsaved.whole = !s.loadState(sv.store)
		wg.Go(func() { sv.run(ctx) })
		defer close(sv.in)
	}
	wg.Go(func() { s.oversee(ctx) })
	if !s.begin(ctx) {
		return nil // half a baseline is none
	}
	s.watching.Store(true)
	defer s.watching.Store(false)
	s.loop(ctx, sv)
	return nil
}

// Watching returns nil once the baseline stands: from then on every change is told. Before, what changes is a part of the
// baseline. Safe for concurrent use.
func (s *Sensor) Watching() error {
	if !s.watching.Load() {
		return errors.New("the baseline of the watched files is not taken yet")
	}
	return nil
}

// plant makes an empty tree that knows the sensor's own files.
func (s *Sensor) plant() {
	s.covered = nil
	s.main = newView(Root{Path: s.config.Root}, id{})
	s.top, s.views = s.main.top, []*view{s.main}
	s.scopes.set(s.views)
	s.disown(s.main)
}

// disown keeps the sensor away from its own files in v.
func (s *Sensor) disown(v *view) {
	own := s.config.Exclude
	if f := s.config.StateFile; f != "" && v.root == "/" {
		own = append(slices.Clone(own), f, f+newSuffix, f+corruptSuffix)
	}
	for _, path := range own {
		v.top.addPath(path).asFolder().own = true
		steps, place, err := resolve(v.root, path)
		if err != nil || len(steps) == 0 {
			continue
		}
		if last := steps[len(steps)-1]; place == "" && strings.HasSuffix(path, "/"+last.name) {
			place = join(last.dir, last.name)
		}
		if place != "" { // the same by another name
			v.top.addPath(strip(v.root, place)).asFolder().own = true
		}
	}
}

// begin makes the baseline, or compares the one that was loaded with the tree. It reports whether it came to the end
// before ctx did.
func (s *Sensor) begin(ctx context.Context) (whole bool) {
	b := newBatch(ctx)
	c := cause{origin: whileDown, at: time.Now(), deep: true}
	s.size = 0
	s.top.all(func(n *node) bool {
		if n.state.kind != absent {
			s.count(&n.state, 1)
		}
		return true
	})
	for rank, path := range s.config.Paths {
		if isPattern(path) {
			p := &root{path: path, rank: rank, view: s.main}
			s.patterns = append(s.patterns, p)
			if slices.Contains(s.covered, path) {
				s.recall(p)
			}
		} else {
			s.addRoot(s.main, path, rank)
		}
	}
	s.all(b, c)
	if whole = !b.stop(); whole {
		s.forgetUnwatched(b)
	}
	s.flush(b)
	st := s.Stats()
	s.config.Logger.Info("file sensor watches", "files", st.Files, "folders", st.Folders, "watches", s.watches.len(),
		"polled", len(s.polled), "took", time.Since(c.at).Round(time.Millisecond))
	return whole
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
