package network

import (
	"errors"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
)

// maxPending bounds how many short connections wait for the next list.
const maxPending = 1024

// notices tells which sockets ended, without waiting.
type notices interface {
	Next(dst []sockdiag.Socket) ([]sockdiag.Socket, error)
	Wait() error
	Close() error
}

// hear takes the notices that are there.
func (n *namespace) hear(now time.Time) {
	for range 64 { // each of up to 1,024 notices
		if n.notices == nil {
			return
		}
		var err error
		n.heard, err = n.notices.Next(n.heard[:0])
		for i := range n.heard {
			n.notice(&n.heard[i], now)
		}
		switch {
		case errors.Is(err, sockdiag.ErrMissed):
			n.stats.Overruns++
			n.unsettled, n.over = true, true
		case err != nil:
			n.log.Warn("the kernel tells no ends of connections any more: short ones may go unseen", "error", err)
			n.stats.Refused = err.Error()
			n.deaf()
			n.unsettled = true
		case len(n.heard) == 0:
			return
		}
	}
}

// notice takes one socket that ended.
func (n *namespace) notice(d *sockdiag.Socket, now time.Time) {
	n.stats.Notices++
	if n.told.has(d.Cookie) {
		return // its end was reported when lists had it no more
	}
	sk := fromDiag(d)
	k, known := n.known[sk.cookie]
	switch {
	case known && k.listening():
		n.unsettled = true // others may listen there still: the next list shows it
	case known:
		c := n.table[k]
		c.state, c.sent, c.received = closed, d.BytesSent, d.BytesReceived
		c.reset = sk.listening() // it forgot its peer, and the bytes
		n.ended(k, c, now)
		n.forget(k, c)
	case !sk.listening() && n.unclear(sk.key) && len(n.pending) < maxPending:
		n.pending = append(n.pending, *d)
		n.unsettled = true
	case !sk.listening():
		n.short(sk, d, now)
	case sk.protocol == tcp:
		n.stats.Nameless++
	}
}

// short makes both events of a connection that was in no list.
func (n *namespace) short(sk socket, d *sockdiag.Socket, now time.Time) {
	c := &conn{cookie: sk.cookie, direction: n.direction(sk.key), state: established}
	if sk.protocol == tcp && !d.Answered && c.direction == outbound {
		c.state = synSent
	}
	c.silent = n.ours(sk.key, c) || n.config.ignored(sk.key)
	n.infer(sk.key, c, 0)
	n.opened(fresh{sk.key, sk.uid, c}, now)
	c.state, c.sent, c.received = closed, d.BytesSent, d.BytesReceived
	if !c.silent {
		n.stats.ShortLived++
	}
	n.ended(sk.key, c, now)
}

// unclear reports whether a connection may have come in to a service that is newer than the last list, which tells its
// direction and its process.
func (n *namespace) unclear(k key) bool {
	in := n.direction(k) == inbound
	return (in || n.ephemeral.contain(k.local.Port()) && n.ephemeral.contain(k.remote.Port())) && n.listenerOf(k) == nil
}

// settle tells of the connections that waited for a list.
func (n *namespace) settle(now time.Time) {
	for i := range n.pending {
		n.short(fromDiag(&n.pending[i]), &n.pending[i], now)
	}
	n.pending = n.pending[:0]
}
