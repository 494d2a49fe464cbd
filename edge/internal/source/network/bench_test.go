package network

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowd opens listening sockets until there are n: half the files of a connection.
func crowd(b *testing.B, n int) {
	b.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			b.Fatal(err)
		}
	}
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() })
	}
}

// The parser alone, on tables in a file, by us and by the library that node_exporter uses.
func BenchmarkParse(b *testing.B) {
	for _, n := range []int{1000, 6000} {
		dir := b.TempDir()
		text := []byte("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n")
		for i := range n {
			text = fmt.Appendf(text, "%4d: 0100007F:%04X 08080808:01BB 01 00000000:00000000 00:00000000 00000000  1000        0 %d 1 0000000000000000 20 4 30 10 -1\n", i, i, i+1)
		}
		if err := os.MkdirAll(filepath.Join(dir, "net"), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "net", "tcp"), text, 0o644); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("ours-%d", n), func(b *testing.B) {
			l := newProcLister(filepath.Join(dir, "net"))
			var sockets []socket
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if sockets, err = l.list(sockets[:0], true); err != nil || len(sockets) != n {
					b.Fatal(len(sockets), err)
				}
			}
		})
		b.Run(fmt.Sprintf("procfs-%d", n), func(b *testing.B) {
			fs, err := procfs.NewFS(dir)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				lines, err := fs.NetTCP() //nolint:staticcheck // deprecated for its slowness, which is what is measured
				if err != nil || len(lines) != n {
					b.Fatal(len(lines), err)
				}
			}
		})
	}
}

// The list of this machine's sockets, and a poll that finds no pulse.
func BenchmarkPoll(b *testing.B) {
	for _, n := range []int{0, 1000, 6000} {
		b.Run(fmt.Sprintf("list-%d", n), func(b *testing.B) {
			crowd(b, n)
			l := newProcLister("/proc/net")
			var sockets []socket
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if sockets, err = l.list(sockets[:0], true); err != nil || len(sockets) < n {
					b.Fatal(len(sockets), err)
				}
			}
		})
	}
	b.Run("idle", func(b *testing.B) {
		s := watch(b, byDiag, Config{})
		now := time.Now()
		b.ReportAllocs()
		for b.Loop() {
			s.poll(now)
		}
	})
	for _, interval := range []time.Duration{200 * time.Millisecond, 20 * time.Millisecond} {
		b.Run(fmt.Sprintf("ten-seconds-at-%v", interval), func(b *testing.B) { // a list once in ten seconds
			s := watch(b, byDiag, Config{})
			now := time.Now()
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				for range 10 * time.Second / interval {
					now = now.Add(interval)
					s.poll(now)
				}
			}
			b.ReportMetric(100*(cpu(b)-before).Seconds()/10/float64(b.N), "%core")
		})
	}
}

// Finding the process of one new socket when nothing tells where to look.
func BenchmarkOwner(b *testing.B) {
	o := newOwners("/proc")
	b.ReportAllocs()
	for b.Loop() {
		o.find(map[uint64]owner{1<<63 + 1: {}}, nil, func() bool { return false })
	}
}
