package file

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

const (
	figureFiles = 500
	// changerVar asks this program to be the process that makes the changes: its folder, how many, and how many in a second.
	changerVar = "APSS_TEST_CHANGER"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(changerVar); spec != "" {
		if err := changer(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func figurePath(dir string, i int) string { return fmt.Sprintf("%s/%d/%d", dir, i%5, i) }

// changer makes n changes at a steady rate, in every way a file changes, and prints when it began each.
func changer(spec string) error {
	var dir string
	var n, rate int
	if _, err := fmt.Sscan(spec, &dir, &n, &rate); err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	rnd := rand.New(rand.NewPCG(1, 2))
	start := time.Now()
	for k := range n {
		if wait := time.Duration(k)*time.Second/time.Duration(rate) - time.Since(start); wait > 100*time.Microsecond {
			time.Sleep(wait)
		}
		path := figurePath(dir, k%figureFiles)
		text := fmt.Sprintf("change %08d", k)
		at := time.Now()
		var err error
		switch rnd.IntN(20) {
		case 0: // an editor's or a package manager's way
			temp := dir + "/0/.new"
			if err = os.WriteFile(temp, []byte(text), 0o600); err == nil {
				err = os.Rename(temp, path)
			}
		case 1:
			if err = os.Remove(path); err == nil {
				err = os.WriteFile(path, []byte(text), 0o600)
			}
		default:
			var f *os.File
			if f, err = os.OpenFile(path, os.O_WRONLY, 0); err == nil {
				_, err = f.WriteString(text)
				err = errors.Join(err, f.Close())
			}
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(out, k%figureFiles, at.UnixNano())
	}
	fmt.Fprintln(out, "took", time.Since(start).Milliseconds())
	return out.Flush()
}

// watcher is what is measured: it tells of changes by their path, and the content's hash, empty if it is gone.
type watcher func(ctx context.Context, dir string, tell func(path, sum string)) (ready func() bool, wait func())

func theSensor(b *testing.B) watcher {
	b.Helper()
	return func(ctx context.Context, dir string, tell func(path, sum string)) (func() bool, func()) {
		s, err := New(Config{Paths: []string{dir}, Logger: slog.New(slog.DiscardHandler)})
		must(b, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = s.Run(ctx, func(e *event.Event) {
				if from, ok := e.Metadata["renamed_from"].(string); ok {
					tell(from, "")
				}
				if e.Type != event.FileRead {
					tell(e.File.Path, e.File.SHA256)
				}
			}, func(context.Context) error { return nil })
		})
		return func() bool { t := s.Stats(); return t.Watches > 0 && t.Files == figureFiles && t.Unhashed == 0 }, wg.Wait
	}
}

// polling is what an agent without kernel events does: it looks at every file at an interval, and hashes what changed.
func polling(ctx context.Context, dir string, tell func(path, sum string)) (func() bool, func()) {
	known := make(map[int]string)
	times := make(map[int]time.Time)
	var mu sync.Mutex
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		for i := range figureFiles {
			path := figurePath(dir, i)
			info, err := os.Lstat(path)
			if err == nil && info.ModTime().Equal(times[i]) {
				continue
			}
			var sum string
			if data, err := os.ReadFile(path); err == nil {
				times[i] = info.ModTime()
				h := sha256.Sum256(data)
				sum = hex.EncodeToString(h[:])
			}
			if old, seen := known[i]; old != sum && seen {
				tell(path, sum)
			}
			known[i] = sum
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			look()
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() bool { mu.Lock(); defer mu.Unlock(); return len(known) == figureFiles }, wg.Wait
}

// BenchmarkFigures prints what the sensor reaches beside polling: in a storm of 20,000 changes in a second over 500
// files, and at 1,000 changes a second. One iteration is one run; the changes are another process's.
func BenchmarkFigures(b *testing.B) {
	for _, load := range []struct {
		name          string
		changes, rate int
	}{{"storm", 20_000, 20_000}, {"steady", 3_000, 1_000}} {
		for _, w := range []struct {
			name string
			watcher
		}{{"sensor", theSensor(b)}, {"polling-100ms", polling}} {
			b.Run(load.name+"/"+w.name, func(b *testing.B) {
				var sum figures
				runs := 0
				for b.Loop() {
					sum.add(measure(b, w.watcher, load.changes, load.rate))
					runs++
				}
				sum.report(b, runs)
			})
		}
	}
}

// figures are what one run comes to.
type figures struct {
	events, missed int
	took           []time.Duration
	cpu, storm     time.Duration
	heap           uint64
}

func (f *figures) add(g figures) {
	f.events, f.missed, f.cpu, f.storm = f.events+g.events, f.missed+g.missed, f.cpu+g.cpu, f.storm+g.storm
	f.took, f.heap = append(f.took, g.took...), max(f.heap, g.heap)
}

func (f *figures) report(b *testing.B, runs int) {
	b.Helper()
	slices.Sort(f.took)
	n := float64(runs)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(f.events)/n, "events")
	b.ReportMetric(float64(f.missed)/n, "finals-missed")
	b.ReportMetric(f.took[len(f.took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(f.took[len(f.took)*99/100].Seconds()*1e3, "p99-ms")
	b.ReportMetric(f.cpu.Seconds()*1e3/n, "cpu-ms")
	b.ReportMetric(f.storm.Seconds()*1e3/n, "changes-took-ms")
	b.ReportMetric(float64(f.heap)/(1<<20), "heap-MiB")
}

// told is one thing that a watcher told.
type told struct {
	path, sum string
	at        time.Time
}

func measure(b *testing.B, watch watcher, changes, rate int) figures {
	b.Helper()
	dir := b.TempDir()
	for i := range figureFiles {
		write(b, figurePath(dir, i), "change at first")
	}
	var mu sync.Mutex
	var all []told
	last := make(map[string]string)
	ctx, cancel := context.WithCancel(b.Context())
	ready, wait := watch(ctx, dir, func(path, sum string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, told{path, sum, time.Now()})
		last[path] = sum
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		<-tick.C
	}
	before := cpu(b)
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprint(changerVar, "=", dir, " ", changes, " ", rate))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(b, err)

	finals := make(map[string]string, figureFiles)
	for i := range figureFiles {
		data, err := os.ReadFile(figurePath(dir, i))
		must(b, err)
		finals[figurePath(dir, i)] = sum(string(data))
	}
	missed := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for path, want := range finals {
			if last[path] != want {
				n++
			}
		}
		return n
	}
	deadline := time.After(10 * time.Second)
	f := figures{}
	for f.missed = missed(); f.missed > 0; f.missed = missed() {
		select {
		case <-tick.C:
			continue
		case <-deadline:
		}
		break
	}
	f.cpu = cpu(b) - before
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f.heap = m.HeapInuse
	cancel()
	wait()
	f.events = len(all)
	f.took, f.storm = latencies(b, dir, string(out), all)
	return f
}

// latencies returns for each event the time since the last change to its file before it.
func latencies(b *testing.B, dir, changes string, all []told) (took []time.Duration, storm time.Duration) {
	b.Helper()
	made := make(map[string][]int64)
	for line := range strings.Lines(changes) {
		var i int
		var at int64
		if rest, ok := strings.CutPrefix(line, "took "); ok {
			_, err := fmt.Sscan(rest, &at)
			must(b, err)
			storm = time.Duration(at) * time.Millisecond
			continue
		}
		_, err := fmt.Sscan(line, &i, &at)
		must(b, err)
		made[figurePath(dir, i)] = append(made[figurePath(dir, i)], at)
	}
	for _, t := range all {
		at := t.at.UnixNano()
		if k, _ := slices.BinarySearch(made[t.path], at); k > 0 {
			took = append(took, time.Duration(at-made[t.path][k-1]))
		}
	}
	return took, storm
}

// BenchmarkCandidates prints how often a short-lived process is caught with the file still open, in percent: one that
// writes and one that reads, each gone after some milliseconds at most. The command lines of such processes, which the
// process sensor knows, are not counted here.
func BenchmarkCandidates(b *testing.B) {
	for name, script := range map[string]string{"writer": "echo x >> ", "reader": "cat >/dev/null "} {
		b.Run(name, func(b *testing.B) {
			d := b.TempDir()
			var mu sync.Mutex
			named := make(map[string]bool)
			seen := make(map[string]bool)
			s, err := New(Config{Paths: []string{d + "/w"}, ReadPaths: []string{d + "/r"}, Logger: slog.New(slog.DiscardHandler)})
			must(b, err)
			dir, n := d+"/w/", 0
			if name == "reader" {
				dir = d + "/r/"
			}
			must(b, os.Mkdir(d+"/w", 0o755), os.Mkdir(d+"/r", 0o755))
			const files = 200
			for i := range files {
				must(b, os.WriteFile(fmt.Sprint(dir, i), []byte("x"), 0o644))
			}
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				_ = s.Run(ctx, func(e *event.Event) {
					mu.Lock()
					defer mu.Unlock()
					seen[e.File.Path] = true
					named[e.File.Path] = named[e.File.Path] || len(e.File.Writers) > 0
				}, func(context.Context) error { return nil })
			})
			tick := time.NewTicker(25 * time.Millisecond)
			defer tick.Stop()
			for s.Stats().Watches == 0 || s.Stats().Unhashed > 0 {
				<-tick.C
			}
			for b.Loop() {
				<-tick.C
				must(b, exec.CommandContext(b.Context(), "sh", "-c", fmt.Sprint(script, dir, n%files)).Run())
				n++
			}
			for range 10 {
				<-tick.C
			}
			cancel()
			wg.Wait()
			share := 0
			for _, ok := range named {
				if ok {
					share++
				}
			}
			b.ReportMetric(float64(share)*100/float64(max(len(seen), 1)), "%-named")
			b.ReportMetric(float64(len(seen))*100/float64(min(n, files)), "%-seen")
		})
	}
}

// BenchmarkUnified compares texts as large as they get: one line changed, and nothing in common.
func BenchmarkUnified(b *testing.B) {
	var before, after strings.Builder
	for i := range 64 << 10 / 16 {
		fmt.Fprintf(&before, "line %010d\n", i)
		fmt.Fprintf(&after, "LINE %010d\n", i*7)
	}
	for name, other := range map[string]string{
		"one-line": strings.Replace(before.String(), "line 0000002000", "another", 1), "all": after.String(),
		"short-lines": strings.Repeat("\n", 64<<10),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				unified(before.String(), other, true)
			}
		})
	}
}
