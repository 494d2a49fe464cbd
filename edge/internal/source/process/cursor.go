package process

import (
	"iter"

	"golang.org/x/sys/unix"
)

// reservedPIDs is where the kernel goes on after it passed pid_max: RESERVED_PIDS in kernel/pid.c.
const reservedPIDs = 300

// span is the range of pids that the cursor passed between two readings of it: all that the kernel may have handed out.
// It skips those in use, so a span's length is an upper bound.
type span struct{ prev, cur, max int32 }

// len returns how many pids are in the span.
func (s span) len() int {
	if s.cur >= s.prev {
		return int(s.cur - s.prev)
	}
	return max(0, int(s.max)-1-int(s.prev)) + int(s.cur) - int(s.bottom()) + 1
}

// bottom is the first pid after a wrap.
func (s span) bottom() int32 {
	if s.cur < reservedPIDs {
		return 1
	}
	return reservedPIDs
}

// newestFirst yields the span's pids, the last one handed out first.
func (s span) newestFirst() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		low := s.prev + 1
		if s.cur < s.prev {
			low = s.bottom()
		}
		for pid := s.cur; pid >= low; pid-- {
			if !yield(pid) {
				return
			}
		}
		if s.cur >= s.prev {
			return
		}
		for pid := s.max - 1; pid > s.prev; pid-- {
			if !yield(pid) {
				return
			}
		}
	}
}

// cursorOf reads the cursor from an open /proc/loadavg.
func cursorOf(fd int) (int32, bool) {
	if fd < 0 {
		return 0, false
	}
	var b [128]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return 0, false
	}
	return parseCursor(b[:n])
}

// pidMax returns the pid after the highest, proc_sys_kernel(5); 2^22, the highest possible, when it is hidden.
func (r *reader) pidMax() int32 {
	const limit = 1 << 22
	b, err := r.file(r.root, "sys/kernel/pid_max")
	if err != nil {
		return limit
	}
	n, ok := number(trimNewline(b), 31)
	if !ok {
		return limit
	}
	return int32(n)
}

func trimNewline(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}
