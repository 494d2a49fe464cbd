package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late the kernel may wake a thread that waits for a time. The runtime's monitor sleeps in steps of 20
// microseconds for 10 ms after each system call that waits: with the default of 50 microseconds its wake-ups were a quarter
// of the agent's CPU time at 200 execs a second.
const timerSlack = 5 * time.Millisecond

// calm starts this program again, in the same process, with that slack: the runtime's threads have it from the thread that
// makes them, the first of which there was before main. It returns when that is done already, or cannot be.
func calm() {
	runtime.LockOSThread() // the slack is a thread's; execve(2) keeps the calling one's
	defer runtime.UnlockOSThread()
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || slack >= int(timerSlack) {
		return
	}
	if unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) != nil {
		return
	}
	if path, err := os.Executable(); err == nil {
		_ = syscall.Exec(path, os.Args, os.Environ()) //nolint:gosec // this program itself; it returns only with an error
	}
}
