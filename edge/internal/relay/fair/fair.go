// Package fair shares a bounded amount of memory among many who want some: whoever waits for the longest time in no
// matter how many requests does not push out the one who asks once.
//
// Each flow (a pod) has a queue of its own. As long as there is room, nobody waits. When there is none, what becomes free
// goes round the flows by deficit round robin (Shreedhar and Varghese, 1996): each gets as many bytes in a round as any
// other, whatever the sizes and numbers of its requests are.
//
// Limits: a queue is as long as its callers are many, which is theirs to bound; who waits holds nothing but a goroutine.
package fair

import (
	"context"
	"sync"
)

// quantum is what a flow may take in a round: about an ordinary request, so that a round is short.
const quantum = 64 << 10

// Gate hands out room. Safe for concurrent use.
type Gate struct {
	mu      sync.Mutex
	free    int // may be negative, by what was taken without asking
	total   int
	flows   map[string]*flow
	ring    []*flow // those that wait, in the order of their turns
	visited bool    // the first of ring got its quantum for this turn
}

type flow struct {
	name    string
	waiting []*waiter
	deficit int
}

type waiter struct {
	bytes int
	ready chan struct{} // closed when the bytes are its own
}

// New returns a gate with room for total bytes.
func New(total int) *Gate { return &Gate{free: total, total: total, flows: make(map[string]*flow)} }

// Grant is room that was handed out. It is not safe for concurrent use.
type Grant struct {
	gate  *Gate
	bytes int
}

// Acquire waits for bytes of room on behalf of a flow, until ctx ends. What is more than all room counts as all of it.
func (g *Gate) Acquire(ctx context.Context, name string, bytes int) (*Grant, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	bytes = min(max(bytes, 0), g.total)
	g.mu.Lock()
	if len(g.ring) == 0 && bytes <= g.free {
		g.free -= bytes
		g.mu.Unlock()
		return &Grant{g, bytes}, nil
	}
	f := g.flows[name]
	if f == nil {
		f = &flow{name: name}
		g.flows[name] = f
		g.ring = append(g.ring, f)
	}
	w := &waiter{bytes: bytes, ready: make(chan struct{})}
	f.waiting = append(f.waiting, w)
	g.mu.Unlock()
	select {
	case <-w.ready:
		return &Grant{g, bytes}, nil
	case <-ctx.Done():
		return g.giveUp(f, w, ctx.Err())
	}
}

// giveUp takes w out of its queue, or accepts what it got in the same moment.
func (g *Gate) giveUp(f *flow, w *waiter, err error) (*Grant, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range f.waiting {
		if f.waiting[i] == w {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			if len(f.waiting) == 0 {
				g.leave(f)
			}
			g.turn() // it may have been what the others waited behind
			return nil, err
		}
	}
	return &Grant{g, w.bytes}, nil
}

// Grow takes what a grant turned out to need beyond what was asked for. It does not wait, for who holds room and waits
// for more could wait for itself; it reports false when twice the room is taken.
func (r *Grant) Grow(to int) bool {
	more := to - r.bytes
	if more <= 0 {
		return true
	}
	g := r.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free-more < -g.total {
		return false
	}
	g.free -= more
	r.bytes = to
	return true
}

// Release gives the room back. A second call does nothing.
func (r *Grant) Release() {
	g := r.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += r.bytes
	r.bytes = 0
	g.turn()
}

// Held returns how much is handed out.
func (g *Gate) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total - g.free
}

// turn hands out what is free, flow by flow. It is called with g.mu held.
func (g *Gate) turn() {
	for len(g.ring) > 0 {
		f := g.ring[0]
		if !g.visited {
			f.deficit += quantum
			g.visited = true
		}
		for len(f.waiting) > 0 && f.waiting[0].bytes <= f.deficit {
			w := f.waiting[0]
			if w.bytes > g.free {
				return // its turn goes on when there is room: a large request is not overtaken for ever
			}
			f.waiting = f.waiting[1:]
			f.deficit -= w.bytes
			g.free -= w.bytes
			close(w.ready)
		}
		if len(f.waiting) == 0 {
			g.leave(f)
			continue
		}
		g.ring = append(g.ring[1:], f)
		g.visited = false
	}
}

// leave takes f, which has nobody waiting, out of the ring.
func (g *Gate) leave(f *flow) {
	delete(g.flows, f.name)
	for i := range g.ring {
		if g.ring[i] == f {
			if i == 0 {
				g.visited = false
			}
			g.ring = append(g.ring[:i], g.ring[i+1:]...)
			return
		}
	}
}
