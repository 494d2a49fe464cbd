package file

import (
	"encoding/hex"
	"fmt"

	"github.com/apss-sensor/apss/shared/event"
)

// kind is what a name stands for.
type kind uint8

const (
	absent kind = iota
	regular
	directory
	symlink
	fifo
	socket
	charDevice
	blockDevice
)

var kindNames = [...]string{"absent", "file", "directory", "symlink", "fifo", "socket", "character_device", "block_device"}

// hashing is what is known of a file's content.
type hashing uint8

const (
	unhashed hashing = iota // no regular file, too large, not readable, or never at rest
	deferred                // the rate limit says: later
	hashed
)

// id tells inodes apart. The kernel reuses it after the last link is gone.
type id struct{ dev, ino uint64 }

// state is what the baseline keeps of one name. Times are nanoseconds since 1970.
type state struct {
	size, mtime, ctime int64
	id
	sum [32]byte
	// link is the target of a symlink; of a watched path that is reached through symlinks, where it leads.
	link                  string
	mode, uid, gid, nlink uint32
	kind                  kind
	hashing               hashing
	// racy is true when a write may have followed the hash without moving ctime, whose grain is one timer tick on
	// kernels before 6.13 (multigrain timestamps), and of what has no hash because it changed while it was read.
	racy bool
}

// delta is in what two states of one name differ, as far as it is worth telling.
type delta uint8

const (
	content   delta = 1 << iota // another content, target or kind
	mode                        // other permission bits
	owner                       // another user or group
	undecided                   // perhaps another content: the hash must tell and is not made yet
)

// compare tells in what cur differs from prev. written is whether the kernel said that the file was written to.
func compare(prev, cur *state, written bool) delta {
	var d delta
	switch {
	case prev.kind != cur.kind, prev.link != cur.link:
		d |= content
	case cur.kind == regular:
		d |= compareContent(prev, cur, written)
	}
	if prev.mode != cur.mode && cur.kind != symlink { // a symlink has no mode of its own, symlink(7)
		d |= mode
	}
	if prev.uid != cur.uid || prev.gid != cur.gid {
		d |= owner
	}
	return d
}

func compareContent(prev, cur *state, written bool) delta {
	touched := prev.mtime != cur.mtime || written && prev.ctime != cur.ctime
	switch {
	case prev.size != cur.size:
		return content
	case prev.hashing == hashed && cur.hashing == hashed:
		if prev.sum != cur.sum {
			return content
		}
	case prev.hashing == hashed && cur.hashing == deferred:
		return undecided
	case touched, prev.racy && prev.hashing != hashed && cur.hashing == hashed: // it was being written to
		return content
	}
	return 0
}

// keepContent returns cur with what prev says of the content, for a change that is not decided yet.
func keepContent(prev, cur *state) state {
	s := *cur
	s.size, s.mtime, s.ctime, s.sum, s.hashing = prev.size, prev.mtime, prev.ctime, prev.sum, prev.hashing
	s.racy = true
	return s
}

// forEvent returns what an event tells of s.
func (s *state) forEvent() event.FileState {
	f := event.FileState{Mode: fmt.Sprintf("%04o", s.mode), UID: s.uid, GID: s.gid, Size: s.size}
	if s.hashing == hashed {
		f.SHA256 = hex.EncodeToString(s.sum[:])
	}
	return f
}
