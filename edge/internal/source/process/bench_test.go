package process

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// One new process, all that an event needs, by us and by the library. What lives a millisecond is read in full only
// when this is short.
func BenchmarkRead(b *testing.B) {
	pid := start(b, exec.Command("sleep", "1000"))
	b.Run("ours", func(b *testing.B) {
		r, err := newReader("/proc")
		if err != nil {
			b.Fatal(err)
		}
		defer r.close()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.read(pid); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("procfs", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := procfs.NewProc(int(pid))
			if err != nil {
				b.Fatal(err)
			}
			for _, read := range []func() error{
				func() error { _, err := p.Stat(); return err },
				func() error { _, err := p.CmdLine(); return err },
				func() error { _, err := p.Executable(); return err },
				func() error { _, err := p.Cwd(); return err },
				func() error { _, err := p.NewStatus(); return err },
			} {
				if err := read(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// crowd starts processes until there are n.
func crowd(b *testing.B, n int) {
	b.Helper()
	r, err := newReader("/proc")
	if err != nil {
		b.Fatal(err)
	}
	defer r.close()
	have, err := r.list(func(int32) {})
	if err != nil {
		b.Fatal(err)
	}
	for range max(0, n-have) {
		start(b, &exec.Cmd{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
	}
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkScan(b *testing.B) {
	crowd(b, 300)
	b.Run("idle", func(b *testing.B) { // nothing was created
		s := watch(b, nil)
		now := time.Now()
		s.scan(now)
		b.ReportAllocs()
		for b.Loop() {
			s.scan(now)
		}
	})
	b.Run("list", func(b *testing.B) { // once a second
		s := watch(b, nil)
		now := time.Now().Add(young)
		s.scan(now)
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(listEvery)
			s.scan(now)
		}
	})
	for _, interval := range []time.Duration{100 * time.Millisecond, 10 * time.Millisecond} {
		b.Run(fmt.Sprintf("second-at-%v", interval), func(b *testing.B) { // the scans of a second
			s := watch(b, nil)
			now := time.Now().Add(young)
			s.scan(now)
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				for range time.Second / interval {
					now = now.Add(interval)
					s.scan(now)
				}
			}
			b.ReportMetric(100*(cpu(b)-before).Seconds()/float64(b.N), "%core")
		})
	}
}

// BenchmarkCPU measures what a sensor costs beside 300 processes: when nothing happens, and at 200 execs a second.
func BenchmarkCPU(b *testing.B) {
	crowd(b, 300)
	for _, mechanism := range Mechanisms() {
		interval := 10 * time.Millisecond
		if mechanism == Polling {
			interval = 100 * time.Millisecond
		}
		for _, load := range []string{"idle", "200-execs"} {
			b.Run(mechanism+"/"+load, func(b *testing.B) {
				o := observe(b, mechanism, interval)
				settle(b, o)
				before := cpu(b)
				for b.Loop() {
					if load == "idle" {
						time.Sleep(2 * time.Second)
						continue
					}
					spaced(b, 400, 5*time.Millisecond, "/bin/true")
				}
				b.ReportMetric(100*(cpu(b)-before).Seconds()/b.Elapsed().Seconds(), "%core")
			})
		}
	}
}
