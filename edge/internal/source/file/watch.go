package file

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// anyName stands in a watch's steps for every name: a pattern is matched in that folder.
const anyName = "*/" // no file can be called that

// watch is one inotify watch, always of a folder.
type watch struct {
	key   string // the folder on the disk, as the notifier knows it
	id    id
	nodes []*node // whose entries it tells of; more than one where a bind mount or a symlink leads there twice
	steps map[string][]*root
	// writes is true when it tells of writes to files: not if the folder is only on the way to a watched one.
	writes bool
}

func (w *watch) unused() bool { return len(w.nodes) == 0 && len(w.steps) == 0 }

// errFull says that no more watches are to be had.
var errFull = errors.New("the limit of inotify watches is reached; raise fs.inotify.max_user_watches or watch less")

// watches keeps one inotify watch for each folder that is of use. The kernel knows a folder by its inode and the notifier
// by the path it was added with, so the two are kept in step here: a folder that was moved is added anew under its new
// path, and one that is seen at two paths has one watch. Only the sensor's loop calls it; the maps that the pump reads
// change under the lock of hints, which is never held over a call to the notifier.
type watches struct {
	fs    *notifier // nil when there is no inotify instance to be had
	queue *hints
	byID  map[id]*watch
	limit int      // 0: the kernel's
	lost  []*watch // dropped with users left, which must look for another
}

func newWatches(queue *hints, limit int) *watches {
	return &watches{queue: queue, byID: make(map[id]*watch), limit: limit}
}

func (ws *watches) len() int { return len(ws.queue.watched) }

// of returns the watch of the folder dir, a new one if there was none. fresh is true if events may have been missed
// until now, so that the folder is to be read. Of writes to files it tells if anybody asked it to.
func (ws *watches) of(dir string, writes bool) (w *watch, fresh bool, err error) {
	s, err := lstat(dir)
	if err != nil {
		return nil, false, err
	}
	if s.kind != directory {
		return nil, false, unix.ENOTDIR
	}
	old := ws.queue.watched[dir]
	if old != nil && old.id == s.id {
		if !writes || old.writes {
			return old, false, nil
		}
		old.writes = true
		return old, true, ws.renew(old)
	}
	if old != nil { // another folder has taken the name
		ws.drop(old)
	}
	if w := ws.byID[s.id]; w != nil {
		if now, err := lstat(w.key); err == nil && now.id == s.id {
			if writes && !w.writes {
				w.writes = true
				err = ws.renew(w)
			}
			return w, true, err // the same folder at a second place
		}
		ws.remove(w)
		w.key, w.writes = dir, w.writes || writes
		return w, true, ws.add(w)
	}
	if ws.limit > 0 && ws.len() >= ws.limit {
		return nil, false, errFull
	}
	w = &watch{key: dir, id: s.id, writes: writes}
	return w, true, ws.add(w)
}

// add makes w known before the kernel can tell of it, and takes that back if the kernel will not.
func (ws *watches) add(w *watch) error {
	if ws.fs == nil {
		return errFull
	}
	ws.queue.mu.Lock()
	ws.queue.watched[w.key] = w
	ws.queue.mu.Unlock()
	ws.byID[w.id] = w
	err := ws.fs.add(w.key, w.writes)
	if err == nil {
		return nil
	}
	ws.drop(w)
	if errors.Is(err, unix.ENOSPC) {
		return errFull
	}
	return fmt.Errorf("watching %q: %w", w.key, err)
}

// renew asks the kernel again for the watch of w, which is lost when its end was told in events that overflowed.
func (ws *watches) renew(w *watch) error { return ws.fs.add(w.key, w.writes) }

func (ws *watches) forget(w *watch) {
	ws.queue.mu.Lock()
	if ws.queue.watched[w.key] == w {
		delete(ws.queue.watched, w.key)
	}
	ws.queue.mu.Unlock()
	if ws.byID[w.id] == w {
		delete(ws.byID, w.id)
	}
}

// remove ends the kernel's watch of w.
func (ws *watches) remove(w *watch) {
	if ws.queue.watched[w.key] != w {
		return // another has its path
	}
	ws.forget(w)
	ws.fs.remove(w.key)
}

// drop ends w and takes it from everyone who used it.
func (ws *watches) drop(w *watch) {
	ws.remove(w)
	for _, n := range w.nodes {
		if n.folder.watch == w {
			n.folder.watch = nil
		}
	}
	if !w.unused() {
		ws.lost = append(ws.lost, w)
	}
}

// tell makes w tell of the entries of n.
func (ws *watches) tell(w *watch, n *node) {
	f := n.asFolder()
	if f.watch == w {
		return
	}
	if f.watch != nil {
		ws.leave(n)
	}
	f.watch = w
	ws.queue.mu.Lock()
	w.nodes = append(w.nodes, n)
	ws.queue.mu.Unlock()
}

// leave takes n from the watch it has.
func (ws *watches) leave(n *node) {
	if n.folder == nil || n.folder.watch == nil {
		return
	}
	w := n.folder.watch
	n.folder.watch = nil
	ws.queue.mu.Lock()
	w.nodes = slices.DeleteFunc(w.nodes, func(m *node) bool { return m == n })
	ws.queue.mu.Unlock()
	if w.unused() {
		ws.remove(w)
	}
}

// step makes w tell r what becomes of name.
func (ws *watches) step(w *watch, name string, r *root) {
	ws.queue.mu.Lock()
	defer ws.queue.mu.Unlock()
	if slices.Contains(w.steps[name], r) {
		return
	}
	if w.steps == nil {
		w.steps = make(map[string][]*root)
	}
	w.steps[name] = append(w.steps[name], r)
}

// unstep takes that back.
func (ws *watches) unstep(w *watch, name string, r *root) {
	ws.queue.mu.Lock()
	left := slices.DeleteFunc(w.steps[name], func(q *root) bool { return q == r })
	if len(left) > 0 {
		w.steps[name] = left
	} else {
		delete(w.steps, name)
	}
	ws.queue.mu.Unlock()
	if w.unused() {
		ws.remove(w)
	}
}

// at returns the watch of the folder dir, nil if it has none.
func (ws *watches) at(dir string) *watch { return ws.queue.watched[dir] }
