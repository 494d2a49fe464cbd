package file

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"sync"
	"time"
)

// maxHints is how many different paths may wait to be looked at. More is treated like an overflow of the kernel's queue,
// which holds 16,384 events by default (fs.inotify.max_queued_events, inotify(7)).
const maxHints = 1 << 16

// hint gathers what the kernel told of one path since the last look.
type hint struct {
	path        string
	ops, last   op
	first, seen time.Time
}

func (h *hint) written() bool { return h.ops.has(written) }
func (h *hint) structural() bool {
	return h.ops.has(created) || h.ops.has(removed) || h.ops.has(movedAway)
}

// pairing is how long the old name of a rename waits for the new one. The kernel queues both as one step, but for other
// processes' events in between (inotify(7)).
const pairing = 2 * time.Millisecond

// due returns when h is to be looked at. What takes effect at once is told at once; what is written settles first, for
// the whole settle time if the path was busy lately.
func (h *hint) due(settle time.Duration, busy bool) time.Time {
	switch {
	case h.last.has(removed):
		return h.seen
	case h.last.has(movedAway):
		return h.seen.Add(pairing)
	case h.ops.has(written), h.ops.has(created):
		quiet := settle / 3
		if busy {
			quiet = settle
		}
		due, latest := h.seen.Add(quiet), h.first.Add(5*settle)
		if due.After(latest) {
			return latest
		}
		return due
	}
	return h.seen
}

// hints is where the kernel's events wait. The reader of the kernel's queue only ever adds to it, so it never waits for
// the sensor's work, and the sensor wakes once for many events.
type hints struct {
	settle   time.Duration
	wake     chan struct{}
	changing func(path string) // is told of a path that begins to be written to, and must not wait
	fence    *fence            // nil when there is no notifier

	mu       sync.Mutex
	watched  map[string]*watch
	pending  map[string]*hint
	next     time.Time // when the sensor will look by itself; zero if not at all
	overflow bool      // events were lost since the last take
	lost     error     // the last other error of the notifier
}

func newHints(settle time.Duration) *hints {
	return &hints{
		settle:   settle,
		wake:     make(chan struct{}, 1),
		changing: func(string) {},
		watched:  make(map[string]*watch),
		pending:  make(map[string]*hint),
	}
}

// pump takes notices from n until it is closed.
func (q *hints) pump(n *notifier) {
	var notices []notice
	for {
		var err error
		notices, err = n.read(notices[:0])
		for _, told := range notices {
			if q.fence != nil && told.path == q.fence.name {
				q.fence.pass()
			} else {
				q.add(told, time.Now()) // their order counts
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrClosed):
			return
		default:
			q.fail(err)
			if !errors.Is(err, errOverflow) {
				return // an instance that cannot be read is of no use any more
			}
		}
	}
}

func (q *hints) add(told notice, now time.Time) {
	path := told.path
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.pending[path]
	if h == nil {
		if !q.wanted(path) {
			return
		}
		if len(q.pending) >= maxHints {
			q.overflow = true
			q.rouse()
			return
		}
		h = &hint{path: path, first: now}
		q.pending[path] = h
	}
	if told.op.has(written|created) && !h.ops.has(told.op) {
		q.changing(path)
	}
	h.ops |= told.op
	h.last, h.seen = told.op, now
	if due := h.due(q.settle, false); q.next.IsZero() || due.Before(q.next) {
		q.next = due
		q.rouse()
	}
}

// wanted keeps out what happens to the neighbours of a watched file.
func (q *hints) wanted(path string) bool {
	if q.watched[path] != nil {
		return true
	}
	dir, name := split(path)
	w := q.watched[dir]
	return w != nil && (len(w.nodes) > 0 || w.steps[name] != nil || w.steps[anyName] != nil)
}

func (q *hints) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.overflow = true // whatever it was, it may have cost events
	if !errors.Is(err, errOverflow) {
		q.lost = err
	}
	q.rouse()
	if q.fence != nil {
		q.fence.pass() // which may be among what was lost
	}
}

func (q *hints) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the hints that are due, in the order in which they came, and when the next one is (zero: none). Left is
// when a name was taken away of which the other is looked for; zero: none was.
func (q *hints) take(now, left time.Time, busy func(path string) bool) (due []*hint, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	structural := !left.IsZero()
	for path, h := range q.pending {
		at := h.due(q.settle, false)
		if !at.After(now) && h.written() {
			at = h.due(q.settle, busy(path))
		}
		switch {
		case !at.After(now):
			due = append(due, h)
			delete(q.pending, path)
			structural = structural || h.structural()
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	if structural {
		due = q.takeRenames(due, left)
	}
	q.next = next
	slices.SortFunc(due, func(a, b *hint) int {
		return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.path, b.path))
	})
	return due, next
}

// takeRenames adds to due what must be seen together with it: the names that renames took away, and those that they gave,
// or the new folders in which they may be: of a name in a folder without a watch the kernel tells nothing.
func (q *hints) takeRenames(due []*hint, renamed time.Time) []*hint {
	for path, h := range q.pending {
		if h.ops.has(movedAway) {
			due = append(due, h)
			delete(q.pending, path)
		}
	}
	for _, h := range due {
		if h.ops.has(movedAway) {
			renamed = earliest(renamed, h.first)
		}
	}
	if renamed.IsZero() {
		return due
	}
	for path, h := range q.pending {
		if h.ops.has(created) && (!h.seen.Before(renamed) || !h.written() && isFolder(path)) {
			due = append(due, h)
			delete(q.pending, path)
		}
	}
	return due
}

// overflowed reports whether events were lost since the last call, and the error that says why if it is not the
// kernel's queue.
func (q *hints) overflowed() (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	was, err := q.overflow, q.lost
	q.overflow, q.lost = false, nil
	return was, err
}
