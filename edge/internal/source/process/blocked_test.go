package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/hungfs"
	"github.com/apss-sensor/apss/shared/event"
)

// hanging starts a process whose memory is locked, in a mount namespace of its own.
func hanging(t *testing.T, fs *hungfs.FS) int32 {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{"PROCESS_TEST_HANG=" + fs.File, "PATH=/usr/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		fs.Release()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	within(t, "it hangs", func() bool { return hungfs.Holds(cmd.Process.Pid) })
	return int32(cmd.Process.Pid)
}

// A process whose command line and environment nobody can read is told of without them, and holds up nobody: neither
// when the sensor starts nor later.
func TestMemoryThatHangs(t *testing.T) {
	for _, mechanism := range Mechanisms() {
		t.Run(mechanism, func(t *testing.T) {
			fs := hungfs.Mount(t)
			before := hanging(t, fs)
			s, err := New(Config{Self: -1, Mechanisms: []string{mechanism}, Interval: 20 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			events, done := make(chan *event.Event, 1<<16), make(chan error, 1)
			go func() { done <- s.Run(ctx, func(e *event.Event) { events <- e }, nil) }()
			within(t, "it watches", func() bool { return s.Watching() == nil })
			if st := s.Stats(); st.Mechanism != mechanism {
				t.Skipf("%s is refused here: %v; run as root in the first namespaces", mechanism, st.Refused)
			}
			if p := s.Process(before); p == nil || p.Cmdline != "" || p.Exe == "" || p.Capture != event.CapturePartial {
				t.Errorf("got %v, want it in part, with its executable", p)
			}
			if st := s.Stats(); st.Blocked == 0 || st.HeldUp == 0 {
				t.Errorf("got %+v, want that a process holds up its readers", st)
			}
			program := copyOf(t, "/bin/sleep")
			pid := start(t, exec.Command(program, "30"))
			deadline := time.After(30 * time.Second)
			for found := false; !found; {
				select {
				case e := <-events:
					found = e.Type == event.ProcessExec && e.Process.PID == pid
				case <-deadline:
					t.Fatalf("no event of another process: %+v", s.Stats())
				}
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			fs.Release()
			within(t, "its readers come back", func() bool { return s.Stats().Blocked == 0 })
		})
	}
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: never", what)
		}
	}
}

// reads is a mechanism that reads one process.
type reads struct {
	polling
	at   *busy
	read *reader
	pid  int32
}

func (r *reads) busy() *busy { return r.at }

func (r *reads) run(ctx context.Context, _ func()) error {
	r.at.begin(r.pid)
	_, _ = r.read.readProgram(r.pid)
	r.at.end()
	<-ctx.Done()
	return nil
}

// A mechanism's goroutine that is held up is left behind.
func TestMechanismThatHangs(t *testing.T) {
	fs := hungfs.Mount(t)
	pid := hanging(t, fs)
	s := watch(t, nil)
	if !s.blocked.has(pid) {
		t.Fatal("the baseline was read whole")
	}
	s.config.Interval = 20 * time.Millisecond
	r, err := newReader("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	s.mechanism = &reads{at: &busy{}, read: r, pid: pid} // with a reader that does not know
	if err := s.watch(t.Context(), func(*event.Event) {}); !errors.Is(err, errHeldUp) {
		t.Errorf("got %v, want %v", err, errHeldUp)
	}
	if now, ever := s.blocked.stats(); now != 2 || ever != 2 {
		t.Errorf("got %d and %d readers held up, want 2", now, ever)
	}
	fs.Release()
	within(t, "they come back", func() bool { now, _ := s.blocked.stats(); return now == 0 && !s.blocked.has(pid) })
}

func TestBlocked(t *testing.T) {
	var b blocked
	over := make(chan struct{})
	if b.has(1) {
		t.Error("a process blocks before any was read")
	}
	b.add(1, over)
	if !b.has(1) || b.has(2) {
		t.Errorf("got %v and %v, want that 1 blocks and 2 does not", b.has(1), b.has(2))
	}
	if b.forget(1); b.has(1) {
		t.Error("a process that ended blocks")
	}
	for pid := range int32(maxBlocked) {
		b.add(pid+10, over)
	}
	if !b.has(2) {
		t.Error("with so many waiting one more is read")
	}
	close(over)
	within(t, "all come back", func() bool { now, _ := b.stats(); return now == 0 })
	if _, ever := b.stats(); b.has(10) || ever != maxBlocked+1 {
		t.Errorf("got %v and %d, want nobody blocking and %d counted", b.has(10), ever, maxBlocked+1)
	}
}
