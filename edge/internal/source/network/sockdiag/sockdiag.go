// Package sockdiag asks the kernel for sockets over netlink (sock_diag(7)) and hears of those that end.
//
// A dump costs a tenth of reading /proc/net/tcp. The kernel's destroy notices bring every TCP connection that ends, with
// its byte counts, and every UDP socket, also those that lived shorter than any poll. Neither needs a capability; both
// are about the network namespace of the thread that opened them. Where netlink is refused (gVisor, strict seccomp
// profiles), [Open], the first [Conn.Dump] or [Listen] say so and the caller reads /proc/net instead.
//
// Both read their sockets themselves: mdlayher/netlink makes an allocation and two system calls a message, and a dump of
// 6,000 sockets through it took four times as long.
//
// Limits: the kernel drops notices when the receive buffer is full; [Closes.Next] reports that with [ErrMissed] and goes
// on. A notice carries neither inode nor uid: the socket has left its process.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Socket is one TCP or UDP socket.
type Socket struct {
	Protocol uint8 // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	// State is one of the kernel's include/net/tcp_states.h: 1 is ESTABLISHED, 10 LISTEN. It is 6, TIME_WAIT, for all
	// that is left of a connection whose socket is gone, though the kernel may call that FIN_WAIT2.
	State uint8
	// Local and Remote are IPv4 for an IPv4-mapped IPv6 address. Remote is unspecified, port 0, when there is no peer.
	Local, Remote netip.AddrPort
	Inode         uint32 // 0 when no process holds it
	UID           uint32
	// Cookie is the kernel's id of the socket, never reused while the machine runs; equal in dumps and notices.
	Cookie uint64
	// BytesSent (without retransmissions) and BytesReceived are told by [Closes] of TCP connections that did not end by
	// a reset of our own side, which clears them and Remote. The peer's FIN may count as a byte received.
	BytesSent, BytesReceived uint64
	// Answered is told by [Closes]: the peer acknowledged or sent something, so this was more than an attempt.
	Answered bool
}

// timeWait is the state of what is left of a connection.
const timeWait = 6

// States is a set of TCP states: bit 1<<n for the state n.
type States uint32

const (
	// All sockets but those that are bound and no more: for these the kernel walks a table of its own
	// (TCPF_BOUND_INACTIVE, net/ipv4/inet_diag.c), with every connection in it.
	All States = 1<<13 - 1
	// Live leaves out what a process neither holds nor held: TIME_WAIT (6), SYN_RECV (3, 12).
	Live = All &^ (1<<timeWait | 1<<3 | 1<<12)
)

// Conn asks for dumps. Not safe for concurrent use.
type Conn struct{ fd int }

// BufferSize is the least for the buffer of a dump: the kernel's datagrams are at most 32 KiB (net/netlink/af_netlink.c,
// netlink_dump).
const BufferSize = 32 << 10

// Open returns a connection to the socket diagnosis of the calling thread's network namespace.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening sock_diag: %w", err)
	}
	// A dump answers at once.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	return &Conn{fd}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Dump calls each with all UDP sockets and the TCP sockets in these states, over IPv4 and IPv6, without byte counts. The
// socket is valid during the call. buffer is for what is read, of [BufferSize]; connections may share it. After an error the connection is to be closed.
//
// For TCP it makes the request of 2002, TCPDIAG_GETSOCK, because its answer holds both families: the kernel walks its
// table of connections, which is long however few there are, once instead of twice (net/ipv4/inet_diag.c,
// inet_diag_dump_compat). No extension is asked for: byte counts take a lock on each socket. Filters in byte code are
// left alone: what they could leave out beyond the states is little.
func (c *Conn) Dump(states States, buffer []byte, each func(*Socket)) error {
	var wanted [4]byte
	binary.NativeEndian.PutUint32(wanted[:], uint32(states))
	err := c.dump(unix.IPPROTO_TCP, tcpdiagGetsock, inetDiagReq(wanted), buffer, func(s *Socket) {
		if states&(1<<s.State) != 0 { // the kernel takes a TIME_WAIT for what it was
			each(s)
		}
	})
	for _, family := range [...]uint8{unix.AF_INET, unix.AF_INET6} {
		if err == nil {
			err = c.dump(unix.IPPROTO_UDP, unix.SOCK_DIAG_BY_FAMILY, inetDiagReqV2(family), buffer, each)
		}
	}
	if err != nil {
		return fmt.Errorf("dumping sockets: %w", err)
	}
	return nil
}

// Parts of the requests (include/uapi/linux/inet_diag.h).
const (
	tcpdiagGetsock = 18 // TCPDIAG_GETSOCK
	sockidSize     = 48 // struct inet_diag_sockid; all zero matches every socket
)

// inetDiagReq makes a struct inet_diag_req: family, lengths, extensions, id, states, dbs.
func inetDiagReq(states [4]byte) []byte {
	b := append([]byte{unix.AF_INET, 0, 0, 0}, make([]byte, sockidSize)...)
	return append(append(b, states[:]...), 0, 0, 0, 0)
}

// inetDiagReqV2 makes a struct inet_diag_req_v2 for UDP: family, protocol, extensions, padding, states, id.
func inetDiagReqV2(family uint8) []byte {
	return append([]byte{family, unix.IPPROTO_UDP, 0, 0, 0xff, 0xff, 0xff, 0xff}, make([]byte, sockidSize)...)
}

func (c *Conn) dump(protocol uint8, kind uint16, body, buffer []byte, each func(*Socket)) error {
	request := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(request, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(request[4:], kind)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(c.fd, append(request, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var s Socket
	for {
		n, err := unix.Read(c.fd, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for kind, body := range messages(buffer[:n]) {
			switch kind {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR: // both begin with an int: 0, or the negative error
				if len(body) < 4 {
					return unix.EBADMSG
				}
				if failed := int32(binary.NativeEndian.Uint32(body)); failed < 0 {
					return unix.Errno(-failed)
				}
				return nil
			default:
				if parse(&s, body) {
					s.Protocol = protocol
					each(&s)
				}
			}
		}
	}
}
