package network

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
)

// lister lists the sockets of a network namespace; it appends to dst. Only when over is true need there be the rests of
// connections, in TIME_WAIT.
type lister interface {
	list(dst []socket, over bool) ([]socket, error)
	close()
}

// diagLister lists sockets by sock_diag. After an error it asks anew.
type diagLister struct {
	conn *sockdiag.Conn
	open func() (*sockdiag.Conn, error)
	buf  []byte
}

func (l *diagLister) list(dst []socket, over bool) ([]socket, error) {
	if l.conn == nil {
		c, err := l.open()
		if err != nil {
			return dst, err
		}
		l.conn = c
	}
	states := sockdiag.Live
	if over {
		states = sockdiag.All
	}
	crowded := false
	err := l.conn.Dump(states, l.buf, func(s *sockdiag.Socket) {
		if len(dst) == maxSockets {
			crowded = true
			return
		}
		dst = append(dst, fromDiag(s))
	})
	if err != nil {
		l.close()
		return dst, err
	}
	if crowded {
		return dst, errCrowded
	}
	return dst, nil
}

func (l *diagLister) close() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

func fromDiag(s *sockdiag.Socket) socket {
	p := tcp
	if s.Protocol == unix.IPPROTO_UDP {
		p = udp
	}
	return socket{
		key: key{p, s.Local, s.Remote}, state: state(s.State), uid: s.UID, inode: uint64(s.Inode), cookie: s.Cookie,
	}
}

// dial opens sock_diag in the calling thread's network namespace and finds out whether it answers.
func dial(buf []byte) (*sockdiag.Conn, *sockdiag.Closes, error) {
	closes, err := sockdiag.Listen() // before anything is listed, so that no end is missed
	if err != nil {
		return nil, nil, err
	}
	conn, err := sockdiag.Open()
	if err == nil {
		err = conn.Dump(1<<listen, buf, func(*sockdiag.Socket) {})
		if err != nil {
			_ = conn.Close()
		}
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("trying sock_diag: %w", err), closes.Close())
	}
	return conn, closes, nil
}
