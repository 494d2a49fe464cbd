package file

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// op is what the kernel says became of a path, or more than one of them.
type op uint8

const (
	created op = 1 << iota // or moved here
	written
	removed
	movedAway
	touched // its mode, owner, times or number of links
)

func (o op) has(what op) bool { return o&what != 0 }

// What is asked of a folder: inotify(7).
const (
	namesMask  = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	writesMask = namesMask | unix.IN_MODIFY
	folderOnly = unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
)

// notice is what the kernel told of one path.
type notice struct {
	path string
	op   op
}

// errOverflow says that the kernel's queue was full.
var errOverflow = errors.New("the kernel's queue of events was full")

// notifier is an inotify instance that knows folders by their paths. fsnotify asks for writes in every folder, so one on
// the way to a watched path, such as /tmp, would wake the agent for each write to a file in it.
//
// A folder that is moved away is not watched any more. Its methods may be called concurrently, read by one at a time.
type notifier struct {
	file *os.File // in the runtime's poller
	buf  []byte

	mu    sync.Mutex
	fd    int // -1 when closed
	paths map[int32]string
	byKey map[string]int32
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an inotify instance: %w", err)
	}
	return &notifier{
		file: os.NewFile(uintptr(fd), "inotify"), buf: make([]byte, 64<<10),
		fd: fd, paths: make(map[int32]string), byKey: make(map[string]int32),
	}, nil
}

// add watches the folder at path, or asks anew if it is watched.
func (n *notifier) add(path string, writes bool) error {
	mask := uint32(namesMask | folderOnly)
	if writes {
		mask = writesMask | folderOnly
	}
	return n.watch(path, solid(path), mask)
}

// watch makes what happens at place a notice of path.
func (n *notifier) watch(path, place string, mask uint32) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fd < 0 {
		return os.ErrClosed
	}
	added, err := unix.InotifyAddWatch(n.fd, place, mask)
	if err != nil {
		return err
	}
	wd := int32(added)
	if old, ok := n.byKey[path]; ok && old != wd { // another folder has taken the name
		n.end(old)
	}
	if old, ok := n.paths[wd]; ok && old != path { // the folder has another name than it had
		delete(n.byKey, old)
	}
	n.paths[wd], n.byKey[path] = path, wd
	return nil
}

// remove ends the watch of path, if there is one.
func (n *notifier) remove(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if wd, ok := n.byKey[path]; ok && n.fd >= 0 {
		n.end(wd)
	}
}

// end ends a watch. The kernel's word that it did is for a number that nobody knows.
func (n *notifier) end(wd int32) {
	n.forget(wd)
	_, _ = unix.InotifyRmWatch(n.fd, uint32(wd)) // an error means that it had ended by itself
}

func (n *notifier) forget(wd int32) {
	path := n.paths[wd]
	delete(n.paths, wd)
	if n.byKey[path] == wd {
		delete(n.byKey, path)
	}
}

// read waits for notices and appends them to dst. It returns errOverflow besides when some were lost, and os.ErrClosed
// after close.
func (n *notifier) read(dst []notice) ([]notice, error) {
	size, err := n.file.Read(n.buf)
	if err != nil {
		return dst, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for e := range inotifyEvents(n.buf[:size]) {
		if e.mask&unix.IN_Q_OVERFLOW != 0 {
			err = errOverflow
		}
		if path, what := n.take(e); what != 0 {
			dst = append(dst, notice{path, what})
		}
	}
	return dst, err
}

// take returns what an event says, and nothing if it is of no use.
func (n *notifier) take(e inotifyEvent) (path string, what op) {
	path, ok := n.paths[e.wd]
	if !ok {
		return "", 0
	}
	switch {
	case e.mask&(unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
		n.forget(e.wd)
		return "", 0
	case e.mask&unix.IN_DELETE_SELF != 0:
		n.forget(e.wd)
		if dir, _ := split(path); n.watched(dir) {
			return "", 0 // which tells it too
		}
	case e.mask&unix.IN_MOVE_SELF != 0:
		n.end(e.wd)
	}
	if e.name != "" {
		path = join(path, e.name)
	}
	for _, is := range [...]struct {
		mask uint32
		op   op
	}{
		{unix.IN_CREATE | unix.IN_MOVED_TO, created},
		{unix.IN_MODIFY, written},
		{unix.IN_DELETE | unix.IN_DELETE_SELF, removed},
		{unix.IN_MOVED_FROM | unix.IN_MOVE_SELF, movedAway},
		{unix.IN_ATTRIB, touched},
	} {
		if e.mask&is.mask != 0 {
			what |= is.op
		}
	}
	return path, what
}

func (n *notifier) watched(path string) bool {
	_, ok := n.byKey[path]
	return ok
}

// close ends a waiting read.
func (n *notifier) close() {
	n.mu.Lock()
	n.fd = -1
	n.mu.Unlock()
	_ = n.file.Close() // nothing was written to it
}
