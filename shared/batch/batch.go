// Package batch is group commit: many callers hand in items and block, one flush takes what has gathered, every caller
// gets its own item's verdict.
//
// The flow: [Group.Do] puts an item in the queue; a flush starts as soon as the queue holds Count or Bytes, or its
// first item has waited for Linger, and a slot of Flushes is free. While all slots are busy items keep gathering, so
// that a slow receiver gets larger batches instead of more of them. A flush takes items in the order they came, up to
// the limits; an item above a limit is flushed alone.
//
// Promises: what a flush answers, its error and its panic included, reaches its own callers and nobody else. One
// caller's cancellation harms no other. Nothing is retried here. No goroutine outlives its flush, and no timer is per
// item.
//
// Limits: [Limits.Waiting] bounds what is held; callers beyond it block, first come first served, until there is room
// or their context ends. When a caller blocks, the queue is flushed without lingering: no more can gather.
package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// ErrClosed is the verdict of items that come after Close began, still wait for room then, or were not yet taken by a
// flush when Close's context ended. None of them was delivered.
var ErrClosed = errors.New("the group is closed")

// ErrUnderWay is part of Do's error when the caller gave up on an item that a flush has taken: it may yet be delivered.
var ErrUnderWay = errors.New("a flush has it")

// Why the context of a flush ended, as [context.Cause] tells.
var (
	errAbandoned = errors.New("all callers of the flush gave up")
	errNoGrace   = errors.New("the group was closed and its grace is over")
)

// Limits end the gathering of a flush: whichever is reached first.
type Limits struct {
	Count   int           // weight of items, see Weight.Count
	Bytes   int           // weight of items, see Weight.Bytes
	Linger  time.Duration // since the first item of the flush came; 0: flush as soon as a slot is free
	Flushes int           // flushes at the same time, at most
	Waiting int           // bytes that wait or are being flushed, at most; further callers block
}

// Weight is what one item counts against the limits.
type Weight struct{ Count, Bytes int }

// Flush delivers items and returns nil when all were accepted, or one verdict per item, nil for an accepted one.
// Its context ends when all of its callers gave up or the group was closed without grace. The items are the flush's.
type Flush[T any] func(ctx context.Context, items []T) []error

// PanicError is the verdict of all items of a flush that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

// Error leaves the stack out.
func (e *PanicError) Error() string { return fmt.Sprintf("the flush panicked: %v", e.Value) }

// Group gathers items for flushes. Safe for concurrent use.
type Group[T any] struct {
	limits  Limits
	flush   Flush[T]
	entries sync.Pool // of *entry[T]

	mu      sync.Mutex
	blocked list[T] // wait for room
	queue   list[T] // wait for a flush
	flights map[*flight[T]]struct{}
	held    int // bytes in queue and flights
	timer   *time.Timer
	armed   bool // the timer will fire, for the first of the queue or for one before it
	closed  bool
	idle    chan struct{} // closed when the group is closed and the last flush ended
}

// entry is one call of Do.
type entry[T any] struct {
	item    T
	weight  Weight
	came    time.Time  // into the queue
	verdict chan error // holds one, so that no flush waits for a caller

	list       *list[T]   // where it waits, nil when taken
	prev, next *entry[T]  // in list
	flight     *flight[T] // that took it
}

// flight is one running flush.
type flight[T any] struct {
	entries []*entry[T]
	bytes   int
	callers int                     // that did not give up
	cancel  context.CancelCauseFunc // of the flush's context
}

// New starts a group. All limits must be positive, but for Linger, which may be 0; New panics otherwise.
func New[T any](l Limits, f Flush[T]) *Group[T] {
	if l.Count < 1 || l.Bytes < 1 || l.Linger < 0 || l.Flushes < 1 || l.Waiting < 1 {
		panic(fmt.Sprintf("batch: limits out of range: %+v", l))
	}
	return &Group[T]{limits: l, flush: f, flights: make(map[*flight[T]]struct{}), idle: make(chan struct{})}
}

// Do hands item in and waits for its verdict. When ctx ends first, Do returns ctx's error; an item not yet taken by a
// flush is taken back, of one already taken the error says so: [ErrUnderWay].
func (g *Group[T]) Do(ctx context.Context, item T, w Weight) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := g.newEntry(item, w)
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return ErrClosed
	}
	g.blocked.push(e)
	g.admit()
	g.dispatch()
	g.mu.Unlock()

	select {
	case err := <-e.verdict:
		g.recycle(e)
		return err
	case <-ctx.Done():
		taken := g.giveUp(e)
		select {
		case err := <-e.verdict: // it came at the same moment
			return err
		default:
		}
		if taken {
			return fmt.Errorf("%w: %w", ErrUnderWay, ctx.Err())
		}
		return ctx.Err()
	}
}

// giveUp takes e back, or tells its flush that one caller less is waiting, and reports which.
func (g *Group[T]) giveUp(e *entry[T]) (taken bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case e.list != nil:
		if e.list == &g.queue {
			g.held -= e.weight.Bytes
		}
		e.list.remove(e)
		g.admit()
		g.dispatch()
	case e.flight != nil:
		if e.flight.callers--; e.flight.callers == 0 {
			e.flight.cancel(errAbandoned)
		}
		return true
	}
	return false
}

// Close flushes what is in hand and waits for it until ctx ends. Then it ends the contexts of the running flushes, does
// not wait for those that take no notice, and returns ctx's error.
func (g *Group[T]) Close(ctx context.Context) error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		g.fail(&g.blocked)
		g.dispatch()
		g.signalIdle()
	}
	g.mu.Unlock()
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held -= g.queue.weight.Bytes
	g.fail(&g.queue)
	for f := range g.flights {
		f.cancel(errNoGrace)
	}
	return ctx.Err()
}

// The methods below are called with g.mu held, unless they say otherwise.

// admit moves blocked entries into the queue while there is room. One that is larger than all room waits for an empty
// house.
func (g *Group[T]) admit() {
	for e := g.blocked.first; e != nil; e = g.blocked.first {
		if g.held > 0 && g.held+e.weight.Bytes > g.limits.Waiting {
			return
		}
		g.blocked.remove(e)
		g.held += e.weight.Bytes
		e.came = time.Now()
		g.queue.push(e)
	}
}

// dispatch starts the flushes that are due and have a slot, or sees to it that the timer calls again.
func (g *Group[T]) dispatch() {
	for g.queue.first != nil && len(g.flights) < g.limits.Flushes {
		if !g.due() {
			return
		}
		g.start()
	}
}

func (g *Group[T]) due() bool {
	w := g.queue.weight
	if g.closed || w.Count >= g.limits.Count || w.Bytes >= g.limits.Bytes || g.blocked.first != nil {
		return true
	}
	if g.armed {
		return false
	}
	left := g.limits.Linger - time.Since(g.queue.first.came)
	if left <= 0 {
		return true
	}
	g.armed = true
	if g.timer == nil {
		g.timer = time.AfterFunc(left, g.ring)
	} else {
		g.timer.Reset(left)
	}
	return false
}

// ring is the timer's; it is called without g.mu.
func (g *Group[T]) ring() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	g.dispatch()
}

// start takes the first entries of the queue, as many as the limits allow but at least one, and flushes them.
func (g *Group[T]) start() {
	var (
		f     flight[T]
		count int
	)
	for e := g.queue.first; e != nil; e = g.queue.first {
		if len(f.entries) > 0 && (count+e.weight.Count > g.limits.Count || f.bytes+e.weight.Bytes > g.limits.Bytes) {
			break
		}
		count += e.weight.Count
		f.bytes += e.weight.Bytes
		g.queue.remove(e)
		e.flight = &f
		f.entries = append(f.entries, e)
	}
	f.callers = len(f.entries)
	ctx, cancel := context.WithCancelCause(context.Background())
	f.cancel = cancel
	g.flights[&f] = struct{}{}
	go g.run(ctx, &f)
}

// fail gives every entry of l the verdict ErrClosed.
func (g *Group[T]) fail(l *list[T]) {
	for e := l.first; e != nil; e = l.first {
		l.remove(e)
		e.verdict <- ErrClosed
	}
}

func (g *Group[T]) signalIdle() {
	if g.closed && len(g.flights) == 0 && g.queue.first == nil {
		if g.timer != nil {
			g.timer.Stop()
		}
		close(g.idle)
	}
}

// run is a flight's goroutine; it is started without g.mu.
func (g *Group[T]) run(ctx context.Context, f *flight[T]) {
	var verdicts []error
	err := errors.New("the flush ended its goroutine") // by runtime.Goexit: neither a return nor a panic
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		g.land(f, verdicts, err)
	}()
	items := make([]T, len(f.entries))
	for i, e := range f.entries {
		items[i] = e.item
	}
	verdicts = g.flush(ctx, items)
	err = nil
	if verdicts != nil && len(verdicts) != len(items) {
		err = fmt.Errorf("the flush returned %d verdicts for %d items", len(verdicts), len(items))
	}
}

// land gives every caller of f its verdict, or err, and lets go of what f held. It is called without g.mu.
func (g *Group[T]) land(f *flight[T], verdicts []error, err error) {
	for i, e := range f.entries {
		if err == nil && verdicts != nil {
			e.verdict <- verdicts[i]
		} else {
			e.verdict <- err
		}
	}
	f.cancel(nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.flights, f)
	g.held -= f.bytes
	g.admit()
	g.dispatch()
	g.signalIdle()
}
