package file

import (
	"slices"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// origin is how the sensor came to look at a name.
type origin uint8

const (
	live      origin = iota // the kernel told
	rescan                  // found by comparing the tree with the baseline
	remount                 // the same, where the mounts changed
	whileDown               // the same, at the start
	silent                  // makes a baseline and no events
)

// change is what became of one name.
type change struct {
	container string
	path      string
	prev, cur *state // nil: was not, or is no more
	at        time.Time
	origin    origin
	written   bool // the kernel said that it was written to
	moved     bool // the kernel said that the name was taken away by a rename

	from    string         // the name before, set by pair
	diff    string         // of its content
	writers []event.Writer // set by nameWriters
	names   []string       // other hard links, set by nameLinks
}

// displaced reports whether the inode that had the name has it no more.
func (c *change) displaced() bool { return c.prev != nil && (c.cur == nil || c.cur.id != c.prev.id) }

// arrived reports whether an inode has the name that had it not before.
func (c *change) arrived() bool { return c.cur != nil && (c.prev == nil || c.cur.id != c.prev.id) }

// pair finds the renames among changes: an inode that left one name and arrived at another. It keeps the order of
// changes, but that what left a name is told before what took its place, and reuses their memory.
func pair(changes []change) []change {
	left := make(map[id][]int)
	for i := range changes {
		if c := &changes[i]; c.displaced() {
			left[c.prev.id] = append(left[c.prev.id], i)
		}
	}
	if len(left) == 0 {
		return changes
	}
	sources := make([]*state, len(changes)) // what arrived at i, as it was under its old name
	departed := make([]bool, len(changes))
	for i := range changes {
		c := &changes[i]
		if !c.arrived() {
			continue
		}
		for k, j := range left[c.cur.id] {
			old := &changes[j]
			if old.container == c.container && old.prev.kind == c.cur.kind && (old.moved || likelyMoved(old, c)) {
				sources[i], departed[j] = old.prev, true
				c.from = old.path
				left[c.cur.id] = append(left[c.cur.id][:k:k], left[c.cur.id][k+1:]...)
				break
			}
		}
	}
	out := changes[:0]
	for i, c := range changes {
		switch {
		case departed[i] && c.cur == nil:
			continue // told with its new name
		case departed[i] && sources[i] == nil:
			c.prev, c.diff = nil, "" // what is there now is new
		case sources[i] != nil && (c.prev == nil || departed[i]):
			c.prev, c.diff = sources[i], ""
		}
		out = append(out, c)
	}
	return departuresFirst(out)
}

// departuresFirst puts every rename before the change of the name that it left, so that a reader who follows the events
// one by one ends with the tree. Two names that were exchanged have no such order.
func departuresFirst(changes []change) []change {
	type name struct{ container, path string }
	heir := make(map[name]int) // by the old name
	for i := range changes {
		if c := &changes[i]; c.from != "" {
			heir[name{c.container, c.from}] = i
		}
	}
	if len(heir) == 0 {
		return changes
	}
	out := make([]change, 0, len(changes))
	told := make([]bool, len(changes))
	var chain []int
	for i := range changes {
		for j, ok := i, true; ok && !told[j]; j, ok = heir[name{changes[j].container, changes[j].path}] {
			told[j] = true
			chain = append(chain, j)
		}
		for _, j := range slices.Backward(chain) {
			out = append(out, changes[j])
		}
		chain = chain[:0]
	}
	return out
}

// likelyMoved stands in for the kernel's word. Inode numbers are reused, and all of them change when a container starts
// anew, so more than the number must agree.
func likelyMoved(old, c *change) bool {
	return old.cur == nil && c.prev == nil && c.origin != live &&
		old.prev.size == c.cur.size && old.prev.mtime == c.cur.mtime &&
		(old.prev.hashing != hashed || c.cur.hashing != hashed || old.prev.sum == c.cur.sum)
}

// events returns what c is worth telling, nothing for a silent one.
func (c *change) events() []*event.Event {
	if c.origin == silent {
		return nil
	}
	switch {
	case c.cur == nil:
		gone := event.FileState{UID: event.UnknownID, GID: event.UnknownID}
		return []*event.Event{c.event(event.FileDelete, "delete", gone)}
	case c.prev == nil:
		return []*event.Event{c.event(event.FileCreate, "create", c.cur.forEvent())}
	}
	var out []*event.Event
	now := c.cur.forEvent()
	d := compare(c.prev, c.cur, c.written)
	if c.origin == remount && c.prev.id != c.cur.id {
		d |= content // of a folder too: another stands before it
	}
	if c.from != "" {
		out = append(out, c.event(event.FileRename, "rename", now))
		if c.prev.id != c.cur.id {
			return out // it replaced another file, whose state is in Previous
		}
	}
	if d&content != 0 {
		out = append(out, c.event(event.FileModify, "modify", now))
	}
	if d&mode != 0 {
		out = append(out, c.event(event.FileChmod, "chmod", now))
	}
	if d&owner != 0 {
		out = append(out, c.event(event.FileChown, "chown", now))
	}
	return out
}

func (c *change) event(t event.Type, operation string, now event.FileState) *event.Event {
	e := &event.Event{
		Type:      t,
		Timestamp: c.at,
		File:      &event.File{Path: c.path, Operation: operation, FileState: now},
		Metadata:  c.metadata(),
	}
	e.File.Writers = c.writers
	if c.container != "" {
		e.Container = &event.Container{ID: c.container}
	}
	if t == event.FileCreate || t == event.FileModify || t == event.FileRename && c.prev.id != c.cur.id {
		e.File.Diff = c.diff
	}
	if c.prev != nil {
		before := c.prev.forEvent()
		e.File.Previous = &before
	}
	return e
}

func (c *change) metadata() map[string]any {
	var m map[string]any
	set := func(k string, v any) {
		if m == nil {
			m = make(map[string]any, 4)
		}
		m[k] = v
	}
	shown := c.cur
	if shown == nil {
		shown = c.prev
	}
	if shown.kind != regular {
		set("kind", kindNames[shown.kind])
	} else if shown.nlink > 1 {
		set("links", int64(shown.nlink))
		if len(c.names) > 0 {
			set("link_names", c.names)
		}
	}
	if shown.link != "" {
		set("link_target", shown.link)
	}
	if c.prev != nil && c.cur != nil {
		if c.prev.link != c.cur.link && c.prev.link != "" {
			set("previous_link_target", c.prev.link)
		}
		if c.prev.id != c.cur.id || c.prev.kind != c.cur.kind {
			set("replaced", true)
		}
	}
	if c.from != "" {
		set("renamed_from", c.from)
	}
	switch c.origin {
	case rescan:
		set("rescan", true)
	case remount:
		set("remount", true)
	case whileDown:
		set("while_down", true)
	case live, silent:
		return m
	}
	if c.cur != nil {
		set("changed_at", time.Unix(0, c.cur.ctime).UTC().Format(time.RFC3339Nano))
	}
	return m
}
