package admission

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// senders bounds what each address has under way: anybody in the cluster can reach us, and who sends slowly, or a lot, waits
// behind itself, not the API server behind it.
type senders struct {
	each int

	mu    sync.Mutex
	known map[string]*sender
}

type sender struct {
	turns   chan struct{}
	callers int
}

// enter waits for a turn of r's address; leave must be called after it. It returns false when r's caller gave up.
func (s *senders) enter(ctx context.Context, r *http.Request) (leave func(), ok bool) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.mu.Lock()
	one := s.known[address]
	if one == nil {
		one = &sender{turns: make(chan struct{}, s.each)}
		s.known[address] = one
	}
	one.callers++
	s.mu.Unlock()
	forget := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if one.callers--; one.callers == 0 {
			delete(s.known, address)
		}
	}
	select {
	case one.turns <- struct{}{}:
		return func() { <-one.turns; forget() }, true
	case <-ctx.Done():
		forget()
		return nil, false
	}
}
