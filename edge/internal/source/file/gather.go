package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// readDepth is how many folders below a folder among the read paths are watched.
const readDepth = 3

// gather makes the watches those that the read paths stand for now.
func (r *reads) gather() {
	want := make(map[id]*readWatch)
	var order []*readWatch
	add := func(w readWatch) {
		if old := want[w.id]; old != nil {
			old.mask |= w.mask
			if w.mask&unix.IN_OPEN != 0 && old.path == "" {
				old.path, old.container = w.path, w.container
			}
			return
		}
		want[w.id] = &w
		order = append(order, &w)
	}
	for _, v := range r.s.scopes.all() {
		if v.gone() {
			continue
		}
		for _, pattern := range r.s.config.ReadPaths {
			gatherPath(&v, pattern, r.s.config.Limits.ReadWatches, add)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for wd, w := range r.watched {
		if want[w.id] == nil {
			delete(r.watched, wd)
			delete(r.byID, w.id)
			_, _ = unix.InotifyRmWatch(r.fd, uint32(wd)) // an error means that it had ended by itself
		}
	}
	full := 0
	for _, w := range order {
		if !w.folder() && r.inOpenFolder(w, want) {
			continue // its folder tells
		}
		if wd, ok := r.byID[w.id]; ok && r.watched[wd].mask == w.mask {
			r.watched[wd] = w
			continue
		}
		if len(r.watched) >= r.s.config.Limits.ReadWatches {
			full++
			continue
		}
		wd, err := unix.InotifyAddWatch(r.fd, solid(w.place), w.mask)
		switch {
		case errors.Is(err, unix.ENOSPC):
			full++
		case err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
			r.s.skip(w.path, fmt.Errorf("watching who reads it: %w", err))
		case err == nil:
			r.watched[int32(wd)] = w
			r.byID[w.id] = int32(wd)
			if now, err := lstat(w.place); err != nil || now.id != w.id {
				r.dirty.Store(true)
			}
		}
	}
	r.s.counters.change(func(t *Stats) { t.ReadWatches = len(r.watched); t.Skipped.ReadWatches += full })
	if full > 0 {
		r.s.sayFull.Do(func() { r.s.config.Logger.Warn("some reads are not seen for want of watches", "reason", errFull) })
	}
}

// inOpenFolder reports whether a watched folder tells of opens of w too.
func (r *reads) inOpenFolder(w *readWatch, want map[id]*readWatch) bool {
	dir, _ := split(w.place)
	s, err := lstat(dir)
	return err == nil && want[s.id] != nil && want[s.id].mask&unix.IN_OPEN != 0
}

const (
	folderMask = unix.IN_ONLYDIR | unix.IN_CREATE | unix.IN_MOVED_TO
	openMask   = unix.IN_OPEN
)

// gatherPath calls add for what is to be watched so that opens of pattern in v are told, at most limit things.
func gatherPath(v *view, pattern string, limit int, add func(readWatch)) {
	var steps []step
	paths, _ := match(v.root, pattern, limit, &steps)
	for _, path := range paths {
		onWay, place, err := resolve(v.root, path)
		steps = append(steps, onWay...)
		if err == nil && place != "" && !isPseudo(place) {
			gatherTree(v, place, path, readDepth, &limit, add)
		}
	}
	for _, st := range steps {
		if s, err := lstat(st.dir); err == nil && s.kind == directory {
			add(readWatch{id: s.id, place: st.dir, mask: folderMask})
		}
	}
}

// gatherTree does so for what is at place, and for a folder for what is below.
func gatherTree(v *view, place, path string, depth int, left *int, add func(readWatch)) {
	s, err := lstat(place)
	if err != nil || *left <= 0 {
		return
	}
	*left--
	w := readWatch{id: s.id, place: place, path: path, container: v.container}
	if s.kind == regular {
		w.mask = openMask
		add(w)
	}
	if s.kind != directory {
		return
	}
	w.mask = folderMask | openMask
	add(w)
	names, err := readNames(place)
	if err != nil || depth == 0 {
		return
	}
	for _, name := range names {
		if below := join(place, name); isFolder(below) {
			gatherTree(v, below, join(path, name), depth-1, left, add)
		}
	}
}

func isFolder(place string) bool {
	s, err := lstat(place)
	return err == nil && s.kind == directory
}
