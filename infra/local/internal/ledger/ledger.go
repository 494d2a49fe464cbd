// Package ledger keeps the books of a run: for each event, by its id, how often it was published, delivered and
// dead-lettered. It is what the invariant is checked with: published = delivered + dead-lettered + in flight.
//
// Memory is bounded: of settled events (delivered or dead-lettered) the newest half to whole of the capacity is kept by
// id, older ones only in the totals; so an event that comes again after that counts as another one. What is in flight is
// always kept.
package ledger

import (
	"hash/fnv"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Entry is what is known of one event. Times are of the first time; zero when it did not happen.
type Entry struct {
	Published, Delivered, Dead uint32
	PublishedAt, DeliveredAt   time.Time
}

// Totals count events, each once however often it came.
type Totals struct {
	Published int64
	Delivered int64
	Dead      int64
	// InFlight were published and neither delivered nor dead-lettered yet.
	InFlight int64
	// Unpublished were delivered or dead-lettered, and nobody saw them published (yet: the books are written by
	// observers that may be a moment behind).
	Unpublished int64
	// PublishedTwice and DeliveredTwice were so more than once; Both were delivered and dead-lettered.
	PublishedTwice int64
	DeliveredTwice int64
	Both           int64
}

// Balanced reports whether published = delivered + dead-lettered + in flight.
func (t Totals) Balanced() bool {
	return t.Unpublished == 0 && t.Published == t.Delivered+t.Dead-t.Both+t.InFlight
}

type key [16]byte

// Ledger is safe for concurrent use.
type Ledger struct {
	mu       sync.Mutex
	half     int
	now, old map[key]*Entry
	totals   Totals
}

// New returns a ledger that keeps about capacity settled events by id.
func New(capacity int) *Ledger {
	return &Ledger{half: max(capacity/2, 1), now: make(map[key]*Entry)}
}

// Published notes that an event was seen on the topic.
func (l *Ledger) Published(id string, at time.Time) {
	l.note(id, func(e *Entry) {
		if e.Published++; e.Published == 1 {
			e.PublishedAt = at
		}
	})
}

// Delivered notes that the receiver accepted an event.
func (l *Ledger) Delivered(id string, at time.Time) {
	l.note(id, func(e *Entry) {
		if e.Delivered++; e.Delivered == 1 {
			e.DeliveredAt = at
		}
	})
}

// Dead notes that an event was seen on the dead-letter topic.
func (l *Ledger) Dead(id string) { l.note(id, func(e *Entry) { e.Dead++ }) }

func (l *Ledger) note(id string, change func(*Entry)) {
	k := keyOf(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(k)
	if e == nil {
		e = new(Entry)
		l.add(k, e)
	}
	l.totals.count(*e, -1)
	change(e)
	l.totals.count(*e, +1)
}

// count adds what one event counts for, n times.
func (t *Totals) count(e Entry, n int64) {
	when := func(field *int64, condition bool) {
		if condition {
			*field += n
		}
	}
	ended := e.Delivered > 0 || e.Dead > 0
	when(&t.Published, e.Published > 0)
	when(&t.Delivered, e.Delivered > 0)
	when(&t.Dead, e.Dead > 0)
	when(&t.InFlight, e.Published > 0 && !ended)
	when(&t.Unpublished, e.Published == 0 && ended)
	when(&t.PublishedTwice, e.Published > 1)
	when(&t.DeliveredTwice, e.Delivered > 1)
	when(&t.Both, e.Delivered > 0 && e.Dead > 0)
}

func (l *Ledger) find(k key) *Entry {
	if e := l.now[k]; e != nil {
		return e
	}
	return l.old[k]
}

// add makes room by forgetting the older half; what is not settled moves on.
func (l *Ledger) add(k key, e *Entry) {
	if len(l.now) >= l.half {
		forgotten := l.old
		l.old, l.now = l.now, make(map[key]*Entry, l.half)
		for k, e := range forgotten {
			if e.Published == 0 || e.Delivered == 0 && e.Dead == 0 {
				l.now[k] = e
			}
		}
	}
	l.now[k] = e
}

// Totals returns the totals of this moment.
func (l *Ledger) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.totals
}

// Get returns what is known of an event.
func (l *Ledger) Get(id string) Entry {
	k := keyOf(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.find(k); e != nil {
		return *e
	}
	return Entry{}
}

// keyOf is a UUID's bytes, or a hash of what is none.
func keyOf(id string) (k key) {
	if u, err := uuid.Parse(id); err == nil && len(id) == 36 {
		return key(u)
	}
	h := fnv.New128a()
	_, _ = h.Write([]byte(id)) // never fails
	h.Sum(k[:0])
	return k
}
