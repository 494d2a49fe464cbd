package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// patience is how long a test waits for what must come. It is met on failure only.
const patience = 30 * time.Second

// running is a sensor at work on the real kernel.
type running struct {
	*Sensor
	events chan *event.Event
	stop   func()

	gate    sync.Mutex    // held while the sensor is to do nothing
	arrived chan struct{} // gets a value when an event is about to pass the gate
}

// at lets do happen at one moment: the sensor looks when all that the kernel has to tell of it has been taken in, so
// that what it reports does not depend on how fast the machine is. dir is a watched folder, in which the folder "hold" is
// made before, and "last" after do.
func (r *running) at(tb testing.TB, dir string, do func()) {
	tb.Helper()
	for len(r.arrived) > 0 {
		<-r.arrived
	}
	r.gate.Lock()
	defer r.gate.Unlock()
	must(tb, os.Mkdir(dir+"/hold", 0o755))
	select {
	case <-r.arrived: // the sensor waits at the gate with the event of hold
	case <-time.After(patience):
		tb.Fatal("the sensor did not stop")
	}
	do()
	must(tb, os.Mkdir(dir+"/last", 0o755))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !r.age(dir + "/last"); { // the kernel tells of it last
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatal("the kernel told nothing")
		}
	}
}

// age makes all that waits due, if path is among it.
func (r *running) age(path string) bool {
	r.hints.mu.Lock()
	defer r.hints.mu.Unlock()
	if r.hints.pending[path] == nil {
		return false
	}
	for _, h := range r.hints.pending {
		h.first, h.seen = h.first.Add(-time.Minute), h.seen.Add(-time.Minute)
	}
	return true
}

// start runs a sensor until its baseline stands.
func start(tb testing.TB, c Config) *running {
	tb.Helper()
	return startSealed(tb, c, func(context.Context) error { return nil })
}

func startSealed(tb testing.TB, c Config, sealed func(context.Context) error) *running {
	tb.Helper()
	if c.Settle == 0 {
		c.Settle = 150 * time.Millisecond // what a test does at one go is one change, also on a slow machine
	}
	if c.ReadPaths == nil {
		c.ReadPaths = []string{} // what others read on this machine is not the tests' concern
	}
	ready := make(chan struct{})
	c.Logger = slog.New(&readyHandler{Handler: slog.DiscardHandler, ready: ready})
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	r := &running{Sensor: s, events: make(chan *event.Event, 1<<17), arrived: make(chan struct{}, 1)}
	emit := func(e *event.Event) {
		select {
		case r.arrived <- struct{}{}:
		default:
		}
		r.gate.Lock()
		defer r.gate.Unlock()
		r.events <- e
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, emit, sealed) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Errorf("Run: got %v, want nil", err)
			}
		case <-time.After(patience):
			tb.Error("Run did not return after its context ended")
		}
	})
	tb.Cleanup(r.stop)
	select {
	case <-ready:
	case <-time.After(patience):
		tb.Fatal("the baseline does not stand")
	}
	return r
}

type readyHandler struct {
	slog.Handler
	ready chan struct{}
	once  sync.Once
}

func (h *readyHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *readyHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "file sensor watches" {
		h.once.Do(func() { close(h.ready) })
	}
	return nil
}

// next returns the next event.
func (r *running) next(tb testing.TB) *event.Event {
	tb.Helper()
	select {
	case e := <-r.events:
		return e
	case <-time.After(patience):
		tb.Fatalf("no event came; stats %+v", r.Stats())
		return nil
	}
}

// want takes the next events, which must be these: "operation path", in any order.
func (r *running) want(tb testing.TB, want ...string) map[string]*event.Event {
	tb.Helper()
	got := make(map[string]*event.Event)
	for range want {
		e := r.next(tb)
		got[e.File.Operation+" "+e.File.Path] = e
	}
	for _, w := range want {
		if got[w] == nil {
			tb.Fatalf("got events %q, want %q", keys(got), want)
		}
	}
	return got
}

// until takes events up to the one that is wanted and returns it.
func (r *running) until(tb testing.TB, want string) *event.Event {
	tb.Helper()
	for {
		if e := r.next(tb); e.File.Operation+" "+e.File.Path == want {
			return e
		}
	}
}

// eventually waits until the stats are as wanted: for what makes no event.
func (r *running) eventually(tb testing.TB, what string, ok func(Stats) bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !ok(r.Stats()); {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("%s: never true; stats %+v", what, r.Stats())
		}
	}
}

func (r *running) hashed(tb testing.TB) {
	tb.Helper()
	r.eventually(tb, "everything is hashed", func(s Stats) bool { return s.Unhashed == 0 && s.Watches > 0 })
}

func keys(m map[string]*event.Event) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

func must(tb testing.TB, errs ...error) {
	tb.Helper()
	for _, err := range errs {
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// write makes text the content of path in one step, so that no look falls between two: a new file comes by a rename, and
// one that is there is written over, with the rest cut off where text is shorter.
func write(tb testing.TB, path, text string) {
	tb.Helper()
	must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		must(tb, err)
		if info, err := f.Stat(); err != nil || info.Size() > int64(len(text)) {
			must(tb, err, f.Truncate(int64(len(text))))
		}
		must(tb, f.Close())
		return
	}
	f, err = os.CreateTemp(tb.TempDir(), "write")
	must(tb, err)
	_, err = f.WriteString(text)
	must(tb, err, f.Chmod(0o644), f.Close(), os.Rename(f.Name(), path))
}

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

func shas(e *event.Event) string {
	var before string
	if e.File.Previous != nil {
		before = e.File.Previous.SHA256
	}
	return fmt.Sprintf("%.6s>%.6s", before, e.File.SHA256)
}

func change6(before, after string) string {
	short := func(s string) string {
		if strings.HasPrefix(s, "-") {
			return ""
		}
		return sum(s)
	}
	return fmt.Sprintf("%.6s>%.6s", short(before), short(after))
}
