package batch

// list is a queue of entries from which any can be taken. The zero value is empty.
type list[T any] struct {
	first, last *entry[T]
	weight      Weight // of all
}

func (l *list[T]) push(e *entry[T]) {
	e.list, e.prev, e.next = l, l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.weight.Count += e.weight.Count
	l.weight.Bytes += e.weight.Bytes
}

func (l *list[T]) remove(e *entry[T]) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.list, e.prev, e.next = nil, nil, nil
	l.weight.Count -= e.weight.Count
	l.weight.Bytes -= e.weight.Bytes
}

func (g *Group[T]) newEntry(item T, w Weight) *entry[T] {
	e, _ := g.entries.Get().(*entry[T])
	if e == nil {
		e = &entry[T]{verdict: make(chan error, 1)}
	}
	e.item, e.weight = item, Weight{Count: max(w.Count, 0), Bytes: max(w.Bytes, 0)}
	return e
}

// recycle takes an entry whose verdict was received: nobody else knows it any more. One that was given up may still be
// in a flush and is left to the garbage collector.
func (g *Group[T]) recycle(e *entry[T]) {
	*e = entry[T]{verdict: e.verdict}
	g.entries.Put(e)
}
