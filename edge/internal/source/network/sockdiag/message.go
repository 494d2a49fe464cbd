package sockdiag

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

const (
	messageSize  = 72 // struct inet_diag_msg (include/uapi/linux/inet_diag.h)
	inetDiagInfo = 2  // its attribute INET_DIAG_INFO: struct tcp_info
	// timeWaitTimer is idiag_timer of a connection's rest (net/ipv4/inet_diag.c, inet_twsk_diag_fill), whose idiag_state
	// is what it was when its socket went.
	timeWaitTimer = 3
)

// parse reads a struct inet_diag_msg and its attributes into s. It accepts what is longer than it knows and no less.
// A message does not say its protocol: only one of TCP has the attribute INET_DIAG_INFO, and only in notices is that
// there unasked (net/ipv4/udp_diag.c, idiag_info_size).
func parse(s *Socket, b []byte) bool {
	if len(b) < messageSize {
		return false
	}
	*s = Socket{
		Protocol: unix.IPPROTO_UDP,
		State:    b[1],
		// The socket id: ports and addresses in network order, then interface and cookie in the machine's.
		Local:  endpoint(b[0], b[8:24], b[4:6]),
		Remote: endpoint(b[0], b[24:40], b[6:8]),
		Cookie: uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32,
		UID:    binary.NativeEndian.Uint32(b[64:]),
		Inode:  binary.NativeEndian.Uint32(b[68:]),
	}
	if b[2] == timeWaitTimer {
		s.State = timeWait
	}
	for rest := b[messageSize:]; len(rest) >= unix.SizeofRtAttr; {
		size, kind := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if size < unix.SizeofRtAttr || size > len(rest) {
			break
		}
		if kind == inetDiagInfo {
			s.Protocol = unix.IPPROTO_TCP
			s.traffic(rest[unix.SizeofRtAttr:size])
		}
		rest = rest[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(rest)):]
	}
	return true
}

// traffic reads the byte counts of a struct tcp_info (include/uapi/linux/tcp.h), which grows with the kernel: what an
// older one does not have is 0.
func (s *Socket) traffic(info []byte) {
	at := func(offset uintptr) uint64 {
		if uintptr(len(info)) < offset+8 {
			return 0
		}
		return binary.NativeEndian.Uint64(info[offset:])
	}
	var t unix.TCPInfo
	sent := at(unsafe.Offsetof(t.Bytes_sent))
	s.BytesSent = sent - min(sent, at(unsafe.Offsetof(t.Bytes_retrans)))
	s.BytesReceived = at(unsafe.Offsetof(t.Bytes_received))
	// The SYN that we sent counts as a byte acknowledged.
	s.Answered = s.BytesReceived != 0 || at(unsafe.Offsetof(t.Bytes_acked)) != 0
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
