package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/shared/event"
)

// watch returns a sensor with this machine's baseline; scans are the test's. The test's own children are seen, because
// the sensor takes another pid for its own.
func watch(tb testing.TB, log *slog.Logger) *Sensor {
	tb.Helper()
	s, err := New(Config{Self: -1, Logger: log})
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.open(time.Now()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.close)
	return s
}

// start runs a program until the test ends. It returns after execve, when the arguments are in place: the program is
// there before them.
func start(tb testing.TB, cmd *exec.Cmd) int32 {
	tb.Helper()
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line := fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		if b, err := os.ReadFile(line); err != nil || len(b) > 0 {
			return int32(cmd.Process.Pid)
		}
	}
	tb.Fatal("the program has no arguments")
	return 0
}

// find scans until there is an event of the type and pid that suits.
func find(tb testing.TB, s *Sensor, typ event.Type, pid int32, suits func(*event.Event) bool) *event.Event {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for now := time.Now(); time.Now().Before(deadline); now = now.Add(listEvery) {
		events, _ := s.scan(now)
		for _, e := range events {
			if e.Type == typ && e.Process.PID == pid && suits(e) {
				return e
			}
		}
	}
	tb.Fatalf("no %s of pid %d that suits", typ, pid)
	return nil
}

func anyEvent(*event.Event) bool { return true }

func copyOf(t *testing.T, program string) string {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func sleepProgram(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRealProcesses(t *testing.T) {
	sleep := sleepProgram(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	memfd, err := unix.MemfdCreate("payload", 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(memfd), "memfd")
	defer file.Close()
	program, err := os.Open(sleep)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if _, err := io.Copy(file, program); err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(pair[0]), "socket")
	defer socket.Close()
	defer os.NewFile(uintptr(pair[1]), "other end").Close()
	stdin, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	defer writer.Close()

	for name, tt := range map[string]struct {
		cmd      *exec.Cmd
		after    func(path string)
		want     event.Process
		metadata map[string]any
	}{
		"a binary": {
			cmd:  &exec.Cmd{Path: sleep, Args: []string{"sleep", "100"}, Dir: dir},
			want: event.Process{Exe: sleep, Cmdline: "sleep 100", Args: []string{"sleep", "100"}, Cwd: dir},
		},
		"a script": {
			cmd:  &exec.Cmd{Path: script, Args: []string{script, "x"}, Dir: "/", Stdin: stdin},
			want: event.Process{Exe: shell, Cmdline: "/bin/sh " + script + " x", Args: []string{"/bin/sh", script, "x"}, Cwd: "/"},

			metadata: map[string]any{"script": script},
		},
		"deleted": {
			cmd:   &exec.Cmd{Path: copyOf(t, sleep), Args: []string{"copy", "100"}, Dir: "/"},
			after: func(path string) { _ = os.Remove(path) },
			want:  event.Process{Cmdline: "copy 100", Args: []string{"copy", "100"}, Cwd: "/", ExeDeleted: true},
		},
		"memfd": {
			cmd:  &exec.Cmd{Path: "/proc/self/fd/3", Args: []string{"[kworker]", "100"}, Dir: "/", ExtraFiles: []*os.File{file}},
			want: event.Process{Exe: "/memfd:payload", Cmdline: "[kworker] 100", Args: []string{"[kworker]", "100"}, Cwd: "/", ExeDeleted: true},
		},
		"stdin is a socket": {
			cmd:      &exec.Cmd{Path: shell, Args: []string{"sh"}, Dir: "/", Stdin: socket},
			want:     event.Process{Exe: shell, Cmdline: "sh", Args: []string{"sh"}, Cwd: "/"},
			metadata: map[string]any{"stdio_socket": true},
		},
		"hostile arguments": {
			cmd: &exec.Cmd{Path: shell, Args: []string{"\x1b[2Jsh\n\xff", "-s", "a", "", ""}, Dir: "/", Stdin: stdin},
			want: event.Process{
				Exe: shell, Cmdline: "\x1b[2Jsh\n\xff -s a", Args: []string{"\x1b[2Jsh\n\xff", "-s", "a"}, Cwd: "/",
			},
		},
		"a credential": {
			cmd: &exec.Cmd{Path: shell, Args: []string{"sh", "-s", "--", "--password=hunter2"}, Dir: "/", Stdin: socket},
			want: event.Process{
				Exe: shell, Cmdline: "sh -s -- --password=[redacted]",
				Args: []string{"sh", "-s", "--", "--password=[redacted]"}, Cwd: "/",
			},
			metadata: map[string]any{"stdio_socket": true, "redacted": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := watch(t, nil)
			before := time.Now()
			pid := start(t, tt.cmd)
			if tt.after != nil {
				tt.after(tt.cmd.Path)
			}
			e := find(t, s, event.ProcessExec, pid, anyEvent)
			want := tt.want
			want.PID, want.PPID, want.Capture = pid, int32(os.Getpid()), event.CaptureFull
			if want.Exe == "" {
				want.Exe = tt.cmd.Path
			}
			want.UID = uint32(os.Geteuid())
			unstable := cmpopts.IgnoreFields(event.Process{}, "User", "LoginUID", "SessionID", "StartTime", "Ancestors", "Parent")
			if diff := cmp.Diff(&want, e.Process, unstable); diff != "" {
				t.Errorf("the process differs (-want +got):\n%s", diff)
			}
			if got := e.Process.Parent; got == nil || got.PID != want.PPID || got.Exe != self {
				t.Errorf("got parent %+v, want %d %s", got, want.PPID, self)
			}
			if diff := cmp.Diff(tt.metadata, e.Metadata); diff != "" {
				t.Errorf("metadata differs (-want +got):\n%s", diff)
			}
			// The kernel's clock tick is 10 ms.
			if at := e.Process.StartTime; at.Before(before.Add(-20*time.Millisecond)) || at.After(time.Now()) {
				t.Errorf("got start %v, want it after %v", at, before)
			}
			if diff := cmp.Diff(e.Process, s.Process(pid)); diff != "" {
				t.Errorf("Process(%d) differs (-event +got):\n%s", pid, diff)
			}
			_ = tt.cmd.Process.Kill()
			_ = tt.cmd.Wait()
			exit := find(t, s, event.ProcessExit, pid, anyEvent)
			if diff := cmp.Diff(e.Process, exit.Process); diff != "" {
				t.Errorf("the exit's identity differs (-exec +exit):\n%s", diff)
			}
		})
	}
}

func TestRealExecTwice(t *testing.T) {
	sleep := sleepProgram(t)
	s := watch(t, nil)
	cmd := exec.Command("/bin/sh", "-c", "read x; exec "+sleep+" 100")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pid := start(t, cmd)
	first := find(t, s, event.ProcessExec, pid, anyEvent)
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	second := find(t, s, event.ProcessExec, pid, func(e *event.Event) bool { return e.Process.Exe == sleep })
	if second.Metadata["previous_exe"] != first.Process.Exe || !second.Process.StartTime.Equal(first.Process.StartTime) {
		t.Errorf("got %v after %s, want the same process with another program", second.Metadata, first.Process.Exe)
	}
}

func TestRealAccounting(t *testing.T) {
	s := watch(t, nil)
	const runs = 30
	for i := range runs {
		if err := exec.Command("true").Run(); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			s.scan(time.Now())
		}
	}
	s.scan(time.Now())
	got := s.Stats()
	if seen := got.Full + got.Partial + got.Forks + got.Threads + got.Excluded; got.Created < runs || seen+got.MissedAtMost < runs {
		t.Errorf("of %d processes %d were created and %d seen or missed: %+v", runs, got.Created, seen+got.MissedAtMost, got)
	}
}

// asNobody does work on a thread that gives up its rights and ends with it.
func asNobody(t *testing.T, work func()) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends here
	const nobody = 65534
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
		t.Error(errno)
		return
	}
	work()
}

// What an agent without capabilities sees of root's processes.
func TestRealWithoutPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root is needed to become a user without rights: run the tests as root")
	}
	sleep := sleepProgram(t)
	var log bytes.Buffer
	var wg sync.WaitGroup
	var e *event.Event
	s := watch(t, slog.New(slog.NewTextHandler(&log, nil)))
	pids := []int32{start(t, exec.Command(sleep, "100")), start(t, exec.Command(sleep, "101"))}
	s.dismiss()
	h, err := newHelper(s.read, "/proc")
	if err != nil {
		t.Fatal(err)
	}
	s.helper = h
	wg.Go(func() { asNobody(t, h.run) })
	wg.Go(func() { asNobody(t, func() { e = find(t, s, event.ProcessExec, pids[0], anyEvent) }); s.dismiss() })
	wg.Wait()
	if e == nil {
		t.Fatal("got no event")
	}
	p := e.Process
	if p.Capture != event.CapturePartial || p.Exe != "" || p.Cmdline != sleep+" 100" || p.UID != 0 || p.User != "root" {
		t.Errorf("got %+v, want what anyone may read", p)
	}
	if e.Metadata["comm"] != "sleep" {
		t.Errorf("got metadata %v, want the name", e.Metadata)
	}
	if got := s.Stats(); got.Denied < 2 || strings.Count(log.String(), "may not be read") != 1 {
		t.Errorf("got %d denied, log %q; want at least two, said once", got.Denied, log.String())
	}
}

func TestRun(t *testing.T) {
	s, err := New(Config{Self: -1, Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan *event.Event, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.Run(ctx, func(e *event.Event) {
			select {
			case events <- e:
			case <-ctx.Done(): // others' programs are not waited for
			}
		}, nil)
		if err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	for s.Stats().Scans == 0 {
		runtime.Gosched() // the baseline is taken
	}
	pid := start(t, exec.Command("sleep", "100"))
	for e := range events {
		if e.Process.PID == pid {
			break
		}
	}
	if p := s.Process(pid); p == nil {
		t.Error("Process of a running process = nil")
	}
	cancel()
	wg.Wait()
	if p := s.Process(pid); p != nil {
		t.Errorf("after Run Process = %+v, want nil", p)
	}
}

func TestRunWithoutProcfs(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/does/not/exist"} {
		s, err := New(Config{Proc: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context(), nil, nil); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("Run on %s = %v, want an error that names it", dir, err)
		}
	}
	if _, err := New(Config{Interval: time.Microsecond}); err == nil {
		t.Error("New with an interval of 1µs: got no error")
	}
}
