package network

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSockets bounds what one list holds: about 7 MiB.
const maxSockets = 1 << 16

// errCrowded says that there are more sockets than that; the list holds the first.
var errCrowded = errors.New("there are too many sockets")

// procLister lists sockets from /proc/net.
type procLister struct {
	dir string
	buf []byte
}

// newProcLister lists what a /proc/net shows.
func newProcLister(dir string) *procLister {
	return &procLister{dir: dir, buf: make([]byte, 64<<10)}
}

func (l *procLister) close() {}

// list appends all sockets to dst, what is over among them. A table that the kernel does not have (no IPv6) is empty.
func (l *procLister) list(dst []socket, _ bool) ([]socket, error) {
	var missing error
	found := false
	for _, table := range [...]struct {
		name     string
		protocol protocol
	}{{"tcp", tcp}, {"tcp6", tcp}, {"udp", udp}, {"udp6", udp}} {
		var err error
		dst, err = l.table(dst, filepath.Join(l.dir, table.name), table.protocol)
		switch {
		case err == nil:
			found = true
		case errors.Is(err, unix.ENOENT):
			missing = err
		default:
			return dst, err
		}
	}
	if !found {
		return dst, missing
	}
	return dst, nil
}

func (l *procLister) table(dst []socket, path string, p protocol) ([]socket, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dst, fmt.Errorf("opening %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	kept := 0 // of a line whose end is not read yet
	for {
		n, err := unix.Read(fd, l.buf[kept:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return dst, fmt.Errorf("reading %s: %w", path, err)
		}
		if n == 0 {
			return dst, nil
		}
		rest := l.buf[:kept+n]
		if dst, rest, err = parse(dst, rest, p); err != nil {
			return dst, err
		}
		if len(rest) == len(l.buf) {
			rest = nil // no line is that long
		}
		kept = copy(l.buf, rest)
	}
}

// parse appends the sockets of all whole lines of b and returns the rest.
func parse(dst []socket, b []byte, p protocol) ([]socket, []byte, error) {
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return dst, b, nil
		}
		if s, ok := parseLine(b[:end], p); ok {
			if len(dst) == maxSockets {
				return dst, nil, errCrowded
			}
			dst = append(dst, s)
		}
		b = b[end+1:]
	}
}
