// Package netns runs functions in another network namespace.
//
// A thread that entered a namespace may not be allowed to come back, so it is thrown away. Sockets that were opened in
// it stay in the namespace, and keep it alive, until they are closed.
package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Enter runs f on a thread in the network namespace at path, as /proc/PID/ns/net. It takes CAP_SYS_ADMIN, and for
// another user's process CAP_SYS_PTRACE (setns(2)). Goroutines that f starts are outside.
func Enter(path string, f func() error) error {
	return onThread(func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", path, err)
		}
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("entering %s: %w", path, err)
		}
		return f()
	})
}

// Fresh runs f on a thread in a new network namespace that has nothing but a loopback interface: for measurements that
// other connections of the machine would distort. It takes CAP_SYS_ADMIN.
func Fresh(f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		if err := LoopbackUp(); err != nil {
			return err
		}
		return f()
	})
}

// LoopbackUp turns the loopback interface of the calling thread's namespace on. It takes CAP_NET_ADMIN.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("turning loopback on: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("turning loopback on: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("turning loopback on: %w", err)
	}
	return nil
}

// onThread runs f on a thread of its own, which ends with it. It is never the main thread: that one cannot end, and its
// namespace is what /proc/self/net shows of the whole process.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := onThread(f) // meanwhile the main thread is taken
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
