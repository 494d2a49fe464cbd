package file

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

const (
	// saveEvery is how often what changed in the baseline is saved at most: what is not saved is told again after a kill.
	saveEvery = 200 * time.Millisecond
	// lastWords is how long the end waits for the last events to become durable. What is not saved then is told again.
	lastWords = 2 * time.Second
)

// unsaved is what of the baseline is not in the state file.
type unsaved struct {
	limit int
	paths map[string]struct{}
	// whole is true when everything is to be written: there is no file, or too much changed.
	whole bool
}

func (u *unsaved) add(n *node) {
	if u.whole {
		return
	}
	if len(u.paths) >= u.limit {
		u.whole, u.paths = true, nil
		return
	}
	if u.paths == nil {
		u.paths = make(map[string]struct{})
	}
	u.paths[n.path()] = struct{}{}
}

func (u *unsaved) empty() bool { return !u.whole && len(u.paths) == 0 }

// snapshot is what the saver writes once the events before it are durable.
type snapshot struct {
	records []byte
	whole   bool
}

// take encodes what is unsaved of the baseline under top.
func (u *unsaved) take(top *node, covers []string) snapshot {
	defer func() { u.whole, u.paths = false, nil }()
	if !u.whole {
		var b []byte
		for path := range u.paths {
			var st state
			if n := top.lookup(path); n != nil {
				st = n.state
			}
			b = appendState(b, path, &st)
		}
		return snapshot{records: b}
	}
	b := appendCovers([]byte(header), covers)
	top.all(func(n *node) bool {
		if n.state.kind != absent {
			b = appendState(b, n.path(), &n.state)
		}
		return true
	})
	return snapshot{records: b, whole: true}
}

// saver writes snapshots, each after the events that led to it are durable.
type saver struct {
	store  *store
	sealed func(context.Context) error
	fault  func(error)
	// whole asks for a whole snapshot: the last write failed, or the file is mostly outdated.
	whole atomic.Bool
	in    chan snapshot // closed at the end; room for the last one
}

// run writes what comes in until in is closed. One snapshot is in hand at a time, so none is ever passed by a later one.
func (sv *saver) run(ctx context.Context) {
	for snap := range sv.in {
		for !sv.write(ctx, snap) {
			if ctx.Err() != nil {
				break // its changes are told again at the next start
			}
			select {
			case <-ctx.Done():
			case <-time.After(saveEvery):
			}
		}
	}
	if err := sv.store.close(); err != nil {
		sv.fault(err)
	}
}

// write reports whether it is done with snap: it is not while the events before it are not durable.
func (sv *saver) write(ctx context.Context, snap snapshot) bool {
	err := sv.sealed(ctx)
	if err != nil && ctx.Err() != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
		err = sv.sealed(last)
	}
	if err != nil {
		return false
	}
	if sv.whole.Load() && !snap.whole {
		return true // the file misses an earlier one: only a whole one makes it true again
	}
	if snap.whole {
		err = sv.store.replace(snap.records)
	} else {
		err = sv.store.append(snap.records)
	}
	sv.whole.Store(err != nil || sv.store.crowded())
	if err != nil {
		sv.fault(err)
	}
	return true
}

// loadState fills the tree from the state file and tells whether there was one to fill it from.
func (s *Sensor) loadState(st *store) (found bool) {
	found, err := st.load(
		func(paths []string) { s.covered = paths },
		func(path string, state state) {
			if state.kind == absent {
				if n := s.top.lookup(path); n != nil {
					n.state = state
					n.prune()
				}
				return
			}
			s.top.addPath(path).state = state
		})
	if err == nil {
		return found
	}
	s.fault(err)
	if _, damaged := errors.AsType[*errCorrupt](err); damaged {
		s.config.Logger.Error("a new baseline is made, changes made while down are not told", "reason", err)
	}
	s.plant()
	return false
}

// fault counts and logs that the state file could not be used.
func (s *Sensor) fault(err error) {
	s.counters.change(func(t *Stats) { t.StateFaults++ })
	s.sayFault.Do(func() { s.config.Logger.Error("the state file cannot be used", "error", err) })
}
