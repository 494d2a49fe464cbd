package connector

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
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

// dial subscribes. It skips the test where the kernel has no process connector for this process, and fails it where it
// has: a subscription that comes too late, or is mistaken for refused, must not pass for a skip.
func dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial()
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	// The list of what answers is there in the initial network namespace only (drivers/connector/connector.c).
	list, errList := os.ReadFile("/proc/net/connector")
	if errList == nil && strings.Contains(string(list), "cn_proc") && os.Geteuid() == 0 && !errors.Is(err, errNamespace) {
		t.Fatalf("this kernel's process connector is here for us, yet: %v", err)
	}
	t.Skipf("%v: run as root in the machine's own namespaces, of a kernel with CONFIG_PROC_EVENTS", err)
	return nil
}

// others subscribe all the time until the test ends: their answers come to everybody.
func others(t *testing.T) {
	t.Helper()
	other := dial(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop); wg.Wait() })
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
}

func TestDialAmongOthers(t *testing.T) {
	others(t)
	for range 50 {
		_ = dial(t)
	}
}

// The kernel numbers its answers to others as it numbers announcements: they are no loss.
func TestOthersAreNoLoss(t *testing.T) {
	c := dial(t)
	for range 50 {
		other, err := Dial()
		if err != nil {
			t.Fatal(err)
		}
		_ = other.Close()
	}
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		e, lost, err := c.Receive()
		if err != nil || lost > 0 || time.Now().After(deadline) {
			t.Fatalf("Receive = %+v, %d, %v", e, lost, err)
		}
		if e.Kind == Exit && e.PID == int32(cmd.Process.Pid) {
			return
		}
	}
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
	for deadline := time.Now().Add(30 * time.Second); ; { // others' announcements come too
		e, _, err := c.Receive()
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("Receive = %+v, %v; want the kernel's answer", e, err)
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
	others(t) // what the kernel answers others is no answer to the refused
	for name, tt := range map[string]struct {
		flags uintptr
		want  string
	}{
		"another pid namespace":     {unix.CLONE_NEWPID, "subscribing to the process connector: " + errNamespace.Error()},
		"another network namespace": {unix.CLONE_NEWNET, "subscribing to the process connector: " + errNetwork.Error()},
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
