// Package netnstest runs a package's tests in network and pid namespaces of their own: what other programs of the machine
// open and close, other packages' tests above all, takes no port of theirs, fills no queue and takes no time to look at.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/netns"
)

// inside is set where the tests run in those namespaces.
const inside = "APSS_TEST_NETNS"

// refused is the exit code where that cannot be.
const refused = 77

// Run runs the tests, for TestMain. Where namespaces cannot be made, which takes CAP_SYS_ADMIN, they run where they are, and
// it is said.
func Run(m *testing.M) int {
	if os.Getenv(inside) != "" {
		for _, step := range []func() error{
			netns.LoopbackUp,
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		} {
			if err := step(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return refused
			}
		}
		return m.Run()
	}
	runtime.LockOSThread() // with which the tests would end
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: os.Args, Env: append(os.Environ(), inside+"=1"), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL},
	}
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended) && ended.ExitCode() != refused:
		return max(1, ended.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "NOT APART from the machine's other sockets and processes:", err)
	return m.Run()
}
