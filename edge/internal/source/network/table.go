package network

import (
	"hash/maphash"
	"runtime"
	"slices"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// serviceMemory is how long a port counts as listening after it was last: longer than TIME_WAIT, which is 60 s
// (TCP_TIMEWAIT_LEN, include/net/tcp.h), so that a connection to a service that is gone is inbound still.
const serviceMemory = 2 * time.Minute

// noticePatience is how long the end of a connection may be overdue before the notice of it counts as lost. The kernel
// sends notices from a work queue (net/core/sock_diag.c).
const noticePatience = time.Second

// conn is a socket that is known.
type conn struct {
	inode     uint64
	direction string
	state     state
	process   *event.Process
	stdio     bool
	inferred  bool
	// candidates may have had it: of an outbound one that nobody was seen to hold.
	candidates []event.Writer
	missing    time.Time // since when it was in no list; zero when it is in the last
	closed     bool      // its end was reported; its TIME_WAIT is still there
	own        bool      // the agent's, or the other end of such a one
	silent     bool      // makes no events
	list       uint64
	cookie     uint64
	// What a notice told: bytes, and that its own side reset it, which hides them.
	sent, received uint64
	reset          bool
}

// fresh is a socket that was not known before this list.
type fresh struct {
	key
	uid uint32
	*conn
}

// compare brings the table up to date with the list and makes the events.
func (n *namespace) compare(now time.Time, baseline, crowded bool) {
	for _, sk := range n.sockets {
		if sk.state == listen || sk.protocol == udp && sk.listening() {
			n.listening[service{sk.protocol, sk.local.Port()}] = now
		}
	}
	var news []fresh
	for _, sk := range n.sockets {
		if f, isNew := n.update(sk, now); isNew {
			news = append(news, f)
		}
	}
	n.join(news)
	for _, f := range news {
		if baseline {
			f.silent = true
		} else {
			n.opened(f, now)
		}
		if f.over() {
			n.ended(f.key, f.conn, now)
		}
	}
	if !crowded {
		n.sweep(now)
	}
	for port, seen := range n.listening {
		if now.Sub(seen) > serviceMemory {
			delete(n.listening, port)
		}
	}
}

// update takes one socket into the table. It returns what is new.
func (n *namespace) update(sk socket, now time.Time) (fresh, bool) {
	c := n.table[sk.key]
	if c != nil && c.list == n.lists {
		return fresh{}, false // several sockets listen here (SO_REUSEPORT)
	}
	if c == nil {
		if n.isNothing(sk) || n.tracked >= maxSockets || sk.state == timeWait && n.told.has(n.rest(sk.key)) {
			return fresh{}, false
		}
		return n.add(sk), true
	}
	if c.replacedBy(sk) {
		n.ended(sk.key, c, now)
		n.forget(sk.key, c)
		return n.add(sk), true
	}
	c.list, c.missing, c.state = n.lists, time.Time{}, sk.state
	if c.inode == 0 {
		c.inode = sk.inode
	}
	if sk.protocol == tcp && sk.state == timeWait {
		n.ended(sk.key, c, now)
	}
	return fresh{}, false
}

// rest stands for the TIME_WAIT of a connection among the cookies. That has the cookie of its socket only if somebody had
// asked for it in time (net/ipv4/inet_timewait_sock.c, inet_twsk_alloc).
func (n *namespace) rest(k key) uint64 { return maphash.Comparable(n.seed, k) }

// replacedBy reports whether sk is another socket than c with the same addresses. Several may listen on one.
func (c *conn) replacedBy(sk socket) bool {
	switch {
	case sk.listening():
		return false
	case c.cookie != 0 && sk.cookie != 0:
		return c.cookie != sk.cookie
	default:
		return c.closed && sk.state != timeWait || c.inode != 0 && sk.inode != 0 && c.inode != sk.inode
	}
}

// isNothing reports whether a socket is no connection and no service: half open, as in a flood of SYNs; bound only; or
// a UDP socket without a peer on a port that nobody asked for, as those of name lookups.
func (n *namespace) isNothing(sk socket) bool {
	switch {
	case sk.protocol == udp:
		return sk.listening() && (sk.local.Port() == 0 || n.ephemeral.contain(sk.local.Port()))
	case sk.state == listen:
		return false
	default:
		return sk.state == synRecv || sk.state == closed || sk.listening()
	}
}

func (n *namespace) add(sk socket) fresh {
	c := &conn{
		inode: sk.inode, direction: n.direction(sk.key), state: sk.state, list: n.lists, cookie: sk.cookie,
	}
	n.table[sk.key] = c
	n.tracked++
	if c.cookie != 0 {
		n.known[c.cookie] = sk.key
	}
	return fresh{sk.key, sk.uid, c}
}

// forget takes a socket off the table.
func (n *namespace) forget(k key, c *conn) {
	delete(n.table, k)
	delete(n.known, c.cookie)
	n.tracked--
}

// over reports whether the connection had ended before it was seen.
func (f fresh) over() bool { return f.protocol == tcp && f.state == timeWait }

// join finds the processes of new sockets. The agent is looked at first, so that what is its own is known to be.
func (n *namespace) join(news []fresh) {
	want := make(map[uint64]owner)
	for _, f := range news {
		if f.inode != 0 {
			want[f.inode] = owner{}
		}
	}
	if len(want) > 0 {
		runtime.LockOSThread() // the budget is its time: a busy machine must not hide processes
		start, left := threadTime(), ownerBudget-n.searched
		n.owners.find(want, n.likely(news), func() bool { return threadTime()-start > left })
		n.searched += threadTime() - start
		runtime.UnlockOSThread()
	}
	for _, f := range news {
		o := want[f.inode]
		f.own = o.pid != 0 && o.pid == n.config.Self
		if o.pid != 0 && !f.own {
			f.process, f.stdio = n.describe(o.pid, f.uid), o.stdio
		}
	}
	for _, f := range news {
		f.own = n.ours(f.key, f.conn)
		f.silent = f.own || n.config.ignored(f.key)
		n.infer(f.key, f.conn, f.uid)
	}
}

// likely are the pids to look at first: the agent's, those that listen where something came in, and in another
// namespace those that are in it.
func (n *namespace) likely(news []fresh) []int32 {
	pids := []int32{n.config.Self}
	for _, f := range news {
		if f.direction != inbound {
			continue
		}
		if l := n.listenerOf(f.key); l != nil && l.process != nil && !slices.Contains(pids, l.process.PID) {
			pids = append(pids, l.process.PID)
		}
	}
	if n.prey > 0 { // before it is over
		for _, c := range n.table {
			if len(pids) < huntFirst && c.process != nil && !slices.Contains(pids, c.process.PID) {
				pids = append(pids, c.process.PID)
			}
		}
	}
	if !n.home() {
		for pid, id := range n.members {
			if id == n.id {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// opened makes the event of a new socket.
func (n *namespace) opened(f fresh, now time.Time) {
	if f.protocol == tcp && f.direction != listening {
		n.accounted++
	}
	if f.silent {
		n.stats.Excluded++
		return
	}
	n.attribute(f, now)
	if f.direction == listening {
		n.stats.Listens++
		n.emit(event.NetworkListen, f.key, f.conn, now)
		return
	}
	n.stats.Connects++
	if f.over() {
		n.stats.ShortLived++
	}
	n.emit(event.NetworkConnect, f.key, f.conn, now)
}

// attribute counts how well the process of a new socket is known, and looks for candidates where it is not.
func (n *namespace) attribute(f fresh, now time.Time) {
	if f.direction == outbound {
		if f.process != nil && !f.inferred {
			n.clients.add(peer{f.protocol, f.remote}, f.process)
		} else {
			f.candidates = n.candidates(f.key, now)
			if len(f.candidates) == 0 && n.notices != nil {
				n.wound(now)
			}
		}
	}
	switch {
	case f.process == nil && len(f.candidates) > 0:
		n.stats.Unjoined++
		n.stats.Guessed++
	case f.process == nil:
		n.stats.Unjoined++
	case f.inferred:
		n.stats.Inferred++
	default:
		n.stats.Joined++
	}
}

// ended makes the event of a socket's end, once.
func (n *namespace) ended(k key, c *conn, now time.Time) {
	if c.closed {
		return
	}
	c.closed = true
	n.told.add(c.cookie, now)
	n.told.add(n.rest(k), now)
	if !c.silent {
		n.stats.Closes++
		n.emit(event.NetworkClose, k, c, now)
	}
}

// sweep ends what was in neither of two lists in a row; where the kernel tells ends, only when it has had time to.
func (n *namespace) sweep(now time.Time) {
	n.unsettled = false
	patience := time.Duration(0)
	if n.notices != nil {
		patience = noticePatience
	}
	for k, c := range n.table {
		switch {
		case c.list == n.lists:
		case c.closed:
			n.forget(k, c)
		case c.missing.IsZero():
			c.missing, n.unsettled = now, true
		case now.Sub(c.missing) < patience && !k.listening():
			n.unsettled = true
		default:
			n.ended(k, c, now)
			n.forget(k, c)
		}
	}
}

func (s *Sensor) emit(t event.Type, k key, c *conn, now time.Time) {
	n := s.config.describe(k, c.direction, c.state)
	if k.protocol == udp && c.direction == listening {
		n.State = "UNCONN" // ss(8); "CLOSE" would be the kernel's word for a UDP socket that is open
	}
	n.BytesSent, n.BytesReceived = c.sent, c.received
	e := &event.Event{Type: t, Timestamp: now, Network: &n, Process: c.process.Clone()}
	if c.process != nil && s.config.Container != nil {
		e.Container = s.config.Container(c.process.PID)
	}
	mark := func(name string, set bool) {
		if set && e.Metadata == nil {
			e.Metadata = make(map[string]any)
		}
		if set {
			e.Metadata[name] = true
		}
	}
	mark("stdio_socket", c.stdio)
	mark("process_inferred", c.inferred)
	mark("reset", c.reset)
	if len(c.candidates) > 0 {
		if e.Metadata == nil {
			e.Metadata = make(map[string]any)
		}
		e.Metadata["process_candidates"] = c.candidates
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
