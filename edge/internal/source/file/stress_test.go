package file

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/shared/event"
)

// The last state of every file is told, whether the kernel's queue held all that happened or not.
func TestStress(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprint("overflow ", deaf), func(t *testing.T) {
			const files, changes = 500, 20_000
			d := t.TempDir()
			path := func(i int) string { return fmt.Sprintf("%s/%d/%d", d, i%5, i) }
			for i := range files {
				write(t, path(i), "at first")
			}
			r := start(t, Config{Paths: []string{d}, Settle: 30 * time.Millisecond, Limits: Limits{HashRate: 1 << 30}})
			r.hashed(t)
			if deaf { // the pump waits, and the kernel's queue fills
				r.hints.mu.Lock()
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			for n := range changes {
				switch p := path(rnd.IntN(files)); rnd.IntN(8) {
				case 0:
					_ = os.Remove(p)
				case 1:
					write(t, p+".new", fmt.Sprint("renamed over ", n))
					must(t, os.Rename(p+".new", p))
				case 2:
					_ = os.Chmod(p, os.FileMode(0o600+rnd.IntN(64)))
				case 3:
					_ = os.Rename(p, path(rnd.IntN(files)))
				default:
					overwrite(t, p, fmt.Sprintf("written %08d", n))
				}
			}
			if deaf {
				r.hints.mu.Unlock()
				r.eventually(t, "the overflow is seen", func(s Stats) bool { return s.Overflows > 0 && s.Rescans > 1 })
			}

			want := make(map[string]string)
			for i := range files {
				if text, err := os.ReadFile(path(i)); err == nil {
					info, err := os.Stat(path(i))
					must(t, err)
					want[path(i)] = fmt.Sprintf("%s %04o", sum(string(text)), info.Mode().Perm())
				}
			}
			told := make(map[string]string) // by who follows the events
			for i := range files {
				told[path(i)] = sum("at first") + " 0644"
			}
			wrong := func() (n int) {
				for p, w := range want {
					if told[p] != w {
						n++
					}
				}
				for p := range told {
					if want[p] == "" {
						n++
					}
				}
				return n
			}
			for seen := 0; wrong() > 0; seen++ {
				deadline := time.After(patience) // of the next event: all take long on a busy machine
				select {
				case e := <-r.events:
					if from, ok := e.Metadata["renamed_from"].(string); ok && e.Metadata["exchanged"] == nil {
						delete(told, from)
					}
					if e.File.Operation == "delete" {
						delete(told, e.File.Path)
					} else {
						told[e.File.Path] = e.File.SHA256 + " " + e.File.Mode
					}
				case <-deadline:
					for p := range told {
						if told[p] != want[p] {
							t.Errorf("%s: told %q, want %q", p, told[p], want[p])
						}
					}
					t.Fatalf("%d last states are not told after %d events; %+v", wrong(), seen, r.Stats())
				}
			}
		})
	}
}

// overwrite writes without cutting the file first, which ext4 makes wait for the disk (ext4(5), auto_da_alloc).
func overwrite(tb testing.TB, path, text string) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	must(tb, err)
	_, err = f.WriteString(text)
	must(tb, err, f.Close())
}

// BenchmarkChange is one look at a small file that was written to, up to its event.
func BenchmarkChange(b *testing.B) {
	d := b.TempDir()
	write(b, d+"/a", "at first")
	s, err := New(Config{Paths: []string{d}, Limits: Limits{HashRate: 1 << 40}, Logger: slog.New(slog.DiscardHandler)})
	must(b, err)
	emitted := 0
	s.emit = func(*event.Event) { emitted++ }
	s.begin(b.Context())
	for len(s.backlog) > 0 {
		s.catchUp(newBatch(b.Context()))
	}
	parent := s.top.lookup(d)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		parent.child("a").state.sum[0] ^= 1 // as if it had been another content
		bt := newBatch(b.Context())
		s.look(bt, parent, d, "a", cause{at: time.Now(), written: true})
		s.flush(bt)
	}
	if emitted != n {
		b.Fatalf("got %d events of %d changes", emitted, n)
	}
}

// BenchmarkBaseline makes a baseline of 20,000 files.
func BenchmarkBaseline(b *testing.B) {
	const files = 20_000
	d := b.TempDir()
	for i := range files {
		write(b, fmt.Sprintf("%s/%d/file-%d.conf", d, i%100, i), "x")
	}
	var s *Sensor
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		var err error
		s, err = New(Config{Paths: []string{d}, Limits: Limits{HashRate: 1 << 40}, Logger: slog.New(slog.DiscardHandler)})
		must(b, err)
		s.begin(b.Context())
		for len(s.backlog) > 0 {
			s.catchUp(newBatch(b.Context()))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/files, "B/file")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/files, "us/file")
	runtime.KeepAlive(s)
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
