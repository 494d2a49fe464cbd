// Package connector listens to the kernel's process connector, which announces every fork, exec and exit of the machine
// over netlink (Documentation/driver-api/connector.rst, drivers/connector/cn_proc.c of Linux).
//
// Promises: what the kernel announced and did not arrive is counted exactly, from the sequence number that each message
// carries for its CPU. Nothing that arrives makes the parser fail: what is no event is skipped. A machine under load, or
// one where others subscribe all the time, does not make a granted subscription look refused.
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
	// receiveBuffer holds some 20,000 announcements: the kernel accounts about leastTruesize bytes for each of 76.
	receiveBuffer = 16 << 20
	leastTruesize = 768
	// patience is how long a Receive waits at most, should a Wake be lost. To be woken for nothing costs a tenth of a
	// millisecond.
	patience = 2 * time.Second
	// tries is how often a subscription is asked for that gets no answer, pauses of a growing multiple of tryEvery apart:
	// half a second in all.
	tries    = 8
	tryEvery = 20 * time.Millisecond
)

// The inodes of the namespaces that the kernel answers in: PROC_PID_INIT_INO and PROC_USER_INIT_INO of
// include/linux/proc_ns.h.
const (
	initialPID  = 0xEFFFFFFC
	initialUser = 0xEFFFFFFD
)

var (
	errNamespace = errors.New("this is not the machine's first pid and user namespace (it takes hostPID)")
	errNetwork   = errors.New("this is not the machine's first network namespace (it takes hostNetwork)")
	errSilent    = errors.New("the kernel does not answer: it is built without CONFIG_PROC_EVENTS, or short of memory")
)

// Conn is a subscription. One goroutine may receive.
type Conn struct {
	fd   int
	buf  []byte
	from unix.RawSockaddrNetlink // who sent what is in buf
	next map[uint32]uint32       // the sequence number that follows, by CPU
	base time.Time
	mono int64 // CLOCK_MONOTONIC at base
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
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	for name, inode := range map[string]uint64{"pid": initialPID, "user": initialUser} {
		var ns unix.Stat_t // without procfs the answer must tell
		if unix.Stat("/proc/self/ns/"+name, &ns) == nil && ns.Ino != inode {
			return errNamespace
		}
	}
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for try := range tries {
		<-time.After(time.Duration(try) * tryEvery)
		if answered, err := c.ask(); answered || err != nil {
			return err
		}
	}
	return errSilent
}

// ask joins the group and asks for announcements. The kernel answers before the request returns (cn_rx_skb), unless it
// finds no memory, or the queue is full of what others cause: it is empty when the group is joined. Without an answer it
// leaves everything as it was.
func (c *Conn) ask() (answered bool, err error) {
	err = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, procIndex)
	if err != nil {
		return false, err
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never returns an error
	nonce := binary.NativeEndian.Uint32(random[:])
	if err := c.send(listen, nonce); errors.Is(err, unix.ECONNREFUSED) {
		return false, errNetwork
	} else if err != nil {
		return false, err
	}
	if answered, err = c.answerTo(nonce); answered || err != nil {
		return answered, err
	}
	_ = c.send(ignore, 0) // before Linux 6.6 every request counts
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, procIndex); err != nil {
		return false, err
	}
	_, err = c.answerTo(nonce) // empties the queue
	return false, err
}

// answerTo looks for the answer to nonce among all that has arrived: announcements and answers to others come too when
// other programs listen.
func (c *Conn) answerTo(nonce uint32) (found bool, err error) {
	for range receiveBuffer / leastTruesize {
		n, err := c.recv(unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return false, err
		}
		// cn_proc_ack; the kernel numbers it like any other message of its CPU, so only ack is ours (send_msg, Linux 4.7).
		if m, ok := parse(c.buf[:n]); ok && m.what == answer && m.ack == nonce+1 {
			if m.code != 0 {
				return false, unix.Errno(m.code)
			}
			return true, nil
		}
	}
	return false, nil
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

// recv receives one datagram of the kernel's; it returns 0 for one of anybody else's.
func (c *Conn) recv(flags int) (int, error) {
	for {
		call := unix.Syscall6
		if flags&unix.MSG_DONTWAIT != 0 {
			call = unix.RawSyscall6 // the scheduler need not be told of what does not wait, which is half its price
		}
		size := uint32(unix.SizeofSockaddrNetlink)
		n, _, failed := call(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&c.buf[0])), uintptr(len(c.buf)),
			uintptr(flags), uintptr(unsafe.Pointer(&c.from)), uintptr(unsafe.Pointer(&size)))
		switch {
		case failed == unix.EINTR:
		case failed != 0:
			return 0, failed
		case c.from.Family != unix.AF_NETLINK || c.from.Pid != 0:
			return 0, nil
		default:
			return int(n), nil
		}
	}
}

// Receive waits for one announcement, for some seconds or until a Wake. What arrives of no interest, and the end of the
// wait, return an event of kind None. Lost is how many announcements before it did not arrive. After an error the
// subscription is of no use.
func (c *Conn) Receive() (e Event, lost uint64, err error) {
	n, err := c.recv(unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		n, err = c.recv(0)
	}
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		return Event{}, 0, nil // the numbers of what follows tell how much was lost
	case err != nil:
		return Event{}, 0, fmt.Errorf("receiving from the process connector: %w", err)
	}
	m, ok := parse(c.buf[:n])
	if !ok || m.cpu == unnumbered {
		return Event{}, 0, nil
	}
	if want, known := c.next[m.cpu]; known {
		lost = uint64(m.seq - want) // both wrap
	}
	c.next[m.cpu] = m.seq + 1
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
