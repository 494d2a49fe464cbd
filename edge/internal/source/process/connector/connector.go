// Package connector listens to the kernel's process connector, which announces every fork, exec and exit of the machine
// over netlink (Documentation/driver-api/connector.rst, drivers/connector/cn_proc.c of Linux).
//
// Promises: what the kernel announced and did not arrive is counted exactly, from the sequence number that each message
// carries for its CPU. Nothing that arrives makes the parser fail: what is no event is skipped.
//
// Limits: it answers only in the initial network, pid and user namespaces, and before Linux 6.6 only to CAP_NET_ADMIN.
// Pids are those of the initial pid namespace. An announcement says that something happened, not what: the program of
// an exec is to be read from procfs while it lasts.
package connector

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/connector.h and cn_proc.h.
const (
	procIndex, procValue = 1, 1 // CN_IDX_PROC, CN_VAL_PROC
	listen, ignore       = 1, 2 // PROC_CN_MCAST_LISTEN, PROC_CN_MCAST_IGNORE
	unknown              = 0    // no operation
)

const (
	// receiveBuffer holds some 20,000 announcements: the kernel accounts about 768 bytes for each of 76.
	receiveBuffer = 16 << 20
	// patience is how long the answer to a subscription may take.
	patience = 200 * time.Millisecond
	// longest is how long a Receive waits at most, should a Wake be lost. To be woken for nothing costs a tenth of a
	// millisecond.
	longest = 2 * time.Second
)

var errSilent = errors.New("the kernel does not answer: this is not the initial pid and user namespace")

// Conn is a subscription. One goroutine may receive.
type Conn struct {
	fd   int
	buf  []byte
	from unix.RawSockaddrNetlink // who sent what is in buf
	next map[uint32]uint32       // the sequence number that follows, by CPU
	// numbered says that answers take sequence numbers too: the kernel then sends them as it sends announcements
	// (send_msg of cn_proc.c), over the number that the question had.
	numbered bool
	base     time.Time
	mono     int64 // CLOCK_MONOTONIC at base
}

// Dial subscribes. It returns an error where the kernel refuses.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("opening the process connector: %w", err)
	}
	c := &Conn{fd: fd, buf: make([]byte, 4096), next: make(map[uint32]uint32)}
	if err := c.subscribe(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("subscribing to the process connector: %w", err)
	}
	return c, nil
}

func (c *Conn) subscribe() error {
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return err
	}
	c.base, c.mono = time.Now(), mono.Nano()
	// FORCE passes net.core.rmem_max and needs CAP_NET_ADMIN, socket(7).
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as far as it goes
	}
	if err := c.waitAtMost(patience); err != nil {
		return err
	}
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: procIndex}); err != nil {
		return err
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never returns an error
	nonce := binary.NativeEndian.Uint32(random[:])
	if err := c.send(listen, nonce); err != nil {
		return err
	}
	// Announcements and answers to others come too when other programs listen.
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		n, err := c.recv()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return errSilent
		case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR):
			return err
		}
		if m, ok := parse(c.buf[:n]); ok && m.what == answer && m.ack == nonce+1 { // cn_proc_ack
			if m.code != 0 {
				return unix.Errno(m.code)
			}
			c.numbered = m.seq != nonce
			return c.waitAtMost(longest)
		}
	}
	return errSilent
}

func (c *Conn) waitAtMost(d time.Duration) error {
	wait := unix.NsecToTimeval(d.Nanoseconds())
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
}

// send sends one operation: struct nlmsghdr, struct cn_msg and an enum proc_cn_mcast_op.
func (c *Conn) send(op, nonce uint32) error {
	b := make([]byte, messageAt+4)
	order := binary.NativeEndian
	order.PutUint32(b, uint32(len(b)))
	order.PutUint16(b[4:], unix.NLMSG_DONE)
	order.PutUint32(b[12:], uint32(os.Getpid()))
	order.PutUint32(b[16:], procIndex)
	order.PutUint32(b[20:], procValue)
	order.PutUint32(b[24:], nonce)
	order.PutUint32(b[28:], nonce)
	order.PutUint16(b[32:], 4)
	order.PutUint32(b[messageAt:], op)
	return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// recv receives one datagram of the kernel's; it returns 0 for one of anybody else's. What is there is taken without a
// word to the runtime's scheduler, which makes a call that may wait twice as dear.
func (c *Conn) recv() (int, error) {
	size := uint32(unix.SizeofSockaddrNetlink)
	n, _, failed := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&c.buf[0])), uintptr(len(c.buf)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&c.from)), uintptr(unsafe.Pointer(&size)))
	if failed == unix.EAGAIN {
		n, _, failed = unix.Syscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&c.buf[0])), uintptr(len(c.buf)),
			0, uintptr(unsafe.Pointer(&c.from)), uintptr(unsafe.Pointer(&size)))
	}
	if failed != 0 {
		return 0, failed
	}
	if c.from.Family != unix.AF_NETLINK || c.from.Pid != 0 {
		return 0, nil
	}
	return int(n), nil
}

// Receive waits for one announcement, for some seconds or until a Wake. What arrives of no interest, and the end of the
// wait, return an event of kind None. Lost is how many announcements before it did not arrive. After an error the
// subscription is of no use.
func (c *Conn) Receive() (e Event, lost uint64, err error) {
	n, err := c.recv()
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS):
		return Event{}, 0, nil // the numbers of what follows tell how much was lost
	case err != nil:
		return Event{}, 0, fmt.Errorf("receiving from the process connector: %w", err)
	}
	m, ok := parse(c.buf[:n])
	if !ok || m.what == answer && !c.numbered { // one that another program was given
		return Event{}, 0, nil
	}
	if want, known := c.next[m.cpu]; known {
		lost = uint64(m.seq - want) // both wrap
	}
	c.next[m.cpu] = m.seq + 1
	if m.what == answer {
		return Event{}, lost, nil
	}
	e = m.event
	e.At = c.base.Add(time.Duration(m.nanos - c.mono))
	return e, lost, nil
}

// Wake makes a Receive that waits return: it asks the kernel what it does not know, which is answered (cn_proc_mcast_ctl).
// It may be called concurrently with a Receive.
func (c *Conn) Wake() error { return c.send(unknown, 0) }

// Close ends the subscription. It must not be called while a Receive waits.
func (c *Conn) Close() error {
	_ = c.send(ignore, 0) // the kernel then stops making messages that nobody reads
	return unix.Close(c.fd)
}
