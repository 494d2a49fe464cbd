package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// regather is how soon after a change in the folders the watches are gathered anew.
	regather = 5 * time.Millisecond
	// unsureFor is how long no read is told when our own could not be marked.
	unsureFor = time.Second
)

// reads tells of every open(2) of a read path, by an inotify instance of its own.
//
// The sensor's own opens are told apart by the order of the kernel's queue: each stands between two marks, and of the
// events between them the first that fits is ours. A mark is the IN_IGNORED of a watch made and removed for it, whose
// number is not used again, so two marks are never merged as equal events are (inotify(7)), nor are two opens over a
// mark. Only another's open of the same file between the same two marks, which is as long as open(2) takes, is lost.
type reads struct {
	s    *Sensor
	file *os.File

	mu      sync.Mutex
	fd      int // -1: there is no instance
	watched map[int32]*readWatch
	byID    map[id]int32
	own     map[int32]ownOpen // by the mark before
	unsure  time.Time         // until then no read is told

	// The reader's alone.
	inside  *ownOpen
	deaf    int32 // until this mark, 0 if not
	readers map[readerKey]*readerWindow

	dirty atomic.Bool // the watches are to be gathered anew
}

// readWatch is one watched inode.
type readWatch struct {
	id        id
	place     string
	path      string // as its container sees it
	container string
	mask      uint32
}

func (w *readWatch) folder() bool { return w.mask&unix.IN_ONLYDIR != 0 }

// ownOpen is what the sensor opened between two marks.
type ownOpen struct {
	after int32
	id    id
	name  string
	seen  []int32 // the watches that told of it
}

func newReads(s *Sensor) *reads {
	return &reads{
		s: s, fd: -1, watched: make(map[int32]*readWatch), byID: make(map[id]int32), own: make(map[int32]ownOpen),
		readers: make(map[readerKey]*readerWindow),
	}
}

// start opens the instance and sets the watches.
func (r *reads) start() error {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making an inotify instance: %w", err)
	}
	r.file, r.fd = os.NewFile(uintptr(fd), "inotify"), fd
	r.gather()
	return nil
}

// run tells of reads until ctx ends.
func (r *reads) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = r.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	gatherAt := time.Now().Add(r.s.config.Poll)
	for {
		now := time.Now()
		if r.dirty.Swap(false) {
			gatherAt = earliest(gatherAt, now.Add(regather))
		}
		if !now.Before(gatherAt) {
			r.gather()
			gatherAt = now.Add(r.s.config.Poll)
		}
		next := earliest(r.expire(now, false), gatherAt)
		_ = r.file.SetReadDeadline(next) // an inotify instance can be polled, so this cannot fail
		if ctx.Err() != nil {
			break
		}
		if r.dirty.Load() {
			continue // since a moment ago
		}
		n, err := r.file.Read(buf)
		switch {
		case err == nil:
			r.take(buf[:n])
		case !errors.Is(err, os.ErrDeadlineExceeded):
			r.s.config.Logger.Error("reads of files are not seen any more", "error", err)
			r.mu.Lock()
			r.fd = -1 // nothing is marked that nobody takes in
			r.mu.Unlock()
			<-ctx.Done()
		}
	}
	r.expire(time.Now(), true)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fd = -1
	_ = r.file.Close() // nothing was written to it
}

// regatherNow makes the watches anew, from any goroutine.
func (r *reads) regatherNow() {
	r.dirty.Store(true)
	if r.file != nil {
		_ = r.file.SetReadDeadline(time.Unix(1, 0)) // it reads no more at the end, and then there is nothing to gather
	}
}

// opened is one open(2) that the kernel told of.
type opened struct {
	watch *readWatch
	name  string
}

// take tells of the opens in buf.
func (r *reads) take(buf []byte) {
	var found []opened
	lost := false
	r.mu.Lock()
	for e := range inotifyEvents(buf) {
		switch {
		case e.mask&unix.IN_Q_OVERFLOW != 0:
			// Marks may be among what was lost. No own open is under way, for we have the lock, so beyond a new mark all is
			// in order again.
			lost, r.inside = true, nil
			r.dirty.Store(true)
			clear(r.own)
			r.deaf = r.mark()
		case e.mask&unix.IN_IGNORED != 0:
			r.ignored(e.wd)
		case e.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
			r.dirty.Store(true)
		case e.mask&unix.IN_OPEN != 0 && e.mask&unix.IN_ISDIR == 0:
			w := r.watched[e.wd]
			switch {
			case w == nil || r.deaf != 0 || r.mine(w, e.wd, e.name):
			case time.Now().Before(r.unsure):
				r.s.counters.change(func(t *Stats) { t.ReadsUnsure++ })
			default:
				found = append(found, opened{w, e.name})
			}
		}
	}
	r.mu.Unlock()
	if lost {
		r.s.counters.change(func(t *Stats) { t.ReadOverflows++ })
		r.s.sayLost.Do(func() { r.s.config.Logger.Warn("reads of files came too fast: some were not seen") })
	}
	r.report(found)
}

// ignored takes in that a watch ended, which for some was made to be a mark.
func (r *reads) ignored(wd int32) {
	if wd == r.deaf {
		r.deaf = 0
	}
	if r.inside != nil && wd == r.inside.after {
		r.inside = nil
	}
	if o, ok := r.own[wd]; ok {
		delete(r.own, wd)
		r.inside = &o
	}
	if w := r.watched[wd]; w != nil {
		delete(r.watched, wd)
		delete(r.byID, w.id)
		r.dirty.Store(true)
	}
}

// mine reports whether an event is that of the sensor's own open.
func (r *reads) mine(w *readWatch, wd int32, name string) bool {
	o := r.inside
	if o == nil || slices.Contains(o.seen, wd) {
		return false
	}
	if w.folder() && name != o.name || !w.folder() && w.id != o.id {
		return false
	}
	o.seen = append(o.seen, wd)
	return true
}

// markPlace is watched to make marks. It is never among the read paths, which are on no pseudo file system.
const markPlace = "/proc/self"

// mark puts a mark into the kernel's queue, and returns 0 if it could not.
func (r *reads) mark() int32 {
	wd, err := unix.InotifyAddWatch(r.fd, markPlace, unix.IN_DELETE_SELF)
	if err != nil {
		return 0
	}
	if _, err := unix.InotifyRmWatch(r.fd, uint32(wd)); err != nil {
		return 0
	}
	return int32(wd)
}

// open opens path for the sensor, so that it is not told.
func (r *reads) open(path string, expected id) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return openFile(path)
	}
	dir, name := split(path)
	var before int32
	tells := r.tells(expected, dir)
	if tells {
		before = r.mark()
	}
	fd, err := openFile(path)
	if err != nil {
		return fd, err // the mark stays without a second and an entry, and means nothing
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	opened := id{dev: st.Dev, ino: st.Ino}
	if !tells && opened == expected {
		return fd, nil
	}
	if after := r.mark(); before != 0 && after != 0 {
		r.own[before] = ownOpen{after: after, id: opened, name: name}
	} else if tells || r.tells(opened, dir) { // another file took the name just now, or no watch could be had
		r.unsure = time.Now().Add(unsureFor)
	}
	return fd, nil
}

// tells reports whether the kernel will tell of an open of the inode in the folder dir.
func (r *reads) tells(file id, dir string) bool {
	if _, ok := r.byID[file]; ok {
		return true
	}
	s, err := lstat(dir)
	if err != nil {
		return true // to be on the safe side
	}
	wd, ok := r.byID[s.id]
	return ok && r.watched[wd].mask&unix.IN_OPEN != 0
}

// maxOwnFile bounds what [Sensor.ReadFile] reads.
const maxOwnFile = 1 << 20

// ReadFile reads a file, at most 1 MiB of it, for the agent itself: that read is not told. It may be called at any time
// and concurrently.
func (s *Sensor) ReadFile(path string) ([]byte, error) {
	place, err := filepath.EvalSymlinks(path) // which opens nothing
	if err != nil {
		return nil, fmt.Errorf("reading a file of the agent's own: %w", err)
	}
	st, err := lstat(place)
	if err != nil {
		return nil, fmt.Errorf("reading a file of the agent's own: %w", err)
	}
	fd, err := s.reads.open(place, st.id)
	if err != nil {
		return nil, fmt.Errorf("reading a file of the agent's own: %w", &fs.PathError{Op: "open", Path: place, Err: err})
	}
	f := os.NewFile(uintptr(fd), place)
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxOwnFile))
}
