package state

import (
	"container/heap"
	"slices"
)

// order is entries as a binary heap, the least first. Each knows its place.
type order struct {
	entries []*entry
	less    func(a, b *entry) bool
	at      func(*entry) *int
}

func (o *order) Len() int           { return len(o.entries) }
func (o *order) Less(i, j int) bool { return o.less(o.entries[i], o.entries[j]) }

func (o *order) Swap(i, j int) {
	o.entries[i], o.entries[j] = o.entries[j], o.entries[i]
	*o.at(o.entries[i]), *o.at(o.entries[j]) = i, j
}

func (o *order) Push(x any) {
	e := x.(*entry)
	*o.at(e) = len(o.entries)
	o.entries = append(o.entries, e)
}

func (o *order) Pop() any {
	e := o.entries[len(o.entries)-1]
	o.entries = slices.Delete(o.entries, len(o.entries)-1, len(o.entries))
	*o.at(e) = -1
	return e
}

func (o *order) add(e *entry)    { heap.Push(o, e) }
func (o *order) remove(e *entry) { heap.Remove(o, *o.at(e)) }

// first returns the least entry, nil when there is none.
func (o *order) first() *entry {
	if len(o.entries) == 0 {
		return nil
	}
	return o.entries[0]
}

// least returns at most limit entries that are within, the least first. It looks at few more than it returns: none below one
// that is not within, which are no less.
func (o *order) least(limit int, within func(*entry) bool) []*entry {
	var found []*entry
	next := frontier{order: o}
	next.add(0, within)
	for len(next.places) > 0 && len(found) < limit {
		at := heap.Pop(&next).(int)
		found = append(found, o.entries[at])
		next.add(2*at+1, within)
		next.add(2*at+2, within)
	}
	return found
}

// frontier is a heap of places in order whose entries are the next ones.
type frontier struct {
	*order
	places []int
}

func (f *frontier) Len() int           { return len(f.places) }
func (f *frontier) Less(i, j int) bool { return f.less(f.entries[f.places[i]], f.entries[f.places[j]]) }
func (f *frontier) Swap(i, j int)      { f.places[i], f.places[j] = f.places[j], f.places[i] }
func (f *frontier) Push(x any)         { f.places = append(f.places, x.(int)) }

func (f *frontier) Pop() any {
	last := f.places[len(f.places)-1]
	f.places = f.places[:len(f.places)-1]
	return last
}

func (f *frontier) add(place int, within func(*entry) bool) {
	if place < len(f.entries) && within(f.entries[place]) {
		heap.Push(f, place)
	}
}
