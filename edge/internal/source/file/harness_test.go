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
const patience = 20 * time.Second

// running is a sensor at work on the real kernel.
type running struct {
	*Sensor
	events chan *event.Event
	stop   func()
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
	ready := make(chan struct{})
	c.Logger = slog.New(&readyHandler{Handler: slog.DiscardHandler, ready: ready})
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	r := &running{Sensor: s, events: make(chan *event.Event, 1<<17)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(e *event.Event) { r.events <- e }, sealed) }()
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

func write(tb testing.TB, path, text string) {
	tb.Helper()
	must(tb, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
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
