package network

import (
	"errors"
	"net/netip"
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

// namespace is a network namespace that is watched, with what is known of its sockets.
type namespace struct {
	*Sensor
	// id is the inode of its /proc/PID/net/tcp: the same for all processes that are in it, readable by everybody.
	id  uint64
	pid int32  // a process that is in it; 0 for our own
	dir string // where its /proc/net is

	lister  lister
	notices notices // nil when the kernel tells no ends

	sockets   []socket // of the last list
	table     map[key]*conn
	known     map[uint64]key        // by cookie
	told      cookies               // of what has ended, and of its TIME_WAIT
	listening map[service]time.Time // when each was listening last
	ephemeral ports
	pulse     pulse
	lists     uint64
	listed    time.Time         // when the sockets were listed last
	pending   []sockdiag.Socket // short connections that the next list may explain
	unsettled bool              // the next look must list
	over      bool              // the next list must have what is over
	gone      bool              // nothing is in it any more
}

func (s *Sensor) newNamespace(id uint64, pid int32, dir string) *namespace {
	return &namespace{
		Sensor: s, id: id, pid: pid, dir: dir,
		table: make(map[key]*conn), known: make(map[uint64]key), listening: make(map[service]time.Time),
	}
}

// service is where a process listens.
type service struct {
	protocol protocol
	port     uint16
}

// home reports whether this is our own namespace.
func (n *namespace) home() bool { return n.pid == 0 }

// begin takes the baseline. The pulse is read before the list: what changes in between is seen in the next look.
func (n *namespace) begin(now time.Time, baseline bool) error {
	n.pulse, _ = n.files.pulse(n.dir)
	n.over = true
	return n.list(now, baseline)
}

// end closes what is open.
func (n *namespace) end() {
	n.gone = true
	n.lister.close()
	n.deaf()
}

// deaf gives notices up.
func (n *namespace) deaf() {
	if n.notices != nil {
		_ = n.notices.Close()
		n.notices = nil
	}
}

// look finds what is new. Notices are heard before the sockets are listed: what they tell of is in no list after.
func (n *namespace) look(now time.Time) {
	n.hear(now)
	p, ok := n.files.pulse(n.dir)
	patience := listEvery
	if !n.home() {
		patience = listOthersEvery
	}
	if ok && p == n.pulse && !n.unsettled && now.Sub(n.listed) < patience {
		return
	}
	if ok {
		n.stats.Opened += p.opened() - min(p.opened(), n.pulse.opened())
		n.pulse = p
	}
	if err := n.list(now, false); err != nil && n.home() && !n.said.unreadable {
		n.said.unreadable = true
		n.log.Error("sockets cannot be listed: connections go unseen until they can", "error", err)
	}
}

// list lists the sockets and compares them with those that are known.
func (n *namespace) list(now time.Time, baseline bool) error {
	var err error
	n.sockets, err = n.lister.list(n.sockets[:0], n.notices == nil || n.over && n.told.whole(now))
	crowded := errors.Is(err, errCrowded)
	if err != nil && !crowded {
		return err
	}
	n.lists++
	n.stats.Lists++
	n.listed = now
	n.over = false
	if crowded {
		n.stats.Crowded++
		if !n.said.crowded {
			n.said.crowded = true
			n.log.Warn("there are more sockets than are tracked: connections go unseen", "limit", maxSockets)
		}
	}
	n.compare(now, baseline, crowded)
	n.settle(now)
	return nil
}

// settle tells of the connections that waited for a list.
func (n *namespace) settle(now time.Time) {
	for i := range n.pending {
		n.short(fromDiag(&n.pending[i]), &n.pending[i], now)
	}
	n.pending = n.pending[:0]
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

// direction is who opened a connection: inbound when this end is a service's port or was lately; or, when no service is
// known, when this port is not one that the kernel gives to clients and the other is.
func (n *namespace) direction(k key) string {
	if k.listening() {
		return listening
	}
	if _, found := n.listening[service{k.protocol, k.local.Port()}]; found {
		return inbound
	}
	if _, found := n.listening[service{k.protocol, k.remote.Port()}]; found && sameHost(k) {
		return outbound
	}
	if !n.ephemeral.contain(k.local.Port()) && n.ephemeral.contain(k.remote.Port()) {
		return inbound
	}
	return outbound
}

// sameHost reports whether both ends are on this machine for certain.
func sameHost(k key) bool {
	return k.remote.Addr().IsLoopback() || k.remote.Addr() == k.local.Addr()
}

// listenerOf returns the listening socket that took the connection k, nil when it is not known.
func (n *namespace) listenerOf(k key) *conn {
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	for _, at := range [...]netip.Addr{k.local.Addr(), v4, v6} {
		none := v6
		if at.Is4() {
			none = v4
		}
		l := n.table[key{k.protocol, netip.AddrPortFrom(at, k.local.Port()), netip.AddrPortFrom(none, 0)}]
		if l != nil {
			return l
		}
	}
	return nil
}

// ours reports whether a connection is the agent's, at this end or, on this machine, at the other.
func (n *namespace) ours(k key, c *conn) bool {
	if c.own || n.home() && n.mine.has(c.cookie) {
		return true
	}
	if c.direction == listening {
		return false
	}
	if l := n.listenerOf(k); l != nil && l.own {
		return true
	}
	if other := n.table[k.mirror()]; other != nil && other.own {
		return true
	}
	l := n.listenerOf(k.mirror())
	return l != nil && l.own && sameHost(k)
}

// infer gives a connection without a process the one that listens where it came in, or one that tells at least whose
// namespace it is in.
func (n *namespace) infer(k key, c *conn, uid uint32) {
	if c.silent || c.process != nil {
		return
	}
	if c.direction == inbound {
		if l := n.listenerOf(k); l != nil && l.process != nil { // not accepted yet, or over
			c.process, c.inferred = n.describe(l.process.PID, l.process.UID), true
			return
		}
	}
	if !n.home() {
		c.process, c.inferred = n.describe(n.pid, uid), true
	}
}
