package opens

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of what is watched.
const (
	maxWatches = 4096
	maxExtra   = 16 // folders of one namespace's PATH
	maxRuns    = 4096
)

// Where programs are, each before the links to it, so that a path is the one that /proc/PID/exe shows.
func folders() []string {
	return []string{
		"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/libexec", "/bin", "/sbin",
	}
}

// What loads them: glibc's and musl's loaders (their ABI documents name the paths) and the cache of ld.so(8).
func loaders() []string {
	return []string{
		"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1",
	}
}

const cache = "/etc/ld.so.cache"

// namespace identifies a mount namespace: the inode of /proc/PID/ns/mnt, namespaces(7).
type namespace string

// file identifies what a watch is on.
type file struct{ dev, ino uint64 }

// entry is a name in a watched folder.
type entry struct {
	dir  file
	name string
}

// place is one watch.
type place struct {
	file  file
	space namespace
	view  int32 // a process that sees it
	path  string
	kind  Kind
	turn  uint64 // the last Sync that found it
}

// Stats is what is watched.
type Stats struct {
	// Namespaces and Watches are how many there are.
	Namespaces, Watches int
	// Refused counts watches that could not be made, Reason says why the last one could not.
	Refused int
	Reason  string
	// Hidden is how many processes' mount namespaces may not be looked into, as of the last Sync.
	Hidden int
}

// Watcher watches. It is not safe for concurrent use.
type Watcher struct {
	// Before, if set, is called before a process is looked into for where its programs are, which the kernel may hold up;
	// if it returns false that process is not.
	Before func(pid int32) bool

	fd     int
	proc   string
	buf    []byte
	places map[int32]*place // by watch descriptor
	wds    map[file]int32
	spaces map[namespace]uint64 // the last Sync that found it
	turn   uint64
	unread []*Open        // opens of programs that a loader's may prove yet
	runs   map[entry]bool // what is known to be executable, at most maxRuns
	stats  Stats
}

// New makes the one inotify instance that a Watcher needs.
func New(proc string) (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, fmt.Errorf("starting inotify: %w: raise fs.inotify.max_user_instances", err)
	}
	if err != nil {
		return nil, fmt.Errorf("starting inotify: %w", err)
	}
	return &Watcher{
		fd: fd, proc: proc, buf: make([]byte, 64<<10),
		places: make(map[int32]*place), wds: make(map[file]int32), spaces: make(map[namespace]uint64),
		runs: make(map[entry]bool),
	}, nil
}

// FD is readable when something was opened.
func (w *Watcher) FD() int { return w.fd }

// Close ends all watches.
func (w *Watcher) Close() error { return unix.Close(w.fd) }

// Stats returns what is watched now.
func (w *Watcher) Stats() Stats {
	st := w.stats
	st.Namespaces, st.Watches = len(w.spaces), len(w.places)
	return st
}

// Sync watches the namespaces of the processes and gives up those that have none any more.
func (w *Watcher) Sync(pids []int32) {
	w.turn++
	w.stats.Refused, w.stats.Hidden = 0, 0
	for _, pid := range pids {
		w.See(pid)
	}
	for wd, p := range w.places {
		if p.turn != w.turn {
			_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // it may be gone already
			w.forget(wd)
		}
	}
	for space, turn := range w.spaces {
		if turn != w.turn {
			delete(w.spaces, space)
		}
	}
}

func (w *Watcher) forget(wd int32) {
	if p := w.places[wd]; p != nil {
		delete(w.wds, p.file)
		delete(w.places, wd)
	}
}

// See watches the namespace of a process unless that is done.
func (w *Watcher) See(pid int32) {
	dir := filepath.Join(w.proc, strconv.Itoa(int(pid)))
	link, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
	if err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			w.stats.Hidden++
		}
		return // or it ended, or is a kernel thread
	}
	space := namespace(link)
	if turn, known := w.spaces[space]; known && turn == w.turn {
		return
	}
	if w.Before != nil && !w.Before(pid) {
		return // another of the same namespace may
	}
	root, err := unix.Open(w.rootOf(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(root) }()
	w.spaces[space] = w.turn
	add := func(path string, kind Kind) {
		w.add(root, place{space: space, view: pid, path: path, kind: kind, turn: w.turn})
	}
	for _, path := range folders() {
		add(path, Program)
	}
	for _, path := range pathOf(filepath.Join(dir, "environ")) {
		add(path, Program)
	}
	for _, path := range loaders() {
		add(path, Loader)
	}
	add(cache, Cache)
}

// pathOf returns the folders of the PATH in an environment, or none.
func pathOf(environ string) []string {
	f, err := os.Open(environ)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, 32<<10)
	n, _ := f.Read(b)
	for v := range bytes.SplitSeq(b[:n], []byte{0}) {
		list, found := bytes.CutPrefix(v, []byte("PATH="))
		if !found {
			continue
		}
		var paths []string
		for path := range strings.SplitSeq(string(list), ":") {
			if filepath.IsAbs(path) && filepath.Clean(path) != "/" && len(paths) < maxExtra {
				paths = append(paths, filepath.Clean(path))
			}
		}
		return paths
	}
	return nil
}

// rootOf returns where the root folder of a process is.
func (w *Watcher) rootOf(pid int32) string {
	return filepath.Join(w.proc, strconv.Itoa(int(pid)), "root")
}

// add watches one place below root. Links are followed as a process with that root would.
func (w *Watcher) add(root int, p place) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(root, p.path, how)
	if err != nil {
		return // most places are not everywhere
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || (st.Mode&unix.S_IFMT == unix.S_IFDIR) != (p.kind == Program) {
		return
	}
	p.file = file{st.Dev, st.Ino}
	if wd, known := w.wds[p.file]; known {
		w.places[wd].turn = w.turn
		return
	}
	if len(w.places) == maxWatches {
		w.refuse(fmt.Sprintf("there are %d watches", maxWatches))
		return
	}
	wd, err := unix.InotifyAddWatch(w.fd, "/proc/self/fd/"+strconv.Itoa(fd), unix.IN_OPEN)
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w: raise fs.inotify.max_user_watches", err)
	}
	if err != nil {
		w.refuse(p.path + ": " + err.Error())
		return
	}
	w.places[int32(wd)], w.wds[p.file] = &p, int32(wd)
}

func (w *Watcher) refuse(reason string) {
	w.stats.Refused++
	w.stats.Reason = reason
}
