package file

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/hungfs"
	"github.com/apss-sensor/apss/shared/event"
)

// A watched file system that hangs is named, and its changes are told when it goes on.
func TestFileSystemThatHangs(t *testing.T) {
	fs := hungfs.Mount(t)
	d := t.TempDir()
	s, err := New(Config{
		Paths: []string{d, fs.Dir}, ReadPaths: []string{}, Rescan: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	s.pace.limit, s.pace.every = 50*time.Millisecond, 10*time.Millisecond
	r := &running{Sensor: s, events: make(chan *event.Event, 1<<10)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(e *event.Event) { r.events <- e }, func(context.Context) error { return nil })
	}()
	r.eventually(t, "it watches", func(Stats) bool { return s.Watching() == nil })
	fs.Hang()
	r.eventually(t, "it stands still", func(st Stats) bool { return st.Stalls > 0 && st.Stalled >= 50*time.Millisecond })
	if st := r.Stats(); !within(st.StalledAt, fs.Dir) {
		t.Errorf("got %q held up, want %q", st.StalledAt, fs.Dir)
	}
	write(t, d+"/a", "a")
	fs.Release()
	r.until(t, "create "+d+"/a")
	r.eventually(t, "it goes on", func(st Stats) bool { return st.StalledAt == "" })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
