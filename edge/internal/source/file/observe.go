package file

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// grain is the coarsest step of ctime: one timer tick, 10 ms at the lowest CONFIG_HZ of 100, and as much for the time
// between the stamp and the look.
const grain = 20 * time.Millisecond

// smallFile is what hashing costs at least, in bytes of the rate limit: its system calls take as long as hashing that.
const smallFile = 4 << 10

// observer takes the states of files. Not safe for concurrent use: it has one buffer.
type observer struct {
	limiter  *rate.Limiter
	hashSize int64
	buf      []byte
	copySize int64
	// copies asks for the content of a file of at most copySize bytes; it is in text if copied says so.
	copies, copied bool
	text           []byte
	// unreadable counts files that only stat could tell of.
	unreadable func()
	// open opens a file that is expected to be that inode, like openFile.
	open func(path string, expected id) (int, error)
}

func newObserver(l Limits, unreadable func()) *observer {
	return &observer{
		limiter:    rate.NewLimiter(rate.Limit(l.HashRate), int(max(l.HashRate, l.HashSize, smallFile))),
		hashSize:   l.HashSize,
		buf:        make([]byte, 64<<10),
		unreadable: unreadable,
		open:       func(path string, _ id) (int, error) { return openFile(path) },
	}
}

// effort says how much observe does to learn a file's content.
type effort uint8

const (
	hashChanged effort = iota // hash unless size and times are those of the state before
	hashAlways                // the kernel said that it was written to
	hashMoved                 // only the inode was touched: hash if size or mtime moved too
	hashLater                 // stat alone
	hashNever                 // the same, for good
)

// observe returns the state of what is at path on the disk, which is not followed if it is a symlink. A name that
// stands for nothing gives a state of kind absent. prev, which may be nil, spares the hash of what did not change.
func (o *observer) observe(path string, prev *state, e effort) (state, error) {
	o.copied = false
	s, err := lstat(path)
	if err != nil || s.kind == absent {
		return s, err
	}
	if s.kind == regular {
		o.hash(path, &s, prev, e)
	}
	if s.kind == symlink {
		s.link, err = os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) { // replaced since the stat
			return o.observe(path, prev, e)
		}
	}
	return s, err
}

func (o *observer) hash(path string, s, prev *state, e effort) {
	if s.size > o.hashSize || e == hashNever {
		return
	}
	if prev != nil && prev.hashing == hashed && e != hashAlways && !prev.racy &&
		s.id == prev.id && s.size == prev.size && s.mtime == prev.mtime && (s.ctime == prev.ctime || e == hashMoved) {
		s.sum, s.hashing = prev.sum, hashed
		return
	}
	s.hashing = deferred
	if e == hashLater || !o.limiter.AllowN(time.Now(), int(max(s.size, smallFile))) {
		return
	}
	for range 2 { // what changed under the first read gets a second
		start := time.Now()
		sum, after, err := o.sum(path, s.id)
		if err != nil {
			s.hashing = unhashed
			if !errors.Is(err, unix.ENOENT) && !errors.Is(err, errOther) {
				o.unreadable()
			}
			return
		}
		calm := after.id == s.id && after.size == s.size && after.mtime == s.mtime
		*s = after
		s.racy = start.Sub(time.Unix(0, s.ctime)) < grain
		if calm {
			s.sum, s.hashing = sum, hashed
			o.copied = o.copies && s.size <= o.copySize
			return
		}
		if s.size > o.hashSize {
			return
		}
	}
	s.racy = true // it is being written to: a later hint or scan hashes it
}

var errOther = errors.New("another file has taken the name")

// openFile opens path to read from it, without waiting at a FIFO or device that took the name.
func openFile(path string) (int, error) {
	return retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
}

// sum hashes the regular file at path, at most hashSize bytes of it, and returns its state after the read. The look at
// what was opened keeps it from reading from a FIFO or device that took the name.
func (o *observer) sum(path string, expected id) (sum [32]byte, after state, err error) {
	fd, err := o.open(path, expected)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a symlink, a socket: open(2)
			err = errOther
		}
		return sum, after, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return sum, after, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return sum, after, errOther
	}
	h := sha256.New()
	o.text = o.text[:0]
	for room := o.hashSize; room > 0; {
		n, err := retry(func() (int, error) { return unix.Read(fd, o.buf[:min(room, int64(len(o.buf)))]) })
		if err != nil {
			return sum, after, err
		}
		if n == 0 {
			break
		}
		h.Write(o.buf[:n])
		if o.copies && int64(len(o.text)+n) <= o.copySize {
			o.text = append(o.text, o.buf[:n]...)
		}
		room -= int64(n)
	}
	h.Sum(sum[:0])
	if err := unix.Fstat(fd, &st); err != nil {
		return sum, after, err
	}
	return sum, fromStat(&st), nil
}

// retry calls f again as long as a signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// lstat returns the state of what is at path without its content.
func lstat(path string) (state, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(solid(path), &st); err {
	case nil:
		return fromStat(&st), nil
	case unix.ENOENT, unix.ENOTDIR:
		return state{}, nil
	default:
		return state{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
}

func fromStat(st *unix.Stat_t) state {
	s := state{
		size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
		id:   id{dev: st.Dev, ino: st.Ino},
		mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, nlink: uint32(st.Nlink),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		s.kind, s.size = directory, 0 // a folder's size and times are its entries' story
	case unix.S_IFLNK:
		s.kind = symlink
	case unix.S_IFIFO:
		s.kind = fifo
	case unix.S_IFSOCK:
		s.kind = socket
	case unix.S_IFCHR:
		s.kind = charDevice
	case unix.S_IFBLK:
		s.kind = blockDevice
	default:
		s.kind = regular
	}
	return s
}
