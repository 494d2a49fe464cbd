package opens

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Kind is what was opened.
type Kind uint8

// The kinds: a file in a folder of programs, a program loader, the loader's cache.
const (
	Program Kind = iota
	Loader
	Cache
)

// Open is one file that was opened.
type Open struct {
	Kind Kind
	// Path is as the processes of the namespace see it, View one of those, as of the last Sync.
	Path string
	View int32
	// Proved says that a program was run, not read.
	Proved bool

	space namespace
}

// maxUnread bounds how far back a loader's open looks for its program's: as many programs start at one time.
const maxUnread = 64

// Read returns what was opened since the last call, in order, and whether the kernel's queue (16,384 by default,
// fs.inotify.max_queued_events) was too small for all. An open that is the same as the one before it may be missing:
// inotify(7) merges them. A later call
// may still prove an open, so whoever keeps them does it in the same goroutine.
func (w *Watcher) Read() (opens []*Open, overflow bool, err error) {
	for {
		n, err := unix.Read(w.fd, w.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) || n == 0 && err == nil {
			return opens, overflow, nil
		}
		if err != nil {
			return opens, overflow, fmt.Errorf("reading inotify: %w", err)
		}
		for b := w.buf[:n]; ; {
			var wd int32
			var mask uint32
			var name string
			var ok bool
			if wd, mask, name, b, ok = next(b); !ok {
				break
			}
			overflow = overflow || mask&unix.IN_Q_OVERFLOW != 0
			if mask&unix.IN_IGNORED != 0 { // the file was replaced: the next Sync watches the new one
				w.forget(wd)
			}
			if o := w.open(wd, mask, name); o != nil {
				opens = append(opens, o)
			}
		}
		if n < len(w.buf)-unix.SizeofInotifyEvent-unix.NAME_MAX-1 {
			return opens, overflow, nil // that was all
		}
	}
}

// open makes an Open of an event; nil when it is none.
func (w *Watcher) open(wd int32, mask uint32, name string) *Open {
	p := w.places[wd]
	if p == nil || mask&unix.IN_OPEN == 0 || mask&unix.IN_ISDIR != 0 || p.kind == Program && name == "" {
		return nil
	}
	o := &Open{Kind: p.kind, Path: p.path, View: p.view, space: p.space}
	switch p.kind {
	case Program:
		o.Path += "/" + name
		if !w.mayRun(p, name, o.Path) {
			return nil
		}
		if len(w.unread) == maxUnread {
			w.unread = append(w.unread[:0], w.unread[1:]...)
		}
		w.unread = append(w.unread, o)
	case Loader:
		w.prove(p.space)
	case Cache:
	}
	return o
}

// mayRun reports whether what was opened may be a program: a regular file that somebody may execute. Folders of
// executables hold more than those: locks, caches, what a package manager is unpacking. What has lost its name already
// was none either, as a rule; should it have been, it counts as missed. Where nothing can be found out it may.
func (w *Watcher) mayRun(p *place, name, path string) bool {
	key := entry{p.file, name}
	if w.runs[key] {
		return true // as it was: a program that loses its mode or its name is rare, and one that runs again is not
	}
	root, err := unix.Open(w.rootOf(p.view), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true // who saw the folder has ended
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return !errors.Is(err, unix.ENOENT)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return true
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 { // execve(2), EACCES
		return false
	}
	if len(w.runs) == maxRuns {
		clear(w.runs)
	}
	w.runs[key] = true
	return true
}

// prove takes the newest open of a program in the namespace for the one that the loader was opened for.
func (w *Watcher) prove(space namespace) {
	for i := len(w.unread) - 1; i >= 0; i-- {
		if w.unread[i].space == space {
			w.unread[i].Proved = true
			w.unread = append(w.unread[:i], w.unread[i+1:]...)
			return
		}
	}
}

// next takes one struct inotify_event, inotify(7), off b.
func next(b []byte) (wd int32, mask uint32, name string, rest []byte, ok bool) {
	const size = unix.SizeofInotifyEvent
	if len(b) < size {
		return 0, 0, "", nil, false
	}
	order := binary.NativeEndian
	length := order.Uint32(b[12:])
	if uint64(length) > uint64(len(b)-size) {
		return 0, 0, "", nil, false
	}
	end := size + int(length)
	text, _, _ := bytes.Cut(b[size:end], []byte{0})
	return int32(order.Uint32(b)), order.Uint32(b[4:]), string(text), b[end:], true
}
