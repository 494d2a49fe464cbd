package network

import (
	"errors"
	"net/netip"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
)

// namespace is a network namespace that is watched, with what is known of its sockets.
type namespace struct {
	*Sensor
	// id is the inode of its /proc/PID/net/tcp: the same for all processes that are in it, readable by everybody.
	id  uint64
	pid int32  // a process that is in it; 0 for our own
	dir string // where its /proc/net is

	lister  lister
	notices notices // nil when the kernel tells no ends

	table     map[key]*conn
	known     map[uint64]key        // by cookie
	told      cookies               // of what has ended, and of its TIME_WAIT
	listening map[service]time.Time // when each was listening last
	clients   clients
	prey      int // lists that the hunt has left
	hunted    time.Time
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
	if !ok && !n.home() {
		n.settled = false // the process through which it is seen may be gone: a survey finds another
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
