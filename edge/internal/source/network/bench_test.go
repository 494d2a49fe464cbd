package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/source/network/netns"
	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
)

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowd makes n ends of connections and returns what closes them.
func crowd(b *testing.B, n int) (closeAll func()) {
	b.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			b.Fatal(err)
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	all := []io.Closer{l}
	for range n / 2 {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		a, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, c, a)
	}
	return func() {
		for _, c := range all {
			_ = c.Close()
		}
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
		b.Run(fmt.Sprintf("ours/%d", n), func(b *testing.B) {
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
		b.Run(fmt.Sprintf("procfs/%d", n), func(b *testing.B) {
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

// Listing n TCP sockets, half of them dialled and half accepted, by sock_diag and by /proc, in the same namespace.
func BenchmarkList(b *testing.B) {
	for _, n := range []int{100, 1000, 6000} {
		err := netns.Fresh(func() error {
			sockets := crowd(b, n)
			defer sockets()
			buf := make([]byte, sockdiag.BufferSize)
			conn, closes, err := dial(buf)
			if err != nil {
				return err
			}
			defer closes.Close()
			for name, l := range map[string]lister{
				"sock_diag": &diagLister{conn: conn, buf: buf}, "proc": newProcLister(fmt.Sprintf("/proc/self/task/%d/net", unix.Gettid())),
			} {
				b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { // on another thread
					var sockets []socket
					b.ReportAllocs()
					before := cpu(b)
					for b.Loop() {
						if sockets, err = l.list(sockets[:0], false); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
					if len(sockets) < n {
						b.Fatalf("got %d sockets, want %d", len(sockets), n)
					}
				})
			}
			return nil
		})
		if errors.Is(err, unix.EPERM) {
			b.Skipf("%v; run as root", err)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPoll(b *testing.B) {
	b.Run("idle", func(b *testing.B) {
		s := watch(b, byDiag, Config{})
		now := time.Now()
		b.ReportAllocs()
		for b.Loop() {
			s.poll(now)
		}
	})
	seconds := func(b *testing.B, s *Sensor, interval time.Duration) {
		b.Helper()
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
	}
	for _, interval := range []time.Duration{200 * time.Millisecond, 20 * time.Millisecond} {
		b.Run(fmt.Sprintf("ten-seconds-at-%v", interval), func(b *testing.B) { // a list once in ten seconds
			seconds(b, watch(b, byDiag, Config{}), interval)
		})
	}
	b.Run("ten-seconds-of-30-namespaces", func(b *testing.B) {
		for range 30 {
			newPod(b)
		}
		seconds(b, watch(b, byDiag, Config{Namespaces: 256}), 200*time.Millisecond)
	})
}

// Finding the process of one new socket when nothing tells where to look.
func BenchmarkOwner(b *testing.B) {
	o := newOwners("/proc")
	b.ReportAllocs()
	for b.Loop() {
		o.find(map[uint64]owner{1<<63 + 1: {}}, nil, func() bool { return false })
	}
}
