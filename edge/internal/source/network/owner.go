package network

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ownerBudget bounds the search for owners in one poll, in CPU time. 300 processes with 20 files each take about 10 ms.
const ownerBudget = 20 * time.Millisecond

// threadTime is the CPU time of the calling thread, clock_gettime(2).
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

// owner is the process that holds a socket.
type owner struct {
	pid int32
	// stdio is true when the socket is its standard input or output.
	stdio bool
}

// owners finds the processes that hold sockets, by their inodes in /proc/PID/fd.
type owners struct {
	proc   string
	buf    []byte
	link   []byte
	denied uint64 // processes whose files may not be read
}

func newOwners(proc string) *owners {
	return &owners{proc: proc, buf: make([]byte, 32<<10), link: make([]byte, 64)}
}

// find looks for the inodes that are the keys of want and sets their values. It looks into the pids of first, then into
// the others, the newest first, until all are found or the time is up.
func (o *owners) find(want map[uint64]owner, first []int32, timeUp func() bool) {
	missing := len(want)
	for i, pid := range first {
		if i > 0 && (missing == 0 || timeUp()) {
			return
		}
		missing -= o.look(pid, want)
	}
	if missing == 0 {
		return
	}
	for _, pid := range o.pids() {
		if missing == 0 || timeUp() {
			return
		}
		if !slices.Contains(first, pid) {
			missing -= o.look(pid, want)
		}
	}
}

// pids lists the processes, the highest pid first.
func (o *owners) pids() []int32 {
	var pids []int32
	_ = o.names(o.proc, func(_ int, name string) {
		if pid, err := strconv.ParseInt(name, 10, 32); err == nil {
			pids = append(pids, int32(pid))
		}
	})
	slices.SortFunc(pids, func(a, b int32) int { return cmp.Compare(b, a) })
	return pids
}

// look sets the owners of what pid holds and returns how many were new.
func (o *owners) look(pid int32, want map[uint64]owner) int {
	found := 0
	err := o.names(filepath.Join(o.proc, strconv.Itoa(int(pid)), "fd"), func(dir int, name string) {
		n, err := unix.Readlinkat(dir, name, o.link)
		if err != nil {
			return
		}
		inode, ok := socketInode(o.link[:n])
		if !ok {
			return
		}
		known, wanted := want[inode]
		if !wanted {
			return
		}
		if known.pid == 0 {
			known.pid = pid
			found++
		}
		// A child inherits its parent's sockets: the one that speaks through it is the one that matters.
		if name == "0" || name == "1" {
			known = owner{pid: pid, stdio: true}
		}
		want[inode] = known
	})
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		o.denied++
	}
	return found
}

// names calls f with the names in a folder. The folder's descriptor stays valid during the call.
func (o *owners) names(path string, f func(dir int, name string)) error {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	var names []string
	for {
		n, err := unix.ReadDirent(dir, o.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		_, _, names = unix.ParseDirent(o.buf[:n], -1, names[:0])
		for _, name := range names {
			f(dir, name)
		}
	}
}

// socketInode parses the target of a link to a socket, "socket:[123]", proc_pid_fd(5).
func socketInode(link []byte) (uint64, bool) {
	s, ok := strings.CutPrefix(string(link), "socket:[")
	if !ok {
		return 0, false
	}
	s, ok = strings.CutSuffix(s, "]")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}
