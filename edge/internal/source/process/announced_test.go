package process

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/source/process/connector"
	"github.com/apss-sensor/apss/shared/event"
)

// announce returns a fixture whose kernel announces, and what does so. All happens at one tick; sensor's boot is tick 0.
func announce(t *testing.T, procs ...fake) (*tree, func(connector.Event)) {
	t.Helper()
	tr := newTree(t, 10, procs...)
	read, err := newReader(tr.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(read.close)
	a := &announced{read: read, at: &busy{}}
	tr.s.mechanism = a
	tr.scan(0)
	return tr, func(e connector.Event) {
		e.TGID = cmp.Or(e.TGID, e.PID)
		if e.At.IsZero() {
			e.At = time.Unix(1, 0)
		}
		a.note(e, 0)
	}
}

func fork(pid, parent int32) connector.Event {
	return connector.Event{Kind: connector.Fork, PID: pid, Parent: parent}
}
func execve(pid int32) connector.Event { return connector.Event{Kind: connector.Exec, PID: pid} }
func exited(pid int32, status uint32) connector.Event {
	return connector.Event{Kind: connector.Exit, PID: pid, Status: status}
}

var shell = fake{pid: 5, ppid: 1, exe: "/bin/sh", cmdline: "sh"}

func TestAnnouncedLife(t *testing.T) {
	tr, say := announce(t, fake{pid: 1, exe: "/init", cmdline: "init"}, shell)
	say(fork(11, 5))
	tr.set(fake{pid: 11, ppid: 5, start: 99, stack: 1, exe: "/bin/ls", cmdline: "ls\x00-l\x00"}) // a tick before the fork was announced
	say(execve(11))
	tr.remove(11)
	say(exited(11, 3<<8))
	events := tr.scan(soon, "exec 11 /bin/ls", "exit 11 /bin/ls")
	want := &event.Process{
		PID: 11, PPID: 5, Exe: "/bin/ls", Cmdline: "ls -l", Args: []string{"ls", "-l"}, UID: 1000, User: "bob",
		LoginUID: event.UnknownID, SessionID: event.UnknownID, StartTime: time.Unix(0, 99e7).UTC(), Capture: event.CaptureFull,
		Parent:    &event.Ancestor{PID: 5, Exe: "/bin/sh", Cmdline: "sh"},
		Ancestors: []event.Ancestor{{PID: 1, Exe: "/init", Cmdline: "init"}},
	}
	for _, e := range events {
		if diff := gocmp.Diff(want, e.Process); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", e.Type, diff)
		}
		if !e.Timestamp.Equal(time.Unix(1, 0)) {
			t.Errorf("%s is said to be of %v", e.Type, e.Timestamp)
		}
	}
	if diff := gocmp.Diff(map[string]any{"exit_code": int64(3)}, events[1].Metadata); diff != "" {
		t.Errorf("the exit's metadata differs (-want +got):\n%s", diff)
	}
	got := tr.s.Stats()
	if got.Created != 1 || got.MissedAtMost != 0 || got.Full != 1 || got.Exits != 1 || got.Forks != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestAnnounced(t *testing.T) {
	for name, tt := range map[string]struct {
		do    func(tr *tree, say func(connector.Event))
		want  []string
		check func(t *testing.T, events []*event.Event, st Stats)
	}{
		"gone before it was read": {
			func(_ *tree, say func(connector.Event)) { say(fork(11, 5)); say(execve(11)); say(exited(11, 9)) },
			[]string{"exec 11 ", "exit 11 "},
			func(t *testing.T, events []*event.Event, st Stats) {
				t.Helper()
				p := events[0].Process
				if p.Capture != event.CapturePartial || p.PPID != 5 || p.Parent.Exe != "/bin/sh" || p.UID != event.UnknownID || st.Partial != 1 {
					t.Errorf("got %+v", p)
				}
				if diff := gocmp.Diff(map[string]any{"exit_signal": int64(9)}, events[1].Metadata); diff != "" {
					t.Errorf("the exit's metadata differs (-want +got):\n%s", diff)
				}
			},
		},
		"a zombie tells its name and user": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(11, 5))
				tr.set(fake{pid: 11, ppid: 5, start: 100, state: "Z", comm: "nc"})
				say(execve(11))
			},
			[]string{"exec 11 "},
			func(t *testing.T, events []*event.Event, _ Stats) {
				t.Helper()
				if e := events[0]; e.Metadata["comm"] != "nc" || e.Process.UID != 1000 || e.Process.Capture != event.CapturePartial {
					t.Errorf("got %+v, %v", e.Process, e.Metadata)
				}
			},
		},
		"a fork that runs no program": {
			func(_ *tree, say func(connector.Event)) { say(fork(11, 5)); say(exited(11, 0)) }, nil,
			func(t *testing.T, _ []*event.Event, st Stats) {
				t.Helper()
				if st.Created != 1 || st.Forks != 1 || st.MissedAtMost != 0 {
					t.Errorf("got %+v", st)
				}
			},
		},
		"a fork's child is named by what its parent was": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(11, 5))
				say(fork(12, 11))
				tr.set(fake{pid: 12, ppid: 11, start: 100, exe: "/bin/ls"})
				say(execve(12))
			},
			[]string{"exec 12 /bin/ls"},
			func(t *testing.T, events []*event.Event, _ Stats) {
				t.Helper()
				want := &event.Ancestor{PID: 11, Exe: "/bin/sh", Cmdline: "sh"}
				if diff := gocmp.Diff(want, events[0].Process.Parent); diff != "" {
					t.Errorf("the parent differs (-want +got):\n%s", diff)
				}
			},
		},
		"two programs": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(11, 5))
				tr.set(fake{pid: 11, ppid: 5, start: 100, stack: 1, exe: "/bin/env"})
				say(execve(11))
				tr.set(fake{pid: 11, ppid: 5, start: 100, stack: 2, exe: "/bin/ls"})
				say(execve(11))
			},
			[]string{"exec 11 /bin/env", "exec 11 /bin/ls"},
			func(t *testing.T, events []*event.Event, _ Stats) {
				t.Helper()
				if events[0].Metadata != nil || events[1].Metadata["previous_exe"] != "/bin/env" {
					t.Errorf("got %v and %v", events[0].Metadata, events[1].Metadata)
				}
			},
		},
		"two programs, the first one read too late": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(11, 5))
				tr.set(fake{pid: 11, ppid: 5, start: 100, stack: 2, exe: "/bin/ls"})
				say(execve(11))
				say(execve(11))
			},
			[]string{"exec 11 ", "exec 11 /bin/ls"}, nil,
		},
		"threads": {
			func(_ *tree, say func(connector.Event)) {
				say(connector.Event{Kind: connector.Fork, PID: 11, TGID: 12, Parent: 1})
			},
			nil,
			func(t *testing.T, _ []*event.Event, st Stats) {
				t.Helper()
				if st.Created != 1 || st.Threads != 1 || st.MissedAtMost != 0 {
					t.Errorf("got %+v", st)
				}
			},
		},
		"a thread group outlives its first thread": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(11, 5))
				tr.set(fake{pid: 11, ppid: 5, start: 100, exe: "/bin/app", threads: 2})
				say(execve(11))
				say(connector.Event{Kind: connector.Fork, PID: 12, TGID: 11, Parent: 5})
				say(exited(11, 0))
			},
			[]string{"exec 11 /bin/app"}, nil,
		},
		"a thread calls execve": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(11, 5))
				tr.set(fake{pid: 11, ppid: 5, start: 100, stack: 1, exe: "/bin/app", threads: 2})
				say(execve(11))
				say(connector.Event{Kind: connector.Fork, PID: 12, TGID: 11, Parent: 5})
				say(exited(11, 0)) // the first thread, which the other one replaces
				tr.set(fake{pid: 11, ppid: 5, start: 100, stack: 2, exe: "/bin/ls"})
				say(execve(11))
			},
			[]string{"exec 11 /bin/app", "exec 11 /bin/ls"},
			func(t *testing.T, events []*event.Event, st Stats) {
				t.Helper()
				if events[1].Metadata["previous_exe"] != "/bin/app" || st.Exits != 0 {
					t.Errorf("got %v and %d exits, want what it ran before and no exit", events[1].Metadata, st.Exits)
				}
			},
		},
		"a pid whose exit was lost": {
			func(tr *tree, say func(connector.Event)) {
				tr.remove(5)
				say(connector.Event{Kind: connector.Fork, PID: 5, Parent: 1})
				tr.set(fake{pid: 5, ppid: 1, start: 100, exe: "/bin/new"})
				say(execve(5))
			},
			[]string{"exec 5 /bin/new"}, nil,
		},
		"an exec whose fork was lost": {
			func(tr *tree, say func(connector.Event)) {
				tr.set(fake{pid: 11, ppid: 5, start: 50, exe: "/bin/ls"})
				say(execve(11))
			},
			[]string{"exec 11 /bin/ls"}, nil,
		},
		"ours": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(900, 1))
				say(fork(901, 900))
				tr.set(fake{pid: 901, ppid: 900, start: 100, exe: "/agent/child"})
				say(execve(901))
				say(exited(901, 0))
			},
			nil,
			func(t *testing.T, _ []*event.Event, st Stats) {
				t.Helper()
				if st.Excluded != 2 || st.MissedAtMost != 0 {
					t.Errorf("got %+v", st)
				}
			},
		},
		"a kernel thread's helper": {
			func(tr *tree, say func(connector.Event)) {
				say(fork(11, 2))
				say(fork(12, 2))
				tr.set(fake{pid: 12, ppid: 2, start: 100, exe: "/sbin/modprobe"})
				say(execve(12))
			},
			[]string{"exec 12 /sbin/modprobe"}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr, say := announce(t, fake{pid: 1, exe: "/init"}, fake{pid: 2, flags: flagKernelThread}, shell)
			tt.do(tr, say)
			events := tr.scan(soon, tt.want...)
			if tt.check != nil && len(events) == len(tt.want) {
				tt.check(t, events, tr.s.Stats())
			}
			for range 3 { // never twice
				if events, _ := tr.s.scan(tr.now); len(events) > 0 {
					t.Errorf("another scan shows %d events", len(events))
				}
			}
		})
	}
}

func TestAnnouncementsLost(t *testing.T) {
	tr, say := announce(t, fake{pid: 1, exe: "/init"}, shell)
	a := tr.s.mechanism.(*announced)
	tr.set(fake{pid: 11, ppid: 5, start: 100, stack: 1, exe: "/bin/ls"})
	a.note(connector.Event{}, 3)
	tr.scan(soon, "exec 11 /bin/ls")
	if got := tr.s.Stats(); got.Lost != 3 || got.Created != 3 || got.MissedAtMost != 2 {
		t.Errorf("got %+v, want one of three found", got)
	}
	say(execve(11)) // it comes late, and was seen
	tr.scan(soon)
	for i := range int32(maxRecords + 5) {
		say(exited(100+i, 0))
	}
	tr.scan(soon)
	if got := tr.s.Stats(); got.Lost != 8 {
		t.Errorf("got %d lost, want those that did not fit too", got.Lost)
	}
	// An exit whose announcement was lost is noticed all the same.
	tr.remove(11)
	tr.scan(listEvery)
	tr.scan(listEvery, "exit 11 /bin/ls")
}

// connected runs a sensor by the process connector until the test ends and returns its events.
func connected(t *testing.T) <-chan *event.Event {
	t.Helper()
	s, err := New(Config{Self: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan *event.Event, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(events)
		err := s.Run(ctx, func(e *event.Event) {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		}, nil)
		if err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	for s.Stats().Scans == 0 {
		time.Sleep(time.Millisecond)
	}
	if got := s.Stats(); got.Mechanism != Connector {
		t.Skipf("NOT TESTED: %s: run as root in the machine's own namespaces", got.Refused[Connector])
	}
	return events
}

// A program that a thread starts takes the process over, which does not end by that.
func TestThreadExec(t *testing.T) {
	events := connected(t)
	sleep := sleepProgram(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, sleep, "100")
	cmd.Env = append(os.Environ(), "PROCESS_TEST_THREAD=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pid := start(t, cmd)
	var got []string
	for deadline := time.After(30 * time.Second); len(got) < 2; {
		select {
		case e := <-events:
			if e.Process.PID == pid {
				got = append(got, fmt.Sprint(e.Type, " ", e.Process.Exe, " after ", e.Metadata["previous_exe"]))
				_ = in.Close() // the first program is read, however late: it becomes the second
			}
		case <-deadline:
			t.Fatalf("got %q, want two programs", got)
		}
	}
	want := []string{"process_exec " + self + " after <nil>", "process_exec " + sleep + " after " + self}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestRunWithConnector(t *testing.T) {
	events := connected(t)
	cmd := exec.Command("sh", "-c", "exit 7")
	if err := cmd.Run(); err == nil {
		t.Fatal("exit 7 went well")
	}
	for e := range events {
		if e.Process.PID == int32(cmd.Process.Pid) && e.Type == event.ProcessExit {
			if e.Metadata["exit_code"] != int64(7) {
				t.Errorf("got %v, want exit code 7", e.Metadata)
			}
			break
		}
	}
}

func TestMechanismsAreChecked(t *testing.T) {
	if _, err := New(Config{Mechanisms: []string{"ebpf"}}); err == nil {
		t.Error("an unknown mechanism was accepted")
	}
	s, err := New(Config{Proc: t.TempDir(), Mechanisms: []string{Connector}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), nil, nil); err == nil {
		t.Error("Run without a procfs: got no error")
	}
	got := s.Stats()
	if got.Mechanism != Polling || got.Refused[Connector] != errOtherProc.Error() {
		t.Errorf("got %+v, want polling and why", got)
	}
}
