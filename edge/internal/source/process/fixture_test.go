package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

// fake is one process of a fixture tree.
type fake struct {
	pid, ppid  int
	comm       string // "x" when empty
	state      string // "S" when empty
	flags      int
	start      int
	stack      int
	exitSignal int // 17 when 0
	threads    int // 1 when 0
	exe        string
	cmdline    string // "x" when empty and there is an exe, none when "-"
	uid        string // "1000" when empty, no status file when "-"
}

// tree is a fixture of procfs with a sensor on it.
type tree struct {
	t   *testing.T
	dir string
	s   *Sensor
	now time.Time
}

func newTree(t *testing.T, cursor int, procs ...fake) *tree {
	t.Helper()
	tr := &tree{t: t, dir: t.TempDir(), now: time.Unix(1000, 0)}
	tr.write("sys/kernel/pid_max", "1000\n")
	tr.write("passwd", "bob:x:1000:1000::/:/bin/sh\n")
	tr.cursor(cursor)
	for _, p := range procs {
		tr.set(p)
	}
	s, err := New(Config{Proc: tr.dir, Passwd: filepath.Join(tr.dir, "passwd"), Self: 900})
	if err != nil {
		t.Fatal(err)
	}
	s.boot = time.Unix(0, 0)
	if err := s.open(tr.now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	tr.s = s
	return tr
}

func (tr *tree) write(path, content string) {
	tr.t.Helper()
	path = filepath.Join(tr.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) cursor(pid int) { tr.write("loadavg", fmt.Sprintf("0.00 0.00 0.00 1/93 %d\n", pid)) }

func (tr *tree) set(p fake) {
	tr.t.Helper()
	tr.remove(p.pid)
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	if p.exitSignal == 0 {
		p.exitSignal = 17
	}
	dir := fmt.Sprint(p.pid)
	tr.write(dir+"/stat", fmt.Sprintf("%d (%s) %s %d 1 1 0 -1 %d 0 0 0 0 0 0 0 0 20 0 %d 0 %d 0 0 0 1 1 %d 0 0 0 0 0 0 0 0 0 %d 0",
		p.pid, or(p.comm, "x"), or(p.state, "S"), p.ppid, p.flags, max(1, p.threads), p.start, p.stack, p.exitSignal))
	if p.cmdline == "" && p.exe != "" {
		p.cmdline = "x"
	}
	tr.write(dir+"/cmdline", strings.TrimPrefix(p.cmdline, "-"))
	if p.uid != "-" {
		tr.write(dir+"/status", "Name:\tx\nUid:\t1000\t"+or(p.uid, "1000")+"\t0\t0\n")
	}
	if p.exe != "" {
		if err := os.Symlink(p.exe, filepath.Join(tr.dir, dir, "exe")); err != nil {
			tr.t.Fatal(err)
		}
	}
}

func (tr *tree) remove(pid int) {
	tr.t.Helper()
	if err := os.RemoveAll(filepath.Join(tr.dir, fmt.Sprint(pid))); err != nil {
		tr.t.Fatal(err)
	}
}

// scan lets d pass, scans and compares what happened, each as "exec 7 /bin/x".
func (tr *tree) scan(d time.Duration, want ...string) []*event.Event {
	tr.t.Helper()
	tr.now = tr.now.Add(d)
	events, _ := tr.s.scan(tr.now)
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s %d %s", strings.TrimPrefix(string(e.Type), "process_"), e.Process.PID, e.Process.Exe))
	}
	if !slices.Equal(got, want) {
		tr.t.Errorf("a scan shows %q, want %q", got, want)
	}
	return events
}

const (
	soon  = 100 * time.Millisecond
	later = 5 * time.Second // a list; all processes of a fixture stay young or are looked at within four
)

func TestExecAndExit(t *testing.T) {
	tr := newTree(t, 10, fake{pid: 1, exe: "/init", cmdline: "init"}, fake{pid: 5, ppid: 1, exe: "/bin/sh", cmdline: "sh"})
	tr.scan(soon)
	tr.cursor(12)
	tr.set(fake{pid: 12, ppid: 11, start: 250, exe: "/bin/ls", cmdline: "ls\x00-l\x00"})
	tr.set(fake{pid: 11, ppid: 5, start: 200, exe: "/bin/dash (deleted)", cmdline: "dash\x00", uid: "0"})
	events := tr.scan(soon, "exec 11 /bin/dash", "exec 12 /bin/ls")
	want := &event.Process{
		PID: 12, PPID: 11, Exe: "/bin/ls", Cmdline: "ls -l", Args: []string{"ls", "-l"}, UID: 1000, User: "bob",
		LoginUID: event.UnknownID, SessionID: event.UnknownID, StartTime: time.Unix(2, 5e8).UTC(), Capture: event.CaptureFull,
		Parent:    &event.Ancestor{PID: 11, Exe: "/bin/dash", Cmdline: "dash"},
		Ancestors: []event.Ancestor{{PID: 5, Exe: "/bin/sh", Cmdline: "sh"}, {PID: 1, Exe: "/init", Cmdline: "init"}},
	}
	if diff := cmp.Diff(want, events[1].Process); diff != "" {
		t.Errorf("the child differs (-want +got):\n%s", diff)
	}
	if p := events[0].Process; !p.ExeDeleted || p.UID != 0 || p.User != "" {
		t.Errorf("got deleted %t, uid %d %q; want deleted, root without a name", p.ExeDeleted, p.UID, p.User)
	}
	if diff := cmp.Diff(map[string]any{"real_uid": int64(1000)}, events[0].Metadata); diff != "" {
		t.Errorf("metadata differs (-want +got):\n%s", diff)
	}

	tr.remove(11)
	tr.remove(12)
	events = tr.scan(later, "exit 11 /bin/dash", "exit 12 /bin/ls")
	if diff := cmp.Diff(want, events[1].Process); diff != "" {
		t.Errorf("the exit's identity differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, tr.s.Process(12)); diff != "" {
		t.Errorf("a process that just ended is not known any more (-want +got):\n%s", diff)
	}
	tr.remove(5) // of the baseline
	tr.scan(later)
	tr.scan(2 * later)
	tr.scan(2 * later)
	if got := len(tr.s.tree); got != 1 {
		t.Errorf("%d processes are kept, want 1", got)
	}
}

func TestExitedGrandparentIsNamed(t *testing.T) {
	tr := newTree(t, 10, fake{pid: 1, exe: "/init"})
	tr.cursor(12)
	tr.set(fake{pid: 11, ppid: 1, exe: "/a"})
	tr.set(fake{pid: 12, ppid: 11, exe: "/b"})
	tr.scan(soon, "exec 11 /a", "exec 12 /b")
	tr.remove(11)
	tr.set(fake{pid: 12, ppid: 1, exe: "/b"}) // reparented
	tr.scan(later, "exit 11 /a")
	tr.scan(4 * later)
	tr.cursor(13)
	tr.set(fake{pid: 13, ppid: 12, start: 1, exe: "/c"})
	got := tr.scan(soon, "exec 13 /c")[0].Process
	want := []event.Ancestor{{PID: 11, Exe: "/a", Cmdline: "x"}, {PID: 1, Exe: "/init", Cmdline: "x"}}
	if diff := cmp.Diff(want, got.Ancestors); diff != "" {
		t.Errorf("ancestors differ (-want +got):\n%s", diff)
	}
}

func TestAncestorsAreBounded(t *testing.T) {
	var procs []fake
	for pid := 1; pid <= 20; pid++ {
		procs = append(procs, fake{pid: pid, ppid: pid - 1, exe: fmt.Sprintf("/%d", pid), cmdline: strings.Repeat("é", 500)})
	}
	tr := newTree(t, 20, procs...)
	tr.cursor(21)
	tr.set(fake{pid: 21, ppid: 20, exe: "/x"})
	p := tr.scan(soon, "exec 21 /x")[0].Process
	if len(p.Ancestors) != maxAncestors || p.Ancestors[0].PID != 19 || p.Parent.Cmdline != strings.Repeat("é", maxAncestorRunes) {
		t.Errorf("got %d ancestors, first %d", len(p.Ancestors), p.Ancestors[0].PID)
	}
}

func TestWhatHasNoEvent(t *testing.T) {
	tr := newTree(t, 10, fake{pid: 1, exe: "/init"}, fake{pid: 2, flags: flagKernelThread}, fake{pid: 900, ppid: 1, exe: "/agent"})
	tr.cursor(16)
	tr.set(fake{pid: 11, ppid: 2, flags: flagKernelThread})
	tr.set(fake{pid: 12, ppid: 900, exe: "/agent/child"})
	tr.set(fake{pid: 13, ppid: 12, exe: "/agent/grandchild"})
	tr.set(fake{pid: 14, ppid: 1, exe: "/a/thread", exitSignal: -1})
	tr.set(fake{pid: 15, ppid: 1, exe: "/a/fork", flags: flagForkNoExec})
	tr.scan(soon)
	got := tr.s.Stats()
	want := Stats{Created: 6, Threads: 1, Excluded: 3, Forks: 1, MissedAtMost: 1, Processes: 7, Mechanism: Polling, Scans: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stats differ (-want +got):\n%s", diff)
	}
	if p := tr.s.Process(2); p != nil {
		t.Errorf("Process of a kernel thread = %+v, want nil", p)
	}
	for _, pid := range []int{11, 12, 13, 14, 15} {
		tr.remove(pid)
	}
	tr.scan(later)
}

func TestNewProgramInAProcess(t *testing.T) {
	const pid = 11
	old := fake{pid: pid, ppid: 1, comm: "sh", stack: 1, exe: "/bin/sh", cmdline: "sh\x00-c\x00exec nc\x00"}
	change := func(f func(*fake)) fake { p := old; f(&p); return p }
	for name, tt := range map[string]struct {
		before, after fake
		want          []string
	}{
		"execve":            {old, change(func(p *fake) { p.stack, p.comm, p.exe, p.cmdline = 2, "nc", "/bin/nc", "nc" }), []string{"exec 11 /bin/nc"}},
		"execve, same":      {old, change(func(p *fake) { p.stack = 2 }), []string{"exec 11 /bin/sh"}},
		"renames itself":    {old, change(func(p *fake) { p.comm, p.cmdline = "other", "other" }), nil},
		"stack is hidden":   {change(func(p *fake) { p.stack = 0 }), change(func(p *fake) { p.stack, p.comm, p.exe, p.cmdline = 0, "nc", "/bin/nc", "nc" }), []string{"exec 11 /bin/nc"}},
		"hidden, renamed":   {change(func(p *fake) { p.stack = 0 }), change(func(p *fake) { p.stack, p.comm = 0, "other" }), nil},
		"pid is reused":     {old, change(func(p *fake) { p.start, p.exe = 7, "/bin/ls" }), []string{"exit 11 /bin/sh", "exec 11 /bin/ls"}},
		"ended, not reaped": {old, fake{pid: pid, ppid: 1, comm: "sh", state: "Z"}, []string{"exit 11 /bin/sh"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t, 10, fake{pid: 1, exe: "/init"})
			tr.cursor(11)
			tr.set(tt.before)
			tr.scan(soon, "exec 11 /bin/sh")
			tr.set(tt.after)
			events := tr.scan(listEvery, tt.want...)
			if name == "execve" && events[0].Metadata["previous_exe"] != "/bin/sh" {
				t.Errorf("got metadata %v, want the previous executable", events[0].Metadata)
			}
			for range 20 { // never twice
				tr.scan(listEvery)
			}
		})
	}
}

func TestForkThenExec(t *testing.T) {
	tr := newTree(t, 10, fake{pid: 1, exe: "/bin/sh"})
	tr.cursor(11)
	tr.set(fake{pid: 11, ppid: 1, flags: flagForkNoExec, exe: "/bin/sh", cmdline: "sh"})
	tr.scan(soon)
	tr.now = tr.now.Add(soon)
	if _, next := tr.s.scan(tr.now); next != tr.s.config.Interval {
		t.Errorf("an old fork is looked at after %v, want %v", next, tr.s.config.Interval)
	}
	tr.set(fake{pid: 11, ppid: 1, exe: "/bin/ls", cmdline: "ls"})
	events := tr.scan(soon, "exec 11 /bin/ls")
	if _, found := events[0].Metadata["previous_exe"]; found {
		t.Error("the program of the parent is said to have run in the child")
	}
	tr.cursor(12)
	tr.set(fake{pid: 12, ppid: 1, flags: flagForkNoExec, exe: "/bin/sh"})
	tr.now = tr.now.Add(soon)
	if _, next := tr.s.scan(tr.now); next != forkEvery {
		t.Errorf("a new fork is looked at after %v, want %v", next, forkEvery)
	}
}

// The kernel makes a program visible in steps.
// A fork that serves is asked for with each of its connections: it is read once, until it runs a program.
func TestForkThatIsAskedFor(t *testing.T) {
	tr := newTree(t, 10, fake{pid: 1, ppid: 0, exe: "/init"}, fake{pid: 20, ppid: 1, flags: flagForkNoExec, start: 50, stack: 1, exe: "/server"})
	ask := func() string { return tr.s.Process(20).Exe }
	if got := ask(); got != "/server" {
		t.Fatalf("got %q, want /server", got)
	}
	tr.set(fake{pid: 20, ppid: 1, flags: flagForkNoExec, start: 50, stack: 1, exe: "/changed"})
	if got := ask(); got != "/server" {
		t.Errorf("asked again: got %q, want what was read before", got)
	}
	tr.set(fake{pid: 20, ppid: 1, start: 50, stack: 2, exe: "/program"})
	if got := ask(); got != "/program" {
		t.Errorf("after its execve: got %q, want /program", got)
	}
}

func TestExecInTheMaking(t *testing.T) {
	const at = forkEvery
	tr := newTree(t, 10, fake{pid: 1, exe: "/init"})
	tr.cursor(12)
	tr.set(fake{pid: 11, ppid: 1, exe: "/bin/ls", cmdline: "-", stack: 1})
	tr.set(fake{pid: 12, ppid: 1, start: 1, exe: "/bin/cut", cmdline: "-", stack: 1})
	tr.scan(soon)
	tr.set(fake{pid: 11, ppid: 1, exe: "/bin/ls", cmdline: "ls", stack: 1})
	got := tr.scan(at, "exec 11 /bin/ls")[0]
	if got.Process.Capture != event.CaptureFull || got.Process.Cmdline != "ls" || got.Metadata != nil {
		t.Errorf("got %+v, %v", got.Process, got.Metadata)
	}
	tr.set(fake{pid: 11, ppid: 1, exe: "/bin/ls", cmdline: "ls", stack: 2})
	tr.cursor(11) // a whole turn, so that all are looked at
	tr.scan(at)
	tr.remove(12)
	got = tr.scan(later, "exec 12 /bin/cut", "exit 12 /bin/cut")[0]
	if got.Process.Capture != event.CapturePartial {
		t.Errorf("got capture %s of what had no arguments yet, want partial", got.Process.Capture)
	}
}

func TestPartial(t *testing.T) {
	tr := newTree(t, 10, fake{pid: 1, exe: "/init"})
	tr.cursor(13)
	tr.set(fake{pid: 11, ppid: 1, comm: "gone", state: "Z", uid: "-"})
	tr.set(fake{pid: 12, ppid: 1, start: 1, exe: "/bin/long", cmdline: strings.Repeat("x", maxCmdlineRunes+1)})
	tr.set(fake{pid: 13, ppid: 1, start: 2, exe: "/bin/noargs", cmdline: "-"})
	events := tr.scan(soon, "exec 11 ", "exec 12 /bin/long")
	events = append(events, tr.scan(soon, "exec 13 /bin/noargs")[0])
	for i, want := range []event.Capture{event.CapturePartial, event.CapturePartial, event.CaptureFull} {
		if got := events[i].Process.Capture; got != want {
			t.Errorf("%s: got capture %s, want %s", events[i].Process.Exe, got, want)
		}
	}
	if got := events[0]; got.Process.UID != event.UnknownID || got.Metadata["comm"] != "gone" {
		t.Errorf("got uid %d, metadata %v of one that could not be read", got.Process.UID, got.Metadata)
	}
	if events[1].Metadata["cmdline_truncated"] != true {
		t.Errorf("got metadata %v, want the truncation said", events[1].Metadata)
	}
}

func TestAccounting(t *testing.T) {
	tr := newTree(t, 990, fake{pid: 1, exe: "/init"}, fake{pid: 998, ppid: 1, exe: "/old"})
	tr.cursor(301) // passed 991..999 and 300, 301
	tr.set(fake{pid: 998, ppid: 1, start: 5, exe: "/new"})
	tr.set(fake{pid: 300, ppid: 998, start: 6, exe: "/b"})
	tr.scan(soon, "exec 998 /new", "exec 300 /b")
	if got := tr.s.Stats(); got.Created != 11 || got.MissedAtMost != 9 {
		t.Errorf("after a wrap: created %d, missed at most %d; want 11, 9", got.Created, got.MissedAtMost)
	}
	// Seen in a list before the cursor is read: counted once.
	tr.set(fake{pid: 302, ppid: 1, start: 7, exe: "/c"})
	tr.scan(listEvery, "exec 302 /c")
	tr.cursor(302)
	tr.scan(soon)
	if got := tr.s.Stats(); got.Created != 12 || got.MissedAtMost != 9 {
		t.Errorf("after a list: created %d, missed at most %d; want 12, 9", got.Created, got.MissedAtMost)
	}
}

func TestManyNewPIDs(t *testing.T) {
	tr := newTree(t, 300, fake{pid: 1, exe: "/init"}, fake{pid: 310, ppid: 1, exe: "/old"})
	tr.write("sys/kernel/pid_max", "100000\n")
	tr.set(fake{pid: 310, ppid: 1, start: 5, exe: "/new"})
	tr.set(fake{pid: 9000, ppid: 1, start: 6, exe: "/b"})
	tr.cursor(9000)
	tr.scan(soon, "exec 310 /new", "exec 9000 /b")
	if got := tr.s.Stats(); got.Created != 8700 || got.MissedAtMost != 8698 {
		t.Errorf("created %d, missed at most %d; want 8700, 8698", got.Created, got.MissedAtMost)
	}
}

func TestCursorThatSaysNothing(t *testing.T) {
	tr := newTree(t, 0, fake{pid: 1, exe: "/init"})
	for i := range 3 {
		exe := fmt.Sprintf("/%d", i)
		tr.set(fake{pid: 11 + i, ppid: 1, start: i, exe: exe})
		tr.scan(listEvery, fmt.Sprintf("exec %d %s", 11+i, exe))
	}
	tr.set(fake{pid: 20, ppid: 1, start: 9, exe: "/fast"})
	tr.scan(soon, "exec 20 /fast")
	if got := tr.s.Stats(); !got.CursorBlind || got.Full != 4 {
		t.Errorf("got %+v, want a blind cursor and four processes", got)
	}
}
