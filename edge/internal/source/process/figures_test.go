package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/hungfs"
	"github.com/apss-sensor/apss/shared/event"
)

// observer is a sensor at work and what it emitted.
type observer struct {
	s    *Sensor
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	events []*event.Event
	seen   chan int32 // pids of exec events of sleep, which end a run
}

// observe starts a sensor that uses the mechanism, or skips.
func observe(tb testing.TB, mechanism string, interval time.Duration) *observer {
	tb.Helper()
	s, err := New(Config{Self: -1, Interval: interval, Mechanisms: []string{mechanism}})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(tb.Context())
	o := &observer{s: s, stop: cancel, seen: make(chan int32, 100)}
	o.done.Go(func() {
		err := s.Run(ctx, func(e *event.Event) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.events = append(o.events, e)
			if e.Type == event.ProcessExec && strings.HasPrefix(e.Process.Cmdline, "sleep 1.5") {
				o.seen <- e.Process.PID
			}
		}, nil)
		if err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(o.end)
	for o.s.Stats().Scans == 0 {
		time.Sleep(time.Millisecond) // the baseline is taken
	}
	if got := s.Stats(); got.Mechanism != mechanism {
		tb.Skipf("%s: %s; run as root in the machine's own namespaces", mechanism, got.Refused[mechanism])
	}
	return o
}

func (o *observer) end() {
	o.stop()
	o.done.Wait()
}

// settle waits until the observers have seen a process that starts now, and so all that started before.
func settle(tb testing.TB, all ...*observer) {
	tb.Helper()
	cmd := exec.Command("sleep", "1.5")
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	for _, o := range all {
		for pid := range o.seen {
			if pid == int32(cmd.Process.Pid) {
				break
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		tb.Fatal(err)
	}
}

// tally is how many children of one process an observer saw start.
type tally struct{ pids, names, lines, full int }

func (o *observer) tally(parent int32, program string) tally {
	o.mu.Lock()
	defer o.mu.Unlock()
	var t tally
	pids := make(map[int32]bool)
	for _, e := range o.events {
		p := e.Process
		if e.Type != event.ProcessExec {
			continue
		}
		if p.PPID != parent {
			if p.Capture == event.CaptureName && strings.HasSuffix(p.Exe, "/"+program) {
				t.names++
			}
			continue
		}
		if pids[p.PID] {
			continue
		}
		pids[p.PID] = true
		t.pids++
		t.names++
		if strings.Contains(p.Cmdline, program) {
			t.lines++
		}
		if p.Capture == event.CaptureFull && strings.Contains(p.Cmdline, program) {
			t.full++
		}
	}
	return t
}

// TestMain makes the test's binary a program that runs others, for the measurements: in a process of its own; or one that
// becomes another by a thread that is not its first.
func TestMain(m *testing.M) {
	if os.Getenv("PROCESS_TEST_THREAD") != "" {
		runtime.LockOSThread()
		become := func() {
			_, _ = os.Stdin.Read(make([]byte, 1)) // until it is told to, or nobody can any more
			panic(unix.Exec(os.Args[1], os.Args[1:], nil))
		}
		if unix.Gettid() == os.Getpid() {
			go func() {
				runtime.LockOSThread() // this thread has one already
				become()
			}()
			select {}
		}
		become()
	}
	if file := os.Getenv("PROCESS_TEST_HANG"); file != "" {
		panic(hungfs.HoldMemory(file))
	}
	if runs, err := strconv.Atoi(os.Getenv("PROCESS_TEST_RUNS")); err == nil {
		pause, err := time.ParseDuration(os.Getenv("PROCESS_TEST_PAUSE"))
		if err != nil {
			panic(err)
		}
		tick := time.NewTicker(pause)
		for range runs {
			<-tick.C
			if err := exec.Command(os.Args[1], os.Args[2:]...).Run(); err != nil {
				panic(err)
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// spaced runs a program again and again at a distance and returns the pid of the process that does.
func spaced(tb testing.TB, runs int, pause time.Duration, program ...string) int32 {
	tb.Helper()
	cmd := exec.Command(os.Args[0], program...)
	cmd.Env = append(os.Environ(), fmt.Sprint("PROCESS_TEST_RUNS=", runs), fmt.Sprint("PROCESS_TEST_PAUSE=", pause))
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return int32(cmd.Process.Pid)
}

// repeat runs a program again and again, from a shell and one after the other, and returns the shell's pid.
func repeat(b *testing.B, runs int, program, pause string) int32 {
	b.Helper()
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s; %s i=$((i+1)); done; :", runs, program, pause)
	cmd := exec.Command("/bin/sh", "-c", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return int32(cmd.Process.Pid)
}

// forkstat counts what Debian's program of that name, which uses the process connector too, read in full.
type forkstat struct {
	cmd   *exec.Cmd
	done  sync.WaitGroup
	mu    sync.Mutex
	lines int
}

func startForkstat(b *testing.B) *forkstat {
	b.Helper()
	path, err := exec.LookPath("forkstat")
	if err != nil {
		b.Log("forkstat is not measured: install Debian's package forkstat")
		return nil
	}
	f := &forkstat{cmd: exec.Command(path, "-l", "-e", "exec")}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan() // its heading: it listens
	f.done.Go(func() {
		for lines.Scan() {
			if strings.Contains(lines.Text(), "/bin/true") && !strings.Contains(lines.Text(), "while") {
				f.mu.Lock()
				f.lines++
				f.mu.Unlock()
			}
		}
	})
	return f
}

func (f *forkstat) end(b *testing.B) int {
	b.Helper()
	_ = f.cmd.Process.Signal(os.Interrupt)
	f.done.Wait()
	var exit *exec.ExitError
	if err := f.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		b.Error(err)
	}
	return f.lines
}

func share(b *testing.B, n, of int, unit string) {
	b.Helper()
	b.ReportMetric(100*float64(n)/float64(of), unit)
}

// BenchmarkStorm runs /bin/true 1,000 times back to back. Each shares the machine with forkstat or with nobody, because
// two that read the same process on few cores take the time from each other.
func BenchmarkStorm(b *testing.B) {
	const runs = 1000
	for _, beside := range []string{"alone", "beside-forkstat"} {
		b.Run(beside, func(b *testing.B) {
			ours, polls := observe(b, Connector, 10*time.Millisecond), observe(b, Polling, 100*time.Millisecond)
			var theirs *forkstat
			if beside != "alone" {
				if theirs = startForkstat(b); theirs == nil {
					b.SkipNow()
				}
			}
			var got, polled tally
			for b.Loop() {
				shell := repeat(b, runs, "/bin/true", "")
				settle(b, ours, polls)
				got.add(ours.tally(shell, "true"))
				polled.add(polls.tally(shell, "true"))
			}
			ours.account(b, got, runs*b.N)
			polls.account(b, polled, runs*b.N)
			share(b, got.pids, runs*b.N, "%by-pid")
			share(b, got.lines, runs*b.N, "%command-line")
			share(b, got.full, runs*b.N, "%full")
			share(b, polled.full, runs*b.N, "%full-polling-100ms")
			if theirs != nil {
				share(b, theirs.end(b), runs*b.N, "%command-line-forkstat")
			}
		})
	}
	b.Run("forkstat-alone", func(b *testing.B) {
		theirs := startForkstat(b)
		if theirs == nil {
			b.SkipNow()
		}
		for b.Loop() {
			repeat(b, runs, "/bin/true", "")
		}
		b.StopTimer()
		time.Sleep(100 * time.Millisecond)
		share(b, theirs.end(b), runs*b.N, "%command-line-forkstat")
	})
}

func (t *tally) add(o tally) {
	t.pids += o.pids
	t.names += o.names
	t.lines += o.lines
	t.full += o.full
}

// unprivileged measures what an agent without rights sees of its own user's processes, and returns the figures by name.
func unprivileged(tb testing.TB) map[string]float64 {
	tb.Helper()
	const runs = 300
	bin := os.Getenv("PROCESS_TEST_UNPRIVILEGED")
	name := "true-" + strconv.Itoa(os.Getpid()) // a copy, because others on this machine may run /bin/true too
	program := filepath.Join(bin, name)
	if b, err := os.ReadFile("/bin/true"); err != nil || os.WriteFile(program, b, 0o755) != nil {
		tb.Fatalf("copying /bin/true to %s: %v", bin, err)
	}
	ours, polls := observe(tb, Opens, 10*time.Millisecond), observe(tb, Polling, 100*time.Millisecond)
	figures := make(map[string]float64)
	measure := func(figure, program string, parent int32) {
		settle(tb, ours, polls)
		got, polled := ours.tally(parent, program), polls.tally(parent, program)
		for unit, n := range map[string]int{
			"%by-name": got.names, "%by-pid": got.pids, "%command-line": got.lines, "%full": got.full, "%full-polling-100ms": polled.full,
		} {
			figures[figure+unit] = 100 * float64(n) / runs
		}
	}
	shortly := spaced(tb, runs, 25*time.Millisecond, program)
	measure("true", name, shortly)
	for _, o := range []*observer{ours, polls} {
		st, seen := o.s.Stats(), o.tally(shortly, name).names
		if st.Created < runs || st.MissedAtMost < uint64(max(0, runs-seen)) {
			tb.Errorf("%s: of %d runs %d were seen; yet %d created, %d missed at most", st.Mechanism, runs, seen, st.Created, st.MissedAtMost)
		}
		o.balance(tb)
		figures[st.Mechanism+"-%seen-or-missed"] = accounted(seen, st.MissedAtMost, runs)
		figures[st.Mechanism+"-created"], figures[st.Mechanism+"-missed-at-most"] = float64(st.Created), float64(st.MissedAtMost)
	}
	measure("sleep20ms", "sleep 0.02", spaced(tb, runs, 25*time.Millisecond, "sleep", "0.02"))
	return figures
}

// TestUnprivilegedFigures prints them for BenchmarkUnprivileged, which runs this test as another user.
func TestUnprivilegedFigures(t *testing.T) {
	if os.Getenv("PROCESS_TEST_UNPRIVILEGED") == "" {
		t.Skip("BenchmarkUnprivileged runs this")
	}
	for name, value := range unprivileged(t) {
		fmt.Printf("FIGURE %s %g\n", name, value)
	}
}

// withoutNewPrivileges runs cmd with PR_SET_NO_NEW_PRIVS, which a process has from the thread that started it.
func withoutNewPrivileges(cmd *exec.Cmd) (out []byte, err error) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil {
			out, err = cmd.CombinedOutput()
		}
	})
	wg.Wait()
	return out, err
}

// BenchmarkUnprivileged runs /bin/true 300 times, 25 ms apart, then as often a program that lives for 20 ms, before an
// agent without rights: uid 65534 without capabilities, in a pid namespace that it shares with others.
func BenchmarkUnprivileged(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("root is needed to become a user without rights: run the benchmarks as root")
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	program := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.WriteFile(program, self, 0o755)); err != nil {
		b.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o777); err != nil {
		b.Fatal(err)
	}
	if err := os.Chmod(bin, 0o777); err != nil { // the measurement puts its program there
		b.Fatal(err)
	}
	sums := make(map[string]float64)
	for b.Loop() {
		cmd := exec.Command(program, "-test.run=^TestUnprivilegedFigures$", "-test.count=1")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "PROCESS_TEST_UNPRIVILEGED="+bin)
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := withoutNewPrivileges(cmd)
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			var name string
			var value float64
			if _, err := fmt.Sscanf(line, "FIGURE %s %g", &name, &value); err == nil {
				sums[name] += value
			}
		}
	}
	if len(sums) == 0 {
		b.Fatal("no figure was printed")
	}
	for name, sum := range sums {
		b.ReportMetric(sum/float64(b.N), name)
	}
}
