package file

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Root is the file system of a container, in which Config.Paths and Config.ReadPaths are watched too.
type Root struct {
	// Path is where it is to be found: /proc/PID/root of any of the container's processes.
	Path string
	// Container is the container's id, which its events carry.
	Container string
}

// view is a file system that is watched: that under Config.Root, or a container's.
type view struct {
	root      string
	container string // empty of that under Config.Root
	id        id     // of the root folder: a pid that is used again leads to another
	top       *node
	mounts    mountTable // of a container's, as they were last; nil at first
}

// errGone says that a container's file system cannot be reached by its process any more. Its files are not deleted.
var errGone = errors.New("the container's process is gone")

// gone reports whether v is not what it was. That under Config.Root never is.
func (v *view) gone() bool {
	if v.container == "" {
		return false
	}
	s, err := lstat(v.root)
	return err != nil || s.id != v.id
}

// view returns the file system that n is in.
func (n *node) view() *view {
	for n.parent != nil {
		n = n.parent
	}
	return n.folder.view
}

// newView returns one without files.
func newView(r Root, of id) *view {
	v := &view{root: r.Path, container: r.Container, id: of}
	v.top = &node{folder: &folder{real: r.Path, view: v}}
	return v
}

// scopes are the views as other goroutines see them.
type scopes struct{ list atomic.Pointer[[]view] }

func (sc *scopes) set(views []*view) {
	list := make([]view, len(views))
	for i, v := range views {
		list[i] = *v
	}
	sc.list.Store(&list)
}

func (sc *scopes) all() []view {
	if list := sc.list.Load(); list != nil {
		return *list
	}
	return nil
}

// setRoots makes the containers' views those of roots, of which every one is reached by a process of its own, so that
// the same container may be listed several times or by another process than before. The first that can be reached counts.
func (s *Sensor) setRoots(ctx context.Context, roots []Root) {
	type want struct {
		Root
		id id
	}
	host, err := lstat(s.config.Root)
	seen := map[id]bool{}
	if err == nil {
		seen[host.id] = true // a process that is in no container
	}
	wanted := make(map[string]want)
	refused := make(map[string]error)
	beyond := make(map[string]bool)
	var order []string
	for _, r := range roots {
		if _, found := wanted[r.Container]; found || r.Container == "" {
			continue
		}
		st, err := lstat(r.Path)
		if errors.Is(err, fs.ErrPermission) {
			refused[r.Container] = err
		}
		switch {
		case err != nil || st.kind != directory || seen[st.id]:
		case len(wanted) >= s.config.Limits.Roots:
			beyond[r.Container] = true
		default:
			seen[st.id] = true
			wanted[r.Container] = want{r, st.id}
			order = append(order, r.Container)
		}
	}
	for container, err := range refused {
		if _, found := wanted[container]; !found {
			s.skip("the root of container "+container, err)
		}
	}
	s.counters.change(func(t *Stats) { t.Skipped.Roots = len(beyond) })
	b := newBatch(ctx)
	now := time.Now()
	moved := false
	known := make(map[string]bool)
	s.views = slices.DeleteFunc(s.views, func(v *view) bool {
		if v.container == "" {
			return false
		}
		w, ok := wanted[v.container]
		if !ok || w.id != v.id {
			s.dropView(v)
			moved = true
			return true
		}
		known[v.container] = true
		if v.gone() {
			s.moveView(b, v, w.Path, cause{origin: rescan, at: now, deep: true})
			moved = true
		}
		return false
	})
	for _, container := range order {
		if !known[container] {
			s.addView(b, newView(wanted[container].Root, wanted[container].id), now)
			moved = true
		}
	}
	s.flush(b)
	if !moved {
		return
	}
	s.scopes.set(s.views)
	s.reads.regatherNow()
	s.counters.change(func(t *Stats) { t.Roots, t.Unhashed = len(s.views)-1, len(s.backlog) })
}

// addView watches Config.Paths in v, of which a new baseline is made.
func (s *Sensor) addView(b *batch, v *view, at time.Time) {
	s.views = append(s.views, v)
	s.disown(v)
	c := cause{origin: silent, at: at, deep: true}
	for rank, path := range s.config.Paths {
		if isPattern(path) {
			p := &root{path: path, rank: rank, view: v}
			s.patterns = append(s.patterns, p)
			s.expand(b, p, c)
		} else {
			s.refresh(b, s.addRoot(v, path, rank), c)
		}
	}
	s.adopt(b, c)
}

// unwatch ends all watches of v.
func (s *Sensor) unwatch(v *view) {
	for _, list := range [][]*root{s.roots, s.patterns} {
		for _, r := range list {
			if r.view == v {
				s.follow(r, nil, false)
			}
		}
	}
	v.top.all(func(n *node) bool {
		s.watches.leave(n)
		delete(s.polled, n)
		return true
	})
}

// dropView forgets v: a container that ended deleted no file.
func (s *Sensor) dropView(v *view) {
	s.unwatch(v)
	ours := func(r *root) bool { return r.view == v }
	s.roots, s.patterns = slices.DeleteFunc(s.roots, ours), slices.DeleteFunc(s.patterns, ours)
	v.top.all(func(n *node) bool {
		s.texts.forget(n)
		delete(s.backlog, n)
		if n.state.kind != absent {
			s.count(&n.state, -1)
		}
		return true
	})
}

// moveView reaches v by another process and compares it with the baseline.
func (s *Sensor) moveView(b *batch, v *view, to string, c cause) {
	s.unwatch(v)
	v.top.all(func(n *node) bool {
		if f := n.folder; f != nil {
			f.polled = false
			if rest, ok := strings.CutPrefix(f.real, v.root); ok && f.real != "" {
				f.real = to + rest
			}
		}
		return true
	})
	v.root = to
	for _, r := range slices.Clone(s.roots) {
		if r.view == v {
			s.refresh(b, r, c)
		}
	}
	for _, p := range s.patterns {
		if p.view == v {
			s.expand(b, p, c)
		}
	}
	s.adopt(b, c)
}
