// Package sockdiag asks the kernel for sockets over netlink (sock_diag(7)) and listens for TCP and UDP sockets that are
// closed.
//
// A dump costs a tenth of reading /proc/net/tcp. The kernel's destroy notices bring every connection that ends, with its
// byte counts, also one that lived shorter than any poll. Neither needs a capability; both are about the
// network namespace of the thread that opened them. Where netlink is refused (gVisor, strict seccomp profiles), [Open]
// and [Listen] say so and the caller reads /proc/net instead.
//
// Limits: notices are dropped by the kernel when the receive buffer is full; [Closes.Next] reports that with
// [ErrMissed] and goes on. A notice carries no inode: the socket has left its process.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is one TCP or UDP socket.
type Socket struct {
	Protocol uint8 // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	State    uint8 // as in the kernel's include/net/tcp_states.h: 1 is ESTABLISHED, 10 LISTEN
	// Local and Remote are IPv4 for an IPv4-mapped IPv6 address. Remote is the zero address when there is no peer.
	Local, Remote netip.AddrPort
	Inode         uint32 // 0 when no process holds it
	UID           uint32
	// Cookie is the kernel's id of the socket, never reused while the machine runs; equal in dumps and notices.
	Cookie uint64
	// BytesSent (without retransmissions) and BytesReceived are told by [Closes] of TCP connections that did not end by
	// a reset of our own side, which clears them and Remote. The peer's FIN may count as a byte received.
	BytesSent, BytesReceived uint64
}

// Conn asks for dumps. Not safe for concurrent use.
type Conn struct {
	fd     int
	buffer []byte
}

// Open returns a connection to the socket diagnosis of the calling thread's network namespace.
//
// Dumps read the socket themselves instead of through mdlayher/netlink, which makes an allocation and two system calls
// a message: of 6,000 sockets a dump through it took four times as long.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening sock_diag: %w", err)
	}
	// A dump answers at once; the kernel's datagrams are at most 32 KiB (net/netlink/af_netlink.c, netlink_dump).
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	return &Conn{fd: fd, buffer: make([]byte, 64<<10)}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// dumps are the requests whose answers make up all sockets.
//
// For TCP it is the request of 2002, TCPDIAG_GETSOCK, because its answer holds both families: the kernel walks its
// table of connections, which is long however few there are, once instead of twice (net/ipv4/inet_diag.c,
// inet_diag_dump_compat). No extension is asked for: byte counts take a lock on each socket.
var dumps = [...]struct {
	protocol uint8
	request  []byte
}{
	{unix.IPPROTO_TCP, request(tcpdiagGetsock, append(append([]byte{unix.AF_INET, 0, 0, 0}, make([]byte, sockidSize)...), allStates, allStates, allStates, allStates, 0, 0, 0, 0))},
	{unix.IPPROTO_UDP, request(unix.SOCK_DIAG_BY_FAMILY, append([]byte{unix.AF_INET, unix.IPPROTO_UDP, 0, 0, allStates, allStates, allStates, allStates}, make([]byte, sockidSize)...))},
	{unix.IPPROTO_UDP, request(unix.SOCK_DIAG_BY_FAMILY, append([]byte{unix.AF_INET6, unix.IPPROTO_UDP, 0, 0, allStates, allStates, allStates, allStates}, make([]byte, sockidSize)...))},
}

// Parts of the requests (include/uapi/linux/inet_diag.h).
const (
	tcpdiagGetsock = 18   // TCPDIAG_GETSOCK
	sockidSize     = 48   // struct inet_diag_sockid; all zero matches every socket
	allStates      = 0xff // a byte of the set of states
)

// request puts a netlink header before body: a struct inet_diag_req (family, lengths, extensions, id, states, dbs) or
// inet_diag_req_v2 (family, protocol, extensions, padding, states, id).
func request(kind uint16, body []byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	return append(b, body...)
}

// Dump appends all TCP and UDP sockets over IPv4 and IPv6 to dst, without byte counts. A protocol or family that the
// kernel does not have is left out. After an error the connection is to be closed.
func (c *Conn) Dump(dst []Socket) ([]Socket, error) {
	for _, d := range dumps {
		var err error
		dst, err = c.dump(dst, d.protocol, d.request)
		if err != nil && !errors.Is(err, unix.ENOENT) { // no handler (net/core/sock_diag.c)
			return dst, fmt.Errorf("dumping sockets: %w", err)
		}
	}
	return dst, nil
}

func (c *Conn) dump(dst []Socket, protocol uint8, request []byte) ([]Socket, error) {
	if err := unix.Sendto(c.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return dst, err
	}
	for {
		n, err := unix.Read(c.fd, c.buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return dst, err
		}
		for kind, body := range messages(c.buffer[:n]) {
			switch kind {
			case unix.NLMSG_DONE:
				return dst, nil
			case unix.NLMSG_ERROR:
				if len(body) < 4 {
					return dst, unix.EBADMSG
				}
				return dst, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			default:
				if s, ok := parse(body, protocol); ok {
					dst = append(dst, s)
				}
			}
		}
	}
}

// messages yields the types and bodies of the netlink messages in b (netlink(7)). It ends at what is cut off.
func messages(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			size, kind := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
			if size < unix.SizeofNlMsghdr || size > len(b) || !yield(kind, b[unix.SizeofNlMsghdr:size]) {
				return
			}
			b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		}
	}
}

// Attributes of a struct inet_diag_msg (include/uapi/linux/inet_diag.h).
const (
	inetDiagInfo = 2 // INET_DIAG_INFO: struct tcp_info

	messageSize = 72 // struct inet_diag_msg
)

// parse reads a struct inet_diag_msg and its attributes. It accepts what is longer than it knows and no less.
func parse(b []byte, protocol uint8) (Socket, bool) {
	if len(b) < messageSize {
		return Socket{}, false
	}
	s := Socket{
		Protocol: protocol,
		State:    b[1],
		// The socket id: ports and addresses in network order, then interface and cookie in the machine's.
		Local:  endpoint(b[0], b[8:24], b[4:6]),
		Remote: endpoint(b[0], b[24:40], b[6:8]),
		Cookie: uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32,
		UID:    binary.NativeEndian.Uint32(b[64:]),
		Inode:  binary.NativeEndian.Uint32(b[68:]),
	}
	for rest := b[messageSize:]; len(rest) >= unix.SizeofRtAttr; {
		size, kind := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if size < unix.SizeofRtAttr || size > len(rest) {
			break
		}
		if kind == inetDiagInfo && protocol == unix.IPPROTO_TCP {
			s.BytesSent, s.BytesReceived = traffic(rest[unix.SizeofRtAttr:size])
		}
		rest = rest[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(rest)):]
	}
	return s, true
}

// traffic reads the byte counts of a struct tcp_info (include/uapi/linux/tcp.h), which grows with the kernel: what an
// older one does not have is 0.
func traffic(info []byte) (sent, received uint64) {
	at := func(offset uintptr) uint64 {
		if uintptr(len(info)) < offset+8 {
			return 0
		}
		return binary.NativeEndian.Uint64(info[offset:])
	}
	var t unix.TCPInfo
	sent = at(unsafe.Offsetof(t.Bytes_sent))
	return sent - min(sent, at(unsafe.Offsetof(t.Bytes_retrans))), at(unsafe.Offsetof(t.Bytes_received))
}

func endpoint(family uint8, addr, port []byte) netip.AddrPort {
	var ip netip.Addr
	if family == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(addr[:4]))
	} else {
		ip = netip.AddrFrom16([16]byte(addr)).Unmap()
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(port))
}
