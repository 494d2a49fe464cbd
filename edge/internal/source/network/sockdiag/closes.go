package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrMissed tells that the kernel dropped notices because they were not read fast enough. The next call of Next goes on.
var ErrMissed = errors.New("the kernel dropped notices of closed sockets")

const (
	// receiveBuffer holds about 2,000 notices, as the kernel accounts them. Without CAP_NET_ADMIN it is cut to
	// net.core.rmem_max (socket(7)).
	receiveBuffer = 4 << 20
	// most bounds what one call of Next returns.
	most = 1024
)

// Closes receives notices of sockets that ended. Its methods may be called concurrently, Next by one at a time.
type Closes struct {
	file   *os.File // in the runtime's poller: waiting takes no thread
	raw    syscall.RawConn
	buffer []byte // for one notice, of some 400 bytes
}

// Listen subscribes to the ends of all TCP and UDP sockets, over IPv4 and IPv6, in the calling thread's network
// namespace.
func Listen() (*Closes, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening sock_diag: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range [...]int{
		unix.SKNLGRP_INET_TCP_DESTROY, unix.SKNLGRP_INET6_TCP_DESTROY,
		unix.SKNLGRP_INET_UDP_DESTROY, unix.SKNLGRP_INET6_UDP_DESTROY,
	} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("subscribing to closed sockets: %w", err)
	}
	file := os.NewFile(uintptr(fd), "sock_diag")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("subscribing to closed sockets: %w", err)
	}
	return &Closes{file: file, raw: raw, buffer: make([]byte, 2<<10)}, nil
}

// Wait returns when there is something for Next, and with an error after Close.
func (c *Closes) Wait() error {
	return c.raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) // it leaves a loss to Next
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// Next appends the sockets that ended to dst. It does not wait: when nothing more is there it appends nothing. After
// Close it returns an error; [ErrMissed] is none to stop for.
func (c *Closes) Next(dst []Socket) ([]Socket, error) {
	var failed error
	err := c.raw.Control(func(fd uintptr) { // Read would wait for Wait
		dst, failed = c.read(int(fd), dst)
	})
	if err = errors.Join(err, failed); err != nil {
		return dst, fmt.Errorf("receiving notices of closed sockets: %w", err)
	}
	return dst, nil
}

func (c *Closes) read(fd int, dst []Socket) ([]Socket, error) {
	for range most {
		n, err := unix.Read(fd, c.buffer)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return dst, nil
		case errors.Is(err, unix.ENOBUFS):
			return dst, ErrMissed
		default:
			return dst, err
		}
		for _, body := range messages(c.buffer[:n]) {
			var s Socket
			if parse(&s, body) {
				dst = append(dst, s)
			}
		}
	}
	return dst, nil
}

// Close ends a waiting Wait.
func (c *Closes) Close() error { return c.file.Close() }
