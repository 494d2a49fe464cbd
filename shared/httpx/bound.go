package httpx

import (
	"net"
	"sync"
	"time"
)

// Bound is a listener with so many connections at most, of one address and in all. It goes below TLS, where a handshake that
// does not end counts too.
//
// Beyond Each, a connection is closed as it comes. Beyond Total, the address that has most gives way, with the connection that
// it was silent on for longest, to one that has fewer by two or more: who opens all that there is room for keeps nobody out.
type Bound struct {
	net.Listener
	Each, Total int
	// Closed is called for each connection that is closed for these bounds, by one goroutine. It may be nil.
	Closed func()

	mu    sync.Mutex
	all   map[string]map[*counted]struct{} // by address
	count int
}

// Accept implements [net.Listener].
func (b *Bound) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // net/http tells temporary errors by their type
		}
		entered, out := b.enter(c)
		if out != nil {
			_ = out.Close() // who is at the other end learns it
			if b.Closed != nil {
				b.Closed()
			}
		}
		if entered != nil {
			return entered, nil
		}
	}
}

// enter counts c in, unless there is no room; out is the connection that is to be closed for that.
func (b *Bound) enter(c net.Conn) (entered, out net.Conn) {
	address := addressOf(c)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[string]map[*counted]struct{}{}
	}
	own := len(b.all[address])
	if own >= b.Each {
		return nil, c
	}
	if b.count >= b.Total {
		silent := b.silent(own + 2)
		if silent == nil {
			return nil, c
		}
		b.leave(silent)
		out = silent.Conn
	}
	if b.all[address] == nil {
		b.all[address] = map[*counted]struct{}{}
	}
	n := &counted{Conn: c, of: b, address: address, heard: time.Now()}
	b.all[address][n] = struct{}{}
	b.count++
	return n, out
}

// silent returns the connection that was silent for longest of the address that has most, where these are least or more.
func (b *Bound) silent(least int) (found *counted) {
	var most map[*counted]struct{}
	for _, of := range b.all {
		if len(of) > len(most) {
			most = of
		}
	}
	if len(most) < least {
		return nil
	}
	var since time.Time
	for c := range most {
		c.mu.Lock()
		heard := c.heard
		c.mu.Unlock()
		if found == nil || heard.Before(since) {
			found, since = c, heard
		}
	}
	return found
}

// leave counts c out, once. It is called with mu held.
func (b *Bound) leave(c *counted) {
	of := b.all[c.address]
	if _, in := of[c]; !in {
		return
	}
	b.count--
	if delete(of, c); len(of) == 0 {
		delete(b.all, c.address)
	}
}

func addressOf(c net.Conn) string {
	if host, _, err := net.SplitHostPort(c.RemoteAddr().String()); err == nil {
		return host
	}
	return c.RemoteAddr().String()
}

// counted is a connection that was let in.
type counted struct {
	net.Conn
	of      *Bound
	address string

	mu    sync.Mutex
	heard time.Time // when something came last
}

// Read implements [net.Conn].
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.mu.Lock()
		c.heard = time.Now()
		c.mu.Unlock()
	}
	return n, err //nolint:wrapcheck // net/http and crypto/tls tell errors by their type
}

// Close implements [net.Conn].
func (c *counted) Close() error {
	c.of.mu.Lock()
	c.of.leave(c)
	c.of.mu.Unlock()
	return c.Conn.Close() //nolint:wrapcheck // as above
}
