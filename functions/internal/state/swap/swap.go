// Package swap makes the Get and the Update of a [state.Store] from a table whose records can be replaced when they still are what
// they were: compare and swap, without locks, so that an instance that stops in the middle holds up nobody.
//
// Changes that one instance makes to a record at the same time go in one write: a hundred alerts of one incident cost a
// read and a write or two, not a hundred of each, and instances compete once for all of them. That a write's answer was
// lost is found by its mark: it is not made twice.
package swap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// Table is where records are. Its errors are such as a [state.Store] returns. Safe for concurrent use.
type Table interface {
	// Read returns what is under key.
	Read(ctx context.Context, collection, key string) (Entry, error)
	// Replace puts next in the place of old, and returns what is there then: with next's mark when it was done, else what
	// came between. A next without a Value removes the record.
	Replace(ctx context.Context, collection, key string, old, next Entry) (Entry, error)
}

// Entry is a record in a table.
type Entry struct {
	state.Record
	Mark uint64    // drawn for the write that made the record; 0: there is none
	At   time.Time // of the write by the table's clock, when the table needs it
}

// errClosed is the answer after Close.
var errClosed = errors.New("the state store is closed")

// Updater is the Get and the Update of a store. Safe for concurrent use.
type Updater struct {
	table   Table
	timeout time.Duration

	mu     sync.Mutex
	closed bool
	next   map[place][]*call // by record that is being changed: who waits for the next round
	wg     sync.WaitGroup    // the rounds; grows only under mu while not closed
}

type place struct{ collection, key string }

// call is a change that somebody waits for.
type call struct {
	mu     sync.Mutex // held while change runs
	change func(state.Record) (state.Record, error)
	gone   bool // the caller gave up: change must not run any more
	err    error
	done   chan struct{} // closed when err stands
}

// New returns an Updater whose read, or reads and writes for a change, may take as long as timeout.
func New(t Table, timeout time.Duration) *Updater {
	return &Updater{table: t, timeout: timeout, next: map[place][]*call{}}
}

// Close waits for what is under way.
func (u *Updater) Close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.wg.Wait()
}

// Get implements [state.Store].
func (u *Updater) Get(ctx context.Context, collection, key string) (state.Record, error) {
	if err := state.Check(ctx, key); err != nil {
		return state.Record{}, err
	}
	short, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	e, err := u.table.Read(short, collection, key)
	if err != nil && short.Err() != nil {
		return state.Record{}, state.Down(ctx, err)
	}
	return e.Record, err
}

// Update implements [state.Store]. change is called by another goroutine, and not after Update has returned.
func (u *Updater) Update(ctx context.Context, collection, key string, change func(state.Record) (state.Record, error)) error {
	if err := state.Check(ctx, key); err != nil {
		return err
	}
	c := &call{change: change, done: make(chan struct{})}
	if !u.enter(ctx, place{collection, key}, c) {
		return errClosed
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	select {
	case <-c.done: // at the same moment
		return c.err
	default:
		return ctx.Err()
	}
}

// enter puts c into the next round for p, and begins one when none is under way.
func (u *Updater) enter(ctx context.Context, p place, c *call) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	waiting, busy := u.next[p]
	if busy {
		u.next[p] = append(waiting, c)
		return true
	}
	u.next[p] = nil
	ctx = context.WithoutCancel(ctx) // it is everybody's work
	u.wg.Go(func() {
		for calls := []*call{c}; len(calls) > 0; calls = u.following(p) {
			u.round(ctx, p, calls)
		}
	})
	return true
}

// following returns those of the next round, or ends the rounds.
func (u *Updater) following(p place) []*call {
	u.mu.Lock()
	defer u.mu.Unlock()
	calls := u.next[p]
	if len(calls) == 0 {
		delete(u.next, p)
	} else {
		u.next[p] = nil
	}
	return calls
}

// round makes the changes of calls. When they cannot be kept, that is the error of each: one may have answered to what
// another changed before it.
func (u *Updater) round(ctx context.Context, p place, calls []*call) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	err := u.commit(ctx, p, calls)
	for _, c := range calls {
		if err != nil {
			c.err = err
		}
		close(c.done)
	}
}

func (u *Updater) commit(ctx context.Context, p place, calls []*call) error {
	e, err := u.table.Read(ctx, p.collection, p.key)
	for tries := 0; ; tries++ {
		switch {
		case ctx.Err() != nil && tries > 1: // the store answers; it is no reason to go on without it
			return fmt.Errorf("%.64q is changed by too many at once: %d tries in %v", p.key, tries, u.timeout)
		case ctx.Err() != nil:
			return fmt.Errorf("%w: no answer within %v", state.ErrDown, u.timeout)
		case err != nil:
			return err
		}
		r := apply(p.key, e.Record, calls)
		if r.Equal(e.Record) {
			return nil
		}
		next := Entry{Record: r}
		if r.Value != nil {
			next.Mark = max(rand.Uint64(), 1) //nolint:gosec // it is to differ, and no secret
		}
		if e, err = u.table.Replace(ctx, p.collection, p.key, e, next); err == nil && e.Mark == next.Mark {
			return nil
		}
	}
}

// apply makes one change after the other.
func apply(key string, r state.Record, calls []*call) state.Record {
	for _, c := range calls {
		c.mu.Lock()
		if !c.gone {
			given := r
			given.Value = bytes.Clone(r.Value) // the caller's to change, also when it fails
			var changed state.Record
			if changed, c.err = c.change(given); c.err == nil {
				c.err = state.CheckValue(key, changed.Value)
			}
			if c.err == nil {
				r = kept(changed)
			}
		}
		c.mu.Unlock()
	}
	return r
}

// kept is r as a store keeps it.
func kept(r state.Record) state.Record {
	if r.Value == nil || r.Expired(time.Now()) {
		return state.Record{}
	}
	return state.Record{
		Value:   append([]byte{}, r.Value...), // not nil when it is empty
		Due:     r.Due.Truncate(time.Microsecond),
		Expires: r.Expires.Truncate(time.Microsecond),
	}
}
