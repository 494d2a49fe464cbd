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

// until calls f with entries as long as it returns true. Those below an entry for which it returns false, which are no
// less, are left out.
func (o *order) until(f func(*entry) bool) {
	todo := []int{0}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if i < len(o.entries) && f(o.entries[i]) {
			todo = append(todo, 2*i+1, 2*i+2)
		}
	}
}
