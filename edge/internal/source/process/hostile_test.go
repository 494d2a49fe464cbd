package process

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/clocktest"
	"github.com/apss-sensor/apss/shared/event"
)

// A clock that is set changes neither an order nor an interval nor a process's identity.
func TestClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			tr := newTree(t, 10, fake{pid: 1, exe: "/init"})
			tr.now = time.Now()
			tr.s.boot = tr.now.Add(-time.Hour)
			tr.scan(0)
			lists := tr.s.Stats().Lists

			tr.cursor(11)
			tr.set(fake{pid: 11, ppid: 1, start: 250, exe: "/first"})
			tr.s.Recent() // takes the first in, for the next scan
			tr.s.listed = time.Now().Add(time.Millisecond)
			tr.now = clocktest.Set(t, tr.s.listed, by) // the clock is set
			tr.cursor(12)
			tr.set(fake{pid: 12, ppid: 11, start: 260, exe: "/second"})
			events := tr.scan(0, "exec 11 /first", "exec 12 /second")
			if got, want := events[1].Process.StartTime.Sub(events[0].Process.StartTime), 10*time.Second/ticks; got != want {
				t.Errorf("the second started %v after the first, want %v", got, want)
			}
			if got := events[1].Process.Parent; got == nil || got.Exe != "/first" {
				t.Errorf("got parent %+v, want the first", got)
			}
			tr.scan(0)
			if got := tr.s.Stats().Lists; by > 0 && got != lists {
				t.Errorf("the pids were listed %d times within a moment, want %d", got, lists)
			}
			before := tr.s.Process(11)
			tr.remove(12)
			tr.scan(listEvery, "exit 12 /second")
			if diff := cmp.Diff(before, tr.s.Process(11)); diff != "" {
				t.Errorf("what goes on to run differs (-before +got):\n%s", diff)
			}
			tr.scan(linger)
			if p := tr.s.Process(12); p != nil {
				t.Errorf("got %+v of what ended %v ago, want nil", p, linger)
			}
		})
	}
}

// The largest argument that the kernel takes, of what breaks terminals, lines and JSON, leaves as one small valid event.
func TestRealHostileArguments(t *testing.T) {
	const longest = 128<<10 - 1 // MAX_ARG_STRLEN with its NUL, execve(2)
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string]string{
		"newlines":      "\r\n",
		"escapes":       "\x1b]0;x\a\x1b[2J",
		"invalid UTF-8": "\xff\xc0\xaf\xed\xa0\x80",
		"runes cut":     "\U0001f600",
		"JSON":          `"},{"\u0000`,
	} {
		t.Run(name, func(t *testing.T) {
			stdin, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			defer writer.Close()
			arg := strings.Repeat(part, longest/len(part)+1)[:longest]
			s := watch(t, nil)
			pid := start(t, &exec.Cmd{Path: shell, Args: []string{part, "-s", "--", arg, arg}, Dir: "/", Stdin: stdin})
			e := find(t, s, event.ProcessExec, pid, anyEvent)
			if e.Process.Capture != event.CapturePartial || e.Metadata["cmdline_truncated"] != true {
				t.Errorf("got capture %s and metadata %v, want a truncated command line said", e.Process.Capture, e.Metadata)
			}
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			// Each rune of the command line is there twice, as 6 bytes at most; ancestors are bounded too.
			const limit = 2*6*maxCmdlineRunes + 6*(maxAncestors+2)*(maxAncestorRunes+unix.PathMax)
			if len(b) > limit || !utf8.Valid(b) || strings.ContainsFunc(string(b), func(r rune) bool { return r < ' ' }) {
				t.Errorf("got %d bytes, want at most %d of UTF-8 without control characters: %.200q", len(b), limit, b)
			}
			var back event.Event
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatalf("the event cannot be read back: %v", err)
			}
			if got := strings.Join(back.Process.Args, " "); got != back.Process.Cmdline || utf8.RuneCountInString(got) > maxCmdlineRunes+maxArgs {
				t.Errorf("got %d runes of arguments and %d of command line, want the same", len(got), len(back.Process.Cmdline))
			}
		})
	}
}

// inNamespace is set where the test runs as the first process of a pid namespace.
const inNamespace = "PROCESS_TEST_PID_NAMESPACE"

// Pids that wrap are counted as what they are, and a pid that is used anew is another process.
func TestRealPIDsWrap(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Run("wrap", wrapPIDs)
		t.Run("reuse", reusePID)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("root is needed to choose the next pid: run the tests as root")
	}
	flags := uintptr(unix.CLONE_NEWPID | unix.CLONE_NEWNS)
	probe := exec.Command("/bin/true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := probe.Run(); err != nil {
		t.Skipf("namespaces cannot be made here: %v: run the tests with CAP_SYS_ADMIN", err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRealPIDsWrap$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), "--- PASS") != 3 {
		t.Errorf("%v:\n%s", err, out)
	}
}

// lastPID makes the kernel go on after pid; threads of the test may take the ones that follow.
func lastPID(t *testing.T, pid int32) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, pid), 0); err != nil {
		t.Fatal(err)
	}
}

func wrapPIDs(t *testing.T) {
	s := watch(t, nil)
	lastPID(t, s.pidMax-4)
	s.scan(time.Now()) // which passes all pids up to there
	before := s.Stats()
	var pids []int32
	for len(pids) < 2 || pids[len(pids)-1] > pids[len(pids)-2] {
		if len(pids) == 100 {
			t.Fatalf("got pids %v, want them to wrap", pids)
		}
		pids = append(pids, start(t, exec.Command("sleep", "100")))
	}
	events, _ := s.scan(time.Now())
	told := make(map[int32]int)
	for _, e := range events {
		told[e.Process.PID]++
	}
	for _, pid := range pids {
		if told[pid] != 1 {
			t.Errorf("%d events of pid %d, want 1", told[pid], pid)
		}
	}
	// From the wrap the kernel goes on at RESERVED_PIDS; the rest are the test's threads.
	got := s.Stats()
	if n, most := got.Created-before.Created, uint64(len(pids)+50); n < uint64(len(pids)) || n > most {
		t.Errorf("created %d, want %d to %d", n, len(pids), most)
	}
}

func reusePID(t *testing.T) {
	s := watch(t, nil)
	first := exec.Command("sleep", "100")
	pid := start(t, first)
	one := find(t, s, event.ProcessExec, pid, anyEvent).Process
	_ = first.Process.Kill()
	_ = first.Wait()
	for tick := time.NewTicker(20 * time.Millisecond); ; { // so that the kernel's tick of 10 ms tells them apart
		<-tick.C
		lastPID(t, pid-1)
		if start(t, exec.Command("sleep", "101")) == pid {
			tick.Stop()
			break
		}
	}
	var got []string
	for _, e := range func() []*event.Event { events, _ := s.scan(time.Now().Add(listEvery)); return events }() {
		if e.Process.PID == pid {
			got = append(got, fmt.Sprint(e.Type, " ", e.Process.Cmdline))
			if e.Type == event.ProcessExit && !e.Process.StartTime.Equal(one.StartTime) {
				t.Errorf("what started at %v ended, want what started at %v", e.Process.StartTime, one.StartTime)
			}
			if e.Type == event.ProcessExec && !e.Process.StartTime.After(one.StartTime) {
				t.Errorf("the second started at %v, want it after %v", e.Process.StartTime, one.StartTime)
			}
		}
	}
	if diff := cmp.Diff([]string{"process_exit sleep 100", "process_exec sleep 101"}, got); diff != "" {
		t.Errorf("events of pid %d differ (-want +got):\n%s", pid, diff)
	}
}
