package network

import (
	"encoding/binary"
	"net/netip"
)

// protocol is the transport of a socket.
type protocol uint8

const (
	tcp protocol = iota
	udp
)

func (p protocol) String() string {
	if p == udp {
		return "udp"
	}
	return "tcp"
}

// state is a TCP state of the kernel's include/net/tcp_states.h. UDP sockets are established when they have a peer.
type state uint8

const (
	established state = 1
	synSent     state = 2
	synRecv     state = 3
	timeWait    state = 6
	closed      state = 7
	listen      state = 10
)

var stateNames = [...]string{
	"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
	"LISTEN", "CLOSING", "NEW_SYN_RECV",
}

func (s state) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return ""
}

// key identifies a connection while it lasts. IPv4-mapped addresses are IPv4.
type key struct {
	protocol      protocol
	local, remote netip.AddrPort
}

// mirror is the key of the other end, when that is on this machine.
func (k key) mirror() key { return key{k.protocol, k.remote, k.local} }

// listening reports whether the socket waits for peers.
func (k key) listening() bool { return k.remote.Port() == 0 }

// socket is one line of the kernel's tables.
type socket struct {
	key
	state state
	uid   uint32
	// inode is 0 when no process holds the socket: not accepted yet, or closed by its process.
	inode uint64
	// cookie is the kernel's id of the socket; 0 in /proc.
	cookie uint64
}

// parseLine reads a line of /proc/net/{tcp,tcp6,udp,udp6}, proc_net(5): number, local and remote address and port in
// hex, state, queues, timer, retransmits, uid, timeout, inode. The header is not such a line.
func parseLine(line []byte, p protocol) (socket, bool) {
	s := socket{key: key{protocol: p}}
	l := scanner{line, true}
	l.word() // number
	s.local = l.endpoint()
	s.remote = l.endpoint()
	s.state = state(l.hex(2))
	for range 3 {
		l.word() // queues, timer, retransmits
	}
	s.uid = uint32(l.decimal(1<<32 - 1))
	l.word() // timeout
	s.inode = l.decimal(1<<64 - 1)
	return s, l.ok
}

// scanner takes words off a line.
type scanner struct {
	rest []byte
	ok   bool
}

func (l *scanner) word() []byte {
	b := l.rest
	i := 0
	for i < len(b) && b[i] == ' ' {
		i++
	}
	from := i
	for i < len(b) && b[i] != ' ' && b[i] != '\n' {
		i++
	}
	l.rest = b[i:]
	l.ok = l.ok && i > from
	return b[from:i]
}

// endpoint reads an address as words of 32 bits in the machine's order, and a port.
func (l *scanner) endpoint() netip.AddrPort {
	w := l.word()
	const v4, v6 = 8, 32
	var digits int
	switch {
	case len(w) == v4+5 && w[v4] == ':':
		digits = v4
	case len(w) == v6+5 && w[v6] == ':':
		digits = v6
	default:
		l.ok = false
		return netip.AddrPort{}
	}
	port := uint16(l.digits(w[digits+1:]))
	if digits == v4 {
		var a [4]byte
		binary.NativeEndian.PutUint32(a[:], l.digits(w[:v4]))
		return netip.AddrPortFrom(netip.AddrFrom4(a), port)
	}
	var a [16]byte
	for i := range 4 {
		binary.NativeEndian.PutUint32(a[4*i:], l.digits(w[8*i:8*i+8]))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), port)
}

// hex reads a word of n hex digits.
func (l *scanner) hex(n int) uint32 {
	w := l.word()
	l.ok = l.ok && len(w) == n
	return l.digits(w)
}

// digits converts up to 8 hex digits.
func (l *scanner) digits(w []byte) uint32 {
	var n uint32
	for _, c := range w {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			l.ok = false
			return 0
		}
		n = n<<4 | uint32(c)
	}
	return n
}

func (l *scanner) decimal(limit uint64) uint64 {
	var n uint64
	for _, c := range l.word() {
		d := uint64(c - '0')
		if d > 9 || n > (limit-d)/10 {
			l.ok = false
			return 0
		}
		n = n*10 + d
	}
	return n
}
