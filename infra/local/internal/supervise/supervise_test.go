package supervise

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this test binary the programs that the tests run.
func TestMain(m *testing.M) {
	switch role := os.Getenv("ROLE"); role {
	case "":
		os.Exit(m.Run())
	case "print":
		fmt.Println("one")
		fmt.Fprintln(os.Stderr, "two", os.Environ())
		fmt.Print("three, without an end")
	case "fail":
		fmt.Println("cannot go on")
		os.Exit(3)
	case "obey", "ignore":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		for range c {
			if role == "obey" {
				os.Exit(0)
			}
		}
	case "parent": // starts a child, tells its pid, and waits to be killed
		self, _ := os.Executable()
		child, err := Start(Program{Name: "child", Path: self, Env: []string{"ROLE=ignore"}})
		if err != nil {
			panic(err)
		}
		fmt.Println(child.PID())
		select {}
	}
}

type log struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	seen chan struct{} // closed at the first line
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() == 0 {
		close(l.seen)
	}
	return l.buf.Write(b)
}

func run(t *testing.T, role string) (*Process, *log) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &log{seen: make(chan struct{})}
	p, err := Start(Program{Name: "prog", Path: self, Env: []string{"ROLE=" + role}, Log: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p, l
}

func TestOutput(t *testing.T) {
	p, l := run(t, "print")
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	got := l.buf.String()
	for _, want := range []string{"prog | one\n", "prog | two [ROLE=print]\n", "prog | three, without an end\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got the log %q, want %q in it", got, want)
		}
	}
	if tail := p.Tail(); len(tail) != 3 {
		t.Errorf("got the tail %q, want three lines", tail)
	}
}

func TestExitCode(t *testing.T) {
	p, _ := run(t, "fail")
	err := p.Err()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("prog (pid %d): exit status 3", p.PID())) {
		t.Errorf("got %v, want exit status 3 of prog", err)
	}
	if tail := p.Tail(); len(tail) != 1 || tail[0] != "cannot go on" {
		t.Errorf("got the tail %q", tail)
	}
}

func TestStop(t *testing.T) {
	p, l := run(t, "obey")
	<-l.seen
	if err := p.Stop(30 * time.Second); err != nil {
		t.Errorf("got %v from one that obeys", err)
	}
	p, l = run(t, "ignore")
	<-l.seen
	if err := p.Stop(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "did not end within 50ms") {
		t.Errorf("got %v from one that does not obey", err)
	}
	p, l = run(t, "ignore")
	<-l.seen
	p.Kill()
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("got %v from one that was killed", err)
	}
}

func TestMissingProgram(t *testing.T) {
	_, err := Start(Program{Name: "x", Path: t.TempDir() + "/apss-agent"})
	if err == nil || !strings.Contains(err.Error(), "run make build") {
		t.Errorf("got %v, want what to do", err)
	}
}

func TestDiesWithItsParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), self)
	parent.Env = []string{"ROLE=parent"}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 20)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the child is not there: %v", err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	deadline := time.After(30 * time.Second)
	for alive(pid) {
		select {
		case <-deadline:
			t.Fatalf("the child, pid %d, outlives its parent", pid)
		case <-time.After(time.Millisecond):
		}
	}
}

// alive is false for a zombie too: whoever adopted it may be slow.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func TestLongLines(t *testing.T) {
	var buf bytes.Buffer
	l := &lines{prefix: "x | ", log: &buf}
	for range 100 {
		if n, err := l.Write(bytes.Repeat([]byte("a"), 1_000)); n != 1_000 || err != nil {
			t.Fatal(n, err)
		}
	}
	_, _ = l.Write([]byte("\nshort\n"))
	if want := "x | " + strings.Repeat("a", maxLine) + "\nx | short\n"; buf.String() != want {
		t.Errorf("got %d bytes, want %d", buf.Len(), len(want))
	}
}
