package notify

import (
	"container/list"
	"context"
	"sync"

	"github.com/apss-sensor/apss/shared/event"
)

// gate lets a number of calls be under way at the same time, and of those who wait the most severe in first.
type gate struct {
	mu      sync.Mutex
	free    int
	waiting [event.Critical + 1]list.List // of chan struct{}, closed when its turn has come
}

func newGate(n int) *gate { return &gate{free: n} }

// enter returns nil when the caller is in, and must leave; else the context's error.
func (g *gate) enter(ctx context.Context, s event.Severity) error {
	s = min(s, event.Critical)
	g.mu.Lock()
	if g.free > 0 { // then nobody waits
		g.free--
		g.mu.Unlock()
		return nil
	}
	in := make(chan struct{})
	place := g.waiting[s].PushBack(in)
	g.mu.Unlock()
	select {
	case <-in:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-in: // both happened: the next one gets the place
		g.pass()
	default:
		g.waiting[s].Remove(place)
	}
	return ctx.Err()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass()
}

// pass hands a place on.
func (g *gate) pass() {
	for s := len(g.waiting) - 1; s >= 0; s-- {
		if first := g.waiting[s].Front(); first != nil {
			close(g.waiting[s].Remove(first).(chan struct{}))
			return
		}
	}
	g.free++
}
