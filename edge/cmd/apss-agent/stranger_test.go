package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// strangerKey makes this program the stranger of a test: a process that is not the agent's.
const strangerKey = "APSS_TEST_STRANGER"

// written is what it writes.
const written = "root:x:0:0\npassword=hunter2\n"

func TestMain(m *testing.M) {
	if root, ok := os.LookupEnv(strangerKey); ok {
		if err := estrange(root); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// estrange does what its standard input asks for, in a mount namespace of its own whose root folder has a file system of
// its own, if root is given.
func estrange(root string) error {
	if root != "" {
		for _, step := range []func() error{
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("stranger", root, "tmpfs", 0, "size=1m") },
			func() error { return unix.Chroot(root) },
			func() error { return os.Chdir("/") },
		} {
			if err := step(); err != nil {
				return err
			}
		}
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, object, _ := strings.Cut(lines.Text(), " ")
		var did any
		var err error
		switch verb {
		case "listen":
			var l net.Listener
			if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
				did = l.Addr().(*net.TCPAddr).Port
				go accept(l)
			}
		case "write":
			if err = os.MkdirAll(filepath.Dir(object), 0o755); err == nil {
				err = os.WriteFile(object, []byte(written), 0o644)
			}
		case "append":
			var f *os.File
			if f, err = os.OpenFile(object, os.O_APPEND|os.O_WRONLY, 0); err == nil {
				_, err = f.WriteString("eve::0:0\n")
				err = errOr(err, f.Close())
			}
		case "read":
			_, err = os.ReadFile(object)
		case "dial":
			var c net.Conn
			if c, err = net.Dial("tcp", object); err == nil {
				err = c.Close()
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		fmt.Println("did", did)
	}
	return nil
}

// accept takes and closes connections until the process ends.
func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

func errOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// stranger is a process that does what it is told.
type stranger struct {
	pid int32
	in  io.Writer
	out *bufio.Scanner
	end func()
}

// newStranger starts one; with its own root file system where own is true, which takes CAP_SYS_ADMIN.
func newStranger(t *testing.T, own bool) *stranger {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	root := ""
	if own {
		root = t.TempDir()
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	}
	cmd.Env = append(os.Environ(), strangerKey+"="+root)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &stranger{pid: int32(cmd.Process.Pid), in: in, out: bufio.NewScanner(out)}
	ended := false
	s.end = func() {
		if !ended {
			ended = true
			_ = in.Close() // it reads the end
			_ = cmd.Wait()
		}
	}
	t.Cleanup(s.end)
	if !s.out.Scan() || s.out.Text() != "ready" {
		t.Fatalf("the stranger says %q", s.out.Text())
	}
	return s
}

// do makes it do something, waits until it is done, and returns what came of it.
func (s *stranger) do(t *testing.T, what string) string {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, what); err != nil {
		t.Fatal(err)
	}
	if !s.out.Scan() || !strings.HasPrefix(s.out.Text(), "did ") {
		t.Fatalf("%s: the stranger says %q", what, s.out.Text())
	}
	return strings.TrimPrefix(s.out.Text(), "did ")
}
