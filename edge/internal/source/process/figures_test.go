package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

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
func observe(b *testing.B, mechanism string, interval time.Duration) *observer {
	b.Helper()
	s, err := New(Config{Self: -1, Interval: interval, Mechanisms: []string{mechanism}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	o := &observer{s: s, stop: cancel, seen: make(chan int32, 100)}
	o.done.Go(func() {
		err := s.Run(ctx, func(e *event.Event) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.events = append(o.events, e)
			if e.Type == event.ProcessExec && strings.HasPrefix(e.Process.Cmdline, "sleep 0.5") {
				o.seen <- e.Process.PID
			}
		}, nil)
		if err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(o.end)
	for o.s.Stats().Scans == 0 {
		time.Sleep(time.Millisecond) // the baseline is taken
	}
	if got := s.Stats(); got.Mechanism != mechanism {
		b.Skipf("%s: %s; run as root in the machine's own namespaces", mechanism, got.Refused[mechanism])
	}
	return o
}

func (o *observer) end() {
	o.stop()
	o.done.Wait()
}

// settle waits until the observers have seen a process that starts now, and so all that started before.
func settle(b *testing.B, all ...*observer) {
	b.Helper()
	cmd := exec.Command("sleep", "0.5")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for _, o := range all {
		for pid := range o.seen {
			if pid == int32(cmd.Process.Pid) {
				break
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
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

// account fails when an observer's figures cannot be true of that many processes.
func (o *observer) account(b *testing.B, t tally, runs int) {
	b.Helper()
	st := o.s.Stats()
	if st.Created < uint64(runs) || st.MissedAtMost < uint64(max(0, runs-t.names)) {
		b.Errorf("%s: of %d runs %d were seen; yet %d created, %d missed at most", st.Mechanism, runs, t.names, st.Created, st.MissedAtMost)
	}
	b.ReportMetric(float64(st.Created)/float64(b.N), st.Mechanism+"-created")
	b.ReportMetric(float64(st.MissedAtMost)/float64(b.N), st.Mechanism+"-missed-at-most")
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
