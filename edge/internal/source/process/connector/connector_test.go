package connector

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func encode(what, cpu, seq uint32, nanos uint64, data ...uint32) []byte {
	b := make([]byte, dataAt, dataAt+4*len(data))
	order := binary.NativeEndian
	order.PutUint32(b[16:], procIndex)
	order.PutUint32(b[20:], procValue)
	order.PutUint32(b[24:], seq)
	order.PutUint32(b[messageAt:], what)
	order.PutUint32(b[messageAt+4:], cpu)
	order.PutUint64(b[messageAt+8:], nanos)
	for _, word := range data {
		b = order.AppendUint32(b, word)
	}
	return b
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		in   []byte
		want message
	}{
		"fork":    {encode(whatFork, 1, 7, 99, 20, 21, 30, 30), message{what: whatFork, cpu: 1, seq: 7, nanos: 99, event: Event{Kind: Fork, Parent: 21, PID: 30, TGID: 30}}},
		"thread":  {encode(whatFork, 0, 0, 0, 20, 21, 30, 29), message{what: whatFork, event: Event{Kind: Fork, Parent: 21, PID: 30, TGID: 29}}},
		"exec":    {encode(whatExec, 0, 0, 0, 30, 30), message{what: whatExec, event: Event{Kind: Exec, PID: 30, TGID: 30}}},
		"exit":    {encode(whatExit, 0, 0, 0, 30, 30, 256, 17, 20, 21), message{what: whatExit, event: Event{Kind: Exit, PID: 30, TGID: 30, Status: 256, Parent: 21}}},
		"old":     {encode(whatExit, 0, 0, 0, 30, 30, 9, 17), message{what: whatExit, event: Event{Kind: Exit, PID: 30, TGID: 30, Status: 9}}}, // no parent before Linux 4.18
		"comm":    {encode(0x200, 0, 1, 0, 30, 30), message{what: 0x200, seq: 1}},
		"refused": {encode(answer, 0, 0, 0, 1), message{code: 1}},
		"short":   {encode(whatFork, 0, 0, 0, 20), message{what: whatFork}},
	} {
		got, ok := parse(tt.in)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(message{})); !ok || diff != "" {
			t.Errorf("%s: parsed %t, differs (-want +got):\n%s", name, ok, diff)
		}
	}
	for _, in := range [][]byte{nil, make([]byte, dataAt+4), encode(whatFork, 0, 0, 0)} {
		if _, ok := parse(in); ok {
			t.Errorf("%x was parsed", in)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encode(whatFork, 1, 7, 99, 20, 21, 30, 30))
	f.Add(encode(whatExit, 0, 0, 1<<63, 30, 30, 256))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parse(b)
		if e := m.event; e.PID < 0 || e.TGID < 0 || !ok && e.Kind != None {
			t.Errorf("got %+v", m)
		}
	})
}

func dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial()
	if errors.Is(err, errSilent) && initial() {
		t.Fatalf("%v: it is, so either the answer was not known for ours or the kernel was built without CONFIG_PROC_EVENTS", err)
	}
	if err != nil {
		t.Skipf("%v: run as root in the machine's own namespaces", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// initial reports whether the kernel should answer: this is the pid and user namespace that it began with, whose inodes
// are fixed (PROC_PID_INIT_INO and PROC_USER_INIT_INO of include/linux/proc_ns.h).
func initial() bool {
	pid, errPID := os.Readlink("/proc/self/ns/pid")
	user, errUser := os.Readlink("/proc/self/ns/user")
	return errPID == nil && errUser == nil && pid == "pid:[4026531836]" && user == "user:[4026531837]"
}

// The answers that others are given are no announcements that were lost.
func TestAnswersToOthers(t *testing.T) {
	c, other := dial(t), dial(t)
	run := func() {
		cmd := exec.Command("/bin/true")
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		for ended := false; !ended; {
			e, lost, err := c.Receive()
			if err != nil || lost > 0 {
				t.Fatalf("Receive = %+v, %d, %v", e, lost, err)
			}
			ended = e.Kind == Exit && e.TGID == int32(cmd.Process.Pid)
		}
	}
	for range 20 { // on each CPU, as it comes
		run()
		if err := other.send(listen, 1); err != nil {
			t.Fatal(err)
		}
	}
	run()
}

func TestRealLife(t *testing.T) {
	c := dial(t)
	before := time.Now()
	cmd := exec.Command("/bin/sh", "-c", "exit 3")
	if err := cmd.Run(); err == nil {
		t.Fatal("exit 3 went well")
	}
	pid := int32(cmd.Process.Pid)
	var got []Kind
	for len(got) == 0 || got[len(got)-1] != Exit {
		e, lost, err := c.Receive()
		if err != nil || lost > 0 || time.Since(before) > time.Minute {
			t.Fatalf("Receive = %+v, %d, %v", e, lost, err)
		}
		if e.TGID != pid || e.Kind == None {
			continue
		}
		got = append(got, e.Kind)
		if e.At.Before(before) || e.At.After(time.Now()) {
			t.Errorf("got time %v, want it between %v and now", e.At, before)
		}
		if e.Kind == Fork && e.Parent != int32(os.Getpid()) || e.Kind == Exit && syscall.WaitStatus(e.Status).ExitStatus() != 3 {
			t.Errorf("got %+v", e)
		}
	}
	if diff := cmp.Diff([]Kind{Fork, Exec, Exit}, got); diff != "" {
		t.Errorf("what is announced differs (-want +got):\n%s", diff)
	}
}

// What a small buffer loses is counted.
func TestLossIsCounted(t *testing.T) {
	c := dial(t)
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10); err != nil {
		t.Fatal(err)
	}
	const runs = 30
	run := func() {
		for range runs {
			if err := exec.Command("/bin/true").Run(); err != nil {
				t.Fatal(err)
			}
		}
	}
	drain := func() (forks, lost uint64) {
		waiting := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(waiting, 0); err != nil || n == 0 {
				return forks, lost
			}
			e, l, err := c.Receive()
			if err != nil {
				t.Fatal(err)
			}
			lost += l
			if e.Kind == Fork {
				forks++
			}
		}
	}
	run()
	drain() // the numbers of each CPU are known
	var forks, lost uint64
	for range 10 {
		run()
		f, l := drain()
		forks, lost = forks+f, lost+l
	}
	if lost == 0 || forks+lost < 9*runs {
		t.Errorf("of %d forks %d arrived and %d announcements were lost", 10*runs, forks, lost)
	}
}

func TestWake(t *testing.T) {
	c := dial(t)
	if err := c.Wake(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(longest); ; { // others' announcements come too
		e, _, err := c.Receive()
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("Receive = %+v, %v; want the answer within %v", e, err, longest)
		}
		if m, ok := parse(c.buf); ok && m.what == answer && m.ack == 1 && unix.Errno(m.code) == unix.EINVAL {
			return
		}
	}
}

func TestRefused(t *testing.T) {
	if os.Getenv("CONNECTOR_TEST_DIAL") != "" {
		c, err := Dial()
		if err == nil {
			_ = c.Close()
			os.Exit(1)
		}
		if _, err := os.Stdout.WriteString(err.Error()); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		t.Skip("root is needed to make namespaces: run the tests as root")
	}
	other := dial(t) // what the kernel answers others is no answer to the refused
	var wg sync.WaitGroup
	stop := make(chan struct{})
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = other.send(listen, 1)
			}
		}
	})
	for name, tt := range map[string]struct {
		flags uintptr
		want  string
	}{
		"another pid namespace":     {unix.CLONE_NEWPID, "subscribing to the process connector: " + errSilent.Error()},
		"another network namespace": {unix.CLONE_NEWNET, "subscribing to the process connector: " + unix.ECONNREFUSED.Error()},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRefused$")
		cmd.Env = append(os.Environ(), "CONNECTOR_TEST_DIAL=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: tt.flags}
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if err != nil || string(out) != tt.want {
			t.Errorf("%s: got %q and %v, want %q", name, out, err, tt.want)
		}
	}
}
