package sockdiag

import (
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrMissed tells that the kernel dropped notices because they were not read fast enough. The next call of Next goes on.
var ErrMissed = errors.New("the kernel dropped notices of closed sockets")

// receiveBuffer holds about 10,000 notices of some 400 bytes, as the kernel accounts them. It is what a process without
// CAP_NET_ADMIN may ask for at the most where net.core.rmem_max is larger.
const receiveBuffer = 4 << 20

// Closes receives notices of sockets that ended. Not safe for concurrent use, but for Close.
type Closes struct {
	nl       *netlink.Conn
	protocol uint8
}

// Listen subscribes to the ends of all TCP connections (protocol unix.IPPROTO_TCP) or of UDP sockets
// (unix.IPPROTO_UDP), over IPv4 and IPv6, in the calling thread's network namespace. A notice does not say its
// protocol, hence one subscription for each.
func Listen(protocol uint8) (*Closes, error) {
	groups := []uint32{unix.SKNLGRP_INET_TCP_DESTROY, unix.SKNLGRP_INET6_TCP_DESTROY}
	if protocol == unix.IPPROTO_UDP {
		groups = []uint32{unix.SKNLGRP_INET_UDP_DESTROY, unix.SKNLGRP_INET6_UDP_DESTROY}
	}
	nl, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("opening sock_diag: %w", err)
	}
	for _, g := range groups {
		if err := nl.JoinGroup(g); err != nil {
			_ = nl.Close()
			return nil, fmt.Errorf("joining the group of closed sockets: %w", err)
		}
	}
	_ = nl.SetReadBuffer(receiveBuffer) // the kernel gives what it allows
	return &Closes{nl: nl, protocol: protocol}, nil
}

// SetReadDeadline ends a Next that waits at t, with an error that is os.ErrDeadlineExceeded.
func (c *Closes) SetReadDeadline(t time.Time) error { return c.nl.SetReadDeadline(t) }

// Next waits for notices and appends the sockets to dst. After Close it returns an error; [ErrMissed] is none to stop
// for.
func (c *Closes) Next(dst []Socket) ([]Socket, error) {
	messages, err := c.nl.Receive()
	if errors.Is(err, unix.ENOBUFS) {
		return dst, ErrMissed
	}
	if err != nil {
		return dst, fmt.Errorf("receiving notices of closed sockets: %w", err)
	}
	for _, m := range messages {
		if s, ok := parse(m.Data, c.protocol); ok {
			dst = append(dst, s)
		}
	}
	return dst, nil
}

// Close ends a waiting Next.
func (c *Closes) Close() error { return c.nl.Close() }
