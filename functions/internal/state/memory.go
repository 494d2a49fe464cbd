package state

import (
	"bytes"
	"container/list"
	"context"
	"sync"
	"time"
)

// Memory is a Store of one instance: what it keeps ends with the program. It is bounded by records and bytes. When it is
// full the collection with the most records gives one up, so that none loses for another's sake: the one that has not
// been changed for longest among those with nothing due, else among those that wait for their time. Safe for concurrent
// use.
type Memory struct {
	records int
	bytes   int

	mu          sync.Mutex
	collections map[string]*collection
	expiring    order
	count, size int
	evicted     int64
}

// collection is the records under one name. Each is in one of the lists.
type collection struct {
	name    string
	entries map[string]*entry
	idle    list.List // nothing due; least recently changed first
	waiting list.List
	due     order
}

// entry is a record in its place.
type entry struct {
	in       *collection
	key      string
	record   Record
	place    *list.Element // in one of the collection's lists
	dueAt    int           // in the collection's heap, -1: it is not
	expireAt int           // in the store's heap, -1: it is not
}

// overhead is what a record costs beside its key and value: the entry, a list's element, the places in map and heaps.
const overhead = 320

func (e *entry) size() int { return overhead + len(e.key) + len(e.record.Value) }

// NewMemory returns a store of at most so many records and bytes, keys and bookkeeping included.
func NewMemory(records, size int) *Memory {
	return &Memory{
		records: records, bytes: size, collections: map[string]*collection{},
		expiring: order{
			less: func(a, b *entry) bool { return a.record.Expires.Before(b.record.Expires) },
			at:   func(e *entry) *int { return &e.expireAt },
		},
	}
}

// Update implements [Store].
func (m *Memory) Update(ctx context.Context, name, key string, change func(Record) (Record, error)) error {
	if err := Check(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e := m.find(name, key, now)
	var old Record
	if e != nil {
		old = e.record
		old.Value = bytes.Clone(old.Value)
	}
	r, err := change(old)
	if err != nil {
		return err
	}
	if err := CheckValue(key, r.Value); err != nil {
		return err
	}
	if e != nil {
		m.remove(e)
	}
	if r.Value == nil || r.Expired(now) {
		return nil
	}
	r.Value = append([]byte{}, r.Value...) // not nil when it is empty
	m.put(name, key, r)
	m.makeRoom(now)
	return nil
}

// Get implements [Store].
func (m *Memory) Get(ctx context.Context, name, key string) (Record, error) {
	if err := Check(ctx, key); err != nil {
		return Record{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.find(name, key, time.Now())
	if e == nil {
		return Record{}, nil
	}
	r := e.record
	r.Value = bytes.Clone(r.Value)
	return r, nil
}

// Due implements [Store].
func (m *Memory) Due(ctx context.Context, name string, now time.Time, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	c := m.collections[name]
	if c == nil || limit <= 0 {
		return nil, nil
	}
	found := c.due.least(limit, func(e *entry) bool { return !e.record.Due.After(now) })
	keys := make([]string, len(found))
	for i, e := range found {
		keys[i] = e.key
	}
	return keys, nil
}

// List implements [Store].
func (m *Memory) List(ctx context.Context, name string, f func(key string, r Record) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	type item struct {
		key    string
		record Record
	}
	var items []item
	m.mu.Lock()
	m.expire(time.Now())
	if c := m.collections[name]; c != nil {
		items = make([]item, 0, len(c.entries))
		for key, e := range c.entries {
			items = append(items, item{key, e.record})
		}
	}
	m.mu.Unlock()
	for _, i := range items { // a stored value is replaced, never changed
		i.record.Value = bytes.Clone(i.record.Value)
		if !f(i.key, i.record) {
			break
		}
	}
	return ctx.Err()
}

// Close implements [Store].
func (m *Memory) Close() error { return nil }

// Volatile implements [Volatile].
func (m *Memory) Volatile() bool { return true }

// Usage returns how many records and bytes are kept, and how many records gave way since the beginning.
func (m *Memory) Usage() (records, size int, evicted int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	return m.count, m.size, m.evicted
}

// names are the collections that have records.
func (m *Memory) names() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	for name := range m.collections {
		names = append(names, name)
	}
	return names
}

// clear removes everything.
func (m *Memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.collections {
		for _, e := range c.entries {
			m.remove(e)
		}
	}
}

// find returns the entry under key, nil when there is none or it has expired.
func (m *Memory) find(name, key string, now time.Time) *entry {
	c := m.collections[name]
	if c == nil {
		return nil
	}
	e := c.entries[key]
	if e == nil || e.record.Expired(now) {
		if e != nil {
			m.remove(e)
		}
		return nil
	}
	return e
}

func (m *Memory) put(name, key string, r Record) {
	c := m.collections[name]
	if c == nil {
		c = &collection{name: name, entries: map[string]*entry{}, due: order{
			less: func(a, b *entry) bool { return a.record.Due.Before(b.record.Due) },
			at:   func(e *entry) *int { return &e.dueAt },
		}}
		m.collections[name] = c
	}
	e := &entry{in: c, key: key, record: r, dueAt: -1, expireAt: -1}
	c.entries[key] = e
	if r.Due.IsZero() {
		e.place = c.idle.PushBack(e)
	} else {
		e.place = c.waiting.PushBack(e)
		c.due.add(e)
	}
	if !r.Expires.IsZero() {
		m.expiring.add(e)
	}
	m.count++
	m.size += e.size()
}

func (m *Memory) remove(e *entry) {
	c := e.in
	delete(c.entries, e.key)
	if len(c.entries) == 0 {
		delete(m.collections, c.name)
	}
	if e.dueAt >= 0 {
		c.due.remove(e)
		c.waiting.Remove(e.place)
	} else {
		c.idle.Remove(e.place)
	}
	if e.expireAt >= 0 {
		m.expiring.remove(e)
	}
	m.count--
	m.size -= e.size()
}

// makeRoom removes what has expired, and what must give way.
func (m *Memory) makeRoom(now time.Time) {
	m.expire(now)
	for m.count > m.records || m.size > m.bytes {
		var most *collection
		for _, c := range m.collections { // a handful: a few for each integration
			if most == nil || len(c.entries) > len(most.entries) || len(c.entries) == len(most.entries) && c.name < most.name {
				most = c
			}
		}
		first := most.idle.Front()
		if first == nil {
			first = most.waiting.Front()
		}
		m.remove(first.Value.(*entry))
		m.evicted++
	}
}

// expire removes what has expired.
func (m *Memory) expire(now time.Time) {
	for e := m.expiring.first(); e != nil && e.record.Expired(now); e = m.expiring.first() {
		m.remove(e)
	}
}
