package file

import (
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

const (
	// readWindow is how long further reads of a file by the same process are counted before they are told.
	readWindow = time.Minute
	// maxReaders bounds the windows that are open at one time.
	maxReaders = 1024
)

type readerKey struct {
	container, path string
	pid             int32
}

type readerWindow struct {
	first, last time.Time
	more        int // reads that were not told
	event       *event.Event
}

// report tells of opens that are not our own: at once of the first by a process in each window.
func (r *reads) report(found []opened) {
	if len(found) == 0 {
		return
	}
	r.s.counters.change(func(t *Stats) { t.Opens += len(found) })
	now := time.Now()
	states := make([]state, len(found))
	targets := make(map[id]struct{})
	for i, o := range found {
		place := o.watch.place
		if o.name != "" {
			place = join(place, o.name)
		}
		if st, err := lstat(place); err == nil && st.kind == regular {
			states[i] = st
			targets[st.id] = struct{}{}
		}
	}
	var holders map[id][]holder
	var recent []Began
	if len(targets) > 0 && r.s.search.wait() == 0 {
		holders = r.s.search.holders(targets)
		r.s.counters.change(func(t *Stats) { t.WriterSearches++ })
	}
	if b := r.s.writers.recent; r.s.config.Recent != nil && b.wait() == 0 {
		start := time.Now()
		recent = newestOf(r.s.config.Recent(), now)
		b.spend(start)
	}
	for i, o := range found {
		st := &states[i]
		path := o.watch.path
		if o.name != "" {
			path = join(path, o.name)
		}
		r.count(path, o.watch.container, now, st, candidates(deed{path, o.watch.container, now, false}, r.s.search.self, holders[st.id], recent))
	}
}

// count tells of a read, or counts it if its window is open.
func (r *reads) count(path, container string, at time.Time, st *state, by []event.Writer) {
	key := readerKey{container: container, path: path}
	if len(by) > 0 {
		key.pid = by[0].PID
	}
	if w := r.readers[key]; w != nil {
		w.more++
		w.last = at
		return
	}
	if len(r.readers) >= maxReaders {
		r.s.counters.change(func(t *Stats) { t.ReadsUnsure++ })
		return
	}
	if st.kind == absent {
		st.uid, st.gid = event.UnknownID, event.UnknownID
	}
	now := st.forEvent()
	if st.kind == absent {
		now.Mode = ""
	}
	e := &event.Event{
		Type: event.FileRead, Timestamp: at,
		File: &event.File{Path: path, Operation: "read", FileState: now, Writers: by},
	}
	if container != "" {
		e.Container = &event.Container{ID: container}
	}
	again := *e
	r.readers[key] = &readerWindow{first: at, last: at, event: &again}
	r.tell(e)
}

func (r *reads) tell(e *event.Event) {
	r.s.counters.change(func(t *Stats) { t.tally(e.Type) })
	r.s.emit(e)
}

// expire ends the windows that are over, or all, telling what they counted, and returns when the next one ends.
func (r *reads) expire(now time.Time, all bool) (next time.Time) {
	for key, w := range r.readers {
		end := w.first.Add(readWindow)
		if now.Before(end) && !all {
			next = earliest(next, end)
			continue
		}
		delete(r.readers, key)
		if w.more == 0 {
			continue
		}
		e := *w.event
		file := *e.File
		e.File, e.Timestamp = &file, w.last
		e.Metadata = map[string]any{
			"count": int64(w.more), "since": w.first.UTC().Format(time.RFC3339Nano),
		}
		r.tell(&e)
	}
	return next
}
