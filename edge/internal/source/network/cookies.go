package network

import (
	"sync"
	"time"
)

const (
	// cookieMemory is how long a cookie is remembered at least: longer than TIME_WAIT.
	cookieMemory = serviceMemory
	// maxCookies bounds half of what is remembered: about 2 MiB.
	maxCookies = 1 << 16
)

// cookies remembers ids of sockets for a while. The zero value is empty. It may be used concurrently.
type cookies struct {
	mu          sync.Mutex
	now, before map[uint64]struct{}
	turned      time.Time // when now became so
	lost        time.Time // when one was last not taken, for want of room
}

func (c *cookies) add(cookie uint64, at time.Time) {
	if cookie == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil || at.Sub(c.turned) > cookieMemory {
		c.now, c.before, c.turned = make(map[uint64]struct{}), c.now, at
	}
	if len(c.now) >= maxCookies {
		c.lost = at
		return
	}
	c.now[cookie] = struct{}{}
}

func (c *cookies) has(cookie uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, now := c.now[cookie]
	_, before := c.before[cookie]
	return now || before
}

// whole reports whether has would know of everything that was added in the last while.
func (c *cookies) whole(at time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost.IsZero() || at.Sub(c.lost) > cookieMemory
}
