package file

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fenceWait bounds how long the sensor waits for the reader of the kernel's queue, which only ever adds to hints.
const fenceWait = time.Second

// fence is a file without a name that is watched like a folder: a change to it goes through the kernel's queue, so when
// it comes out all that happened before has come out too (inotify(7): the events are an ordered queue).
type fence struct {
	file   *os.File
	name   string
	passed chan struct{}
}

// newFence makes n tell of a new fence.
func newFence(n *notifier) (*fence, error) {
	fd, err := unix.MemfdCreate("fence", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a fence: %w", err)
	}
	f := &fence{file: os.NewFile(uintptr(fd), "fence"), name: fmt.Sprintf("/proc/self/fd/%d", fd), passed: make(chan struct{}, 1)}
	if err := n.watch(f.name, f.name, unix.IN_ATTRIB); err != nil {
		return nil, errors.Join(fmt.Errorf("watching a fence: %w", err), f.file.Close())
	}
	return f, nil
}

func (f *fence) pass() {
	select {
	case f.passed <- struct{}{}:
	default:
	}
}

// caughtUp waits until hints has all that happened before the call, and reports whether it has: not if events were lost.
func (q *hints) caughtUp() bool {
	f := q.fence
	if f == nil {
		return true // nothing is told at all
	}
	select {
	case <-f.passed:
	default:
	}
	if unix.Fchmod(int(f.file.Fd()), 0o600) == nil {
		timer := time.NewTimer(fenceWait)
		defer timer.Stop()
		select {
		case <-f.passed:
		case <-timer.C:
			return false
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.overflow
}
