package network

import (
	"net/netip"
	"slices"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// serviceMemory is how long a port counts as listening after it was last: longer than TIME_WAIT, which is 60 s
// (TCP_TIMEWAIT_LEN, include/net/tcp.h), so that a connection to a service that is gone is inbound still.
const serviceMemory = 2 * time.Minute

// conn is a socket that is known.
type conn struct {
	inode     uint64
	direction string
	state     state
	process   *event.Process
	stdio     bool
	inferred  bool
	missing   bool // was not in the last list
	closed    bool // its end was reported; its TIME_WAIT is still there
	own       bool // the agent's, or the other end of such a one
	silent    bool // makes no events
	list      uint64
}

// fresh is a socket that was not known before this list.
type fresh struct {
	key
	uid uint32
	*conn
}

// compare brings the table up to date with the list and makes the events.
func (s *Sensor) compare(now time.Time, baseline, crowded bool) {
	for _, sk := range s.sockets {
		if sk.state == listen || sk.protocol == udp && sk.listening() {
			s.listening[service{sk.protocol, sk.local.Port()}] = now
		}
	}
	var news []fresh
	for _, sk := range s.sockets {
		if n, isNew := s.update(sk, now); isNew {
			news = append(news, n)
		}
	}
	s.join(news)
	for _, n := range news {
		if baseline {
			n.silent = true
			n.closed = n.over()
			continue
		}
		s.opened(n, now)
	}
	if !crowded {
		s.sweep(now)
	}
	for port, seen := range s.listening {
		if now.Sub(seen) > serviceMemory {
			delete(s.listening, port)
		}
	}
}

// update takes one socket into the table. It returns what is new.
func (s *Sensor) update(sk socket, now time.Time) (fresh, bool) {
	c := s.table[sk.key]
	if c != nil && c.list == s.stats.Lists {
		return fresh{}, false // several sockets listen here (SO_REUSEPORT)
	}
	if c == nil {
		if s.isNothing(sk) || len(s.table) >= maxSockets {
			return fresh{}, false
		}
		return s.add(sk), true
	}
	again := c.closed && sk.state != timeWait ||
		!sk.listening() && c.inode != 0 && sk.inode != 0 && c.inode != sk.inode
	if again {
		s.ended(sk.key, c, now)
		return s.add(sk), true
	}
	c.list, c.missing, c.state = s.stats.Lists, false, sk.state
	if c.inode == 0 {
		c.inode = sk.inode
	}
	if sk.protocol == tcp && sk.state == timeWait {
		s.ended(sk.key, c, now)
	}
	return fresh{}, false
}

// isNothing reports whether a socket is no connection and no service: half open, as in a flood of SYNs; bound only; or
// a UDP socket without a peer on a port that nobody asked for, as those of name lookups.
func (s *Sensor) isNothing(sk socket) bool {
	switch {
	case sk.protocol == udp:
		return sk.listening() && (sk.local.Port() == 0 || s.ephemeral.contain(sk.local.Port()))
	case sk.state == listen:
		return false
	default:
		return sk.state == synRecv || sk.state == closed || sk.listening()
	}
}

func (s *Sensor) add(sk socket) fresh {
	c := &conn{inode: sk.inode, state: sk.state, list: s.stats.Lists, direction: outbound}
	if sk.listening() {
		c.direction = listening
	} else if _, found := s.listening[service{sk.protocol, sk.local.Port()}]; found {
		c.direction = inbound
	}
	s.table[sk.key] = c
	return fresh{sk.key, sk.uid, c}
}

// over reports whether the connection had ended before it was seen.
func (f fresh) over() bool { return f.protocol == tcp && f.state == timeWait }

// listenerOf returns the listening socket that took the connection k, nil when it is not known.
func (s *Sensor) listenerOf(k key) *conn {
	v4, v6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	for _, at := range [...]netip.Addr{k.local.Addr(), v4, v6} {
		none := v6
		if at.Is4() {
			none = v4
		}
		l := s.table[key{k.protocol, netip.AddrPortFrom(at, k.local.Port()), netip.AddrPortFrom(none, 0)}]
		if l != nil {
			return l
		}
	}
	return nil
}

// join finds the processes of new sockets. The agent is looked at first, so that what is its own is known to be.
func (s *Sensor) join(news []fresh) {
	want := make(map[uint64]owner)
	for _, n := range news {
		if n.inode != 0 {
			want[n.inode] = owner{}
		}
	}
	if len(want) > 0 {
		start := time.Now()
		s.owners.find(want, s.likely(news), func() bool { return time.Since(start) > ownerBudget })
	}
	for _, n := range news {
		o := want[n.inode]
		n.own = o.pid != 0 && o.pid == s.config.Self
		if o.pid != 0 && !n.own {
			n.process, n.stdio = s.describe(o.pid, n.uid), o.stdio
		}
	}
	for _, n := range news {
		other := s.table[n.mirror()]
		n.own = n.own || n.direction != listening && other != nil && other.own
		n.silent = n.own || s.config.ignored(n.key)
		if n.silent || n.process != nil || n.direction != inbound {
			continue
		}
		if l := s.listenerOf(n.key); l != nil && l.process != nil { // not accepted yet, or over
			n.process, n.inferred = s.describe(l.process.PID, l.process.UID), true
		}
	}
}

// likely are the pids to look at first: the agent's, and those that listen where something came in.
func (s *Sensor) likely(news []fresh) []int32 {
	pids := []int32{s.config.Self}
	for _, n := range news {
		if n.direction != inbound {
			continue
		}
		if l := s.listenerOf(n.key); l != nil && l.process != nil && !slices.Contains(pids, l.process.PID) {
			pids = append(pids, l.process.PID)
		}
	}
	return pids
}

// opened makes the event of a new socket.
func (s *Sensor) opened(n fresh, now time.Time) {
	if n.protocol == tcp && n.direction != listening {
		s.accounted++
	}
	if n.silent {
		s.stats.Excluded++
		n.closed = n.over()
		return
	}
	if n.process == nil {
		s.stats.Unjoined++
	}
	if n.direction == listening {
		s.stats.Listens++
		s.emit(event.NetworkListen, n.key, n.conn, now)
		return
	}
	s.stats.Connects++
	s.emit(event.NetworkConnect, n.key, n.conn, now)
	if n.over() {
		s.stats.ShortLived++
		s.ended(n.key, n.conn, now)
	}
}

// ended makes the event of a socket's end, once.
func (s *Sensor) ended(k key, c *conn, now time.Time) {
	if c.closed {
		return
	}
	c.closed = true
	if !c.silent {
		s.stats.Closes++
		s.emit(event.NetworkClose, k, c, now)
	}
}

// sweep ends what was in neither of two lists in a row.
func (s *Sensor) sweep(now time.Time) {
	s.unsettled = false
	for k, c := range s.table {
		switch {
		case c.list == s.stats.Lists:
		case c.closed:
			delete(s.table, k)
		case !c.missing:
			c.missing, s.unsettled = true, true
		default:
			s.ended(k, c, now)
			delete(s.table, k)
		}
	}
}

func (s *Sensor) emit(t event.Type, k key, c *conn, now time.Time) {
	n := s.config.describe(k, c.direction, c.state)
	if k.protocol == udp && c.direction == listening {
		n.State = "UNCONN" // ss(8); "CLOSE" would be the kernel's word for a UDP socket that is open
	}
	e := &event.Event{Type: t, Timestamp: now, Network: &n, Process: clone(c.process)}
	if c.stdio || c.inferred {
		e.Metadata = make(map[string]any)
	}
	if c.stdio {
		e.Metadata["stdio_socket"] = true
	}
	if c.inferred {
		e.Metadata["process_inferred"] = true
	}
	s.events = append(s.events, e)
}

// describe returns the record of a process that holds a socket of the user uid.
func (s *Sensor) describe(pid int32, uid uint32) *event.Process {
	if s.config.Process != nil {
		if p := s.config.Process(pid); p != nil {
			return p
		}
	}
	return &event.Process{
		PID: pid, UID: uid, LoginUID: event.UnknownID, SessionID: event.UnknownID, Capture: event.CapturePartial,
	}
}

func clone(p *event.Process) *event.Process {
	if p == nil {
		return nil
	}
	c := *p
	c.Args = slices.Clone(p.Args)
	c.Ancestors = slices.Clone(p.Ancestors)
	if p.Parent != nil {
		parent := *p.Parent
		c.Parent = &parent
	}
	return &c
}
