package file

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// root is a watched path, or a pattern that makes such. The path need not exist, and it is followed where it is a
// symlink.
type root struct {
	path    string
	view    *view
	node    *node // nil of a pattern
	pattern *root // that made it
	rank    int   // its place, or its pattern's, among the watched paths
	trail   []trail
	// fresh is true until the first look at a path that no baseline knows.
	fresh bool
	// polled is true when a folder on the way has no watch.
	polled bool
}

// trail is one lookup on the way to a root, and the watch that tells when its answer changes.
type trail struct {
	step
	watch *watch
}

// addRoot makes path a watched one.
func (s *Sensor) addRoot(v *view, path string, rank int) *root {
	n := v.top.addPath(path)
	if r := n.root(); r != nil {
		return r
	}
	r := &root{path: path, view: v, node: n, rank: rank, fresh: v != s.main || !s.known(path)}
	n.asFolder().root = r
	s.roots = append(s.roots, r)
	return r
}

// known reports whether the loaded baseline covers path.
func (s *Sensor) known(path string) bool {
	return slices.ContainsFunc(s.covered, func(dir string) bool { return within(path, dir) })
}

// refresh finds out anew where r leads and looks there.
func (s *Sensor) refresh(b *batch, r *root, c cause) {
	s.pace.at(r.path)
	var (
		place string
		steps []step
		err   error
	)
	for range 8 { // until nothing moved between the look and the watch; what moves on and on sends hints
		steps, place, err = resolve(r.view.root, r.path)
		if !s.follow(r, steps, place != "" && !isFolder(place)) { // a folder tells of its files itself
			break
		}
	}
	n := r.node
	if (err != nil || place == "") && r.view.gone() {
		return
	}
	switch {
	case err != nil:
		r.polled = true
		s.skip(r.path, err)
		return
	case place == "":
		n.folder.real = ""
		s.settle(b, n, state{}, c)
		r.fresh = false
		return
	case place != n.folder.real:
		n.folder.real = place
		c.deep = true
	}
	s.inspect(b, r, c)
}

// inspect looks at r where it is known to be.
func (s *Sensor) inspect(b *batch, r *root, c cause) {
	n := r.node
	if n.folder.own {
		s.counters.change(func(t *Stats) { t.Own++ })
		return
	}
	if r.fresh {
		c.origin = silent
	}
	place := n.place()
	cur, diff, err := s.observe(n, place, c)
	switch {
	case err != nil:
		s.skip(place, err)
		return
	case cur.kind == symlink:
		return // it was put there just now, and its hint is on the way
	case cur.kind != absent:
		if seen := strip(r.view.root, place); seen != r.path {
			cur.link = seen
		}
	}
	c.diff = diff
	s.settle(b, n, cur, c)
	r.fresh = false
}

// follow watches every lookup on the way to r, the last one with the writes to what it finds if these are asked for, and
// reports whether that way is another than before.
func (s *Sensor) follow(r *root, steps []step, writes bool) (moved bool) {
	before := r.trail
	r.trail, r.polled = nil, false
	for i, st := range steps {
		w, _, err := s.watches.of(st.dir, writes && i == len(steps)-1)
		if err != nil {
			r.polled = true
			s.unwatched(st.dir, err)
			continue
		}
		s.watches.step(w, st.name, r)
		t := trail{st, w}
		r.trail = append(r.trail, t)
		moved = moved || !slices.Contains(before, t)
	}
	for _, t := range before {
		if !slices.Contains(r.trail, t) {
			s.watches.unstep(t.watch, t.name, r)
		}
	}
	return moved
}

// leads reports whether the last lookup of r is of name in dir.
func (r *root) leads(dir, name string) bool {
	return len(r.trail) > 0 && r.trail[len(r.trail)-1].step == step{dir, name}
}

// skip counts and logs what could not be looked at.
func (s *Sensor) skip(path string, err error) {
	if errors.Is(err, errGone) {
		return
	}
	if errors.Is(err, fs.ErrPermission) {
		s.counters.change(func(t *Stats) { t.Skipped.Permission++ })
	} else {
		s.counters.change(func(t *Stats) { t.Skipped.Other++ })
	}
	s.saySkip.Do(func() { s.config.Logger.Warn("cannot look at a watched file", "path", path, "error", err) })
}

// unwatched counts a folder that has no watch, and logs the first for want of watches.
func (s *Sensor) unwatched(path string, err error) {
	switch {
	case errors.Is(err, errFull):
		s.counters.change(func(t *Stats) { t.Skipped.Watches++ })
		s.sayFull.Do(func() {
			s.config.Logger.Warn("folders are polled for want of watches", "one", path, "every", s.config.Poll, "reason", err)
		})
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		// it is gone again, which its parent tells
	default:
		s.skip(path, err)
	}
}

// expand makes p's roots those that the pattern stands for now.
func (s *Sensor) expand(b *batch, p *root, c cause) {
	var (
		steps []step
		paths []string
	)
	for range 2 { // what came before the watches stood is matched again
		steps = steps[:0]
		var err error
		if paths, err = match(p.view.root, p.path, s.config.Limits.Files, &steps); err != nil {
			s.skip(p.path, err)
		}
		if !s.follow(p, steps, false) {
			break
		}
	}
	if p.view.gone() {
		return // which is why nothing is there
	}
	for _, path := range paths {
		if n := p.view.top.lookup(path); n == nil || n.root() == nil {
			r := s.addRoot(p.view, path, p.rank)
			r.pattern = p
			r.fresh = r.fresh && c.origin != live && (p.view != s.main || !slices.Contains(s.covered, p.path))
			s.refresh(b, r, c)
		}
	}
	s.roots = slices.DeleteFunc(s.roots, func(r *root) bool {
		if r.pattern != p || slices.Contains(paths, r.path) {
			return false
		}
		s.refresh(b, r, c)
		s.follow(r, nil, false)
		r.node.folder.root = nil
		r.node.prune()
		return true
	})
}

// recall makes roots of what p stood for in the loaded baseline, so that what is gone since is told.
func (s *Sensor) recall(p *root) {
	nodes := []*node{s.top}
	for name := range components(p.path) {
		var next []*node
		for _, n := range nodes {
			if n.folder == nil {
				continue
			}
			for _, c := range n.folder.children {
				if ok, _ := filepath.Match(name, c.name); ok {
					next = append(next, c)
				}
			}
		}
		nodes = next
	}
	for _, n := range nodes {
		if n.root() == nil {
			r := s.addRoot(s.main, n.path(), p.rank)
			r.pattern, r.fresh = p, false
		}
	}
}
