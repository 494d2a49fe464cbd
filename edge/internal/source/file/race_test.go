package file

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/source/clocktest"
	"github.com/apss-sensor/apss/shared/event"
)

// byHand is a sensor whose loop the test turns, so that a look falls where the test wants it. What the kernel tells waits
// until listen.
type byHand struct {
	*Sensor
	told    []string // "operation path <old path"
	unheard []notice // read, and not told yet
}

func newByHand(t *testing.T, c Config) *byHand {
	t.Helper()
	c.ReadPaths, c.Logger = []string{}, slog.New(slog.DiscardHandler)
	s, err := New(c)
	must(t, err)
	h := &byHand{Sensor: s}
	s.emit = func(e *event.Event) {
		line := e.File.Operation + " " + e.File.Path
		if from, ok := e.Metadata["renamed_from"]; ok {
			line += fmt.Sprint(" <", from)
		}
		h.told = append(h.told, line)
	}
	s.watches.fs, err = newNotifier()
	must(t, err)
	t.Cleanup(s.watches.fs.close)
	s.hints.fence, err = newFence(s.watches.fs)
	must(t, err)
	t.Cleanup(func() { s.hints.fence.file.Close() })
	s.begin(t.Context())
	return h
}

// listen lets the sensor hear what the kernel told so far and tells from now on.
func (h *byHand) listen() {
	for _, told := range h.unheard {
		h.hints.add(told, time.Now())
	}
	go h.hints.pump(h.watches.fs) // which ends with the notifier
}

// heard waits until all that the kernel told is in, on a machine that stalls too.
func (h *byHand) heard(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); !h.hints.caughtUp(); {
		if time.Now().After(deadline) {
			t.Fatal("the kernel's events did not come")
		}
	}
}

// finish looks at all that is left.
func (h *byHand) finish(t *testing.T) {
	t.Helper()
	h.heard(t)
	b := newBatch(t.Context())
	due, _ := h.hints.take(time.Now().Add(time.Hour), time.Time{}, h.busy)
	h.process(b, due)
	h.flush(b)
	slices.Sort(h.told)
}

// wantMove is what is told of the move of d/f, in which are g and g/x, to d/m.
func (h *byHand) wantMove(t *testing.T, d string) {
	t.Helper()
	want := []string{
		"rename " + d + "/m <" + d + "/f", "rename " + d + "/m/g <" + d + "/f/g", "rename " + d + "/m/g/x <" + d + "/f/g/x",
	}
	if diff := cmp.Diff(want, h.told); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

// A look that comes between a rename and the kernel's word of it tells a rename all the same, wherever the file is
// missed first.
func TestLookBeforeTheKernelsWord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(h *byHand, b *batch, d string)
	}{
		{"backlog", func(h *byHand, b *batch, _ string) { h.catchUp(b) }},
		{"write hint", func(h *byHand, b *batch, d string) {
			h.process(b, []*hint{{path: d + "/f/g/x", ops: written}})
		}},
		{"poll", func(h *byHand, b *batch, d string) {
			h.polled[h.top.lookup(d+"/f/g")] = struct{}{}
			h.poll(b, cause{origin: rescan, at: time.Now()})
		}},
		{"rescan", func(h *byHand, b *batch, _ string) {
			h.all(b, cause{origin: rescan, at: time.Now(), deep: true, renew: true})
		}},
		{"its new name first", func(h *byHand, b *batch, d string) {
			h.process(b, []*hint{{path: d + "/m", ops: created}})
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := t.TempDir()
			write(t, d+"/f/g/x", "x")
			h := newByHand(t, Config{Paths: []string{d}})
			must(t, os.Rename(d+"/f", d+"/m"))
			h.listen()
			b := newBatch(t.Context())
			test.do(h, b, d)
			h.flush(b)
			h.finish(t)
			h.wantMove(t, d)
		})
	}
}

// When the kernel's word is lost, what is missed waits for the comparison of everything.
func TestLookAfterLostEvents(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/f/g/x", "x")
	h := newByHand(t, Config{Paths: []string{d}})
	h.watches.fs.remove(d)
	h.watches.fs.remove(d + "/f")
	must(t, os.Rename(d+"/f", d+"/m"))
	h.listen()
	h.hints.fail(errOverflow)
	b := newBatch(t.Context())
	h.catchUp(b)
	if lost, _ := h.hints.overflowed(); !lost || len(h.told) > 0 {
		t.Errorf("got %q and overflow %v before the comparison, want nothing told and an overflow", h.told, lost)
	}
	h.all(b, cause{origin: rescan, at: time.Now(), deep: true, renew: true})
	h.flush(b)
	h.finish(t)
	h.wantMove(t, d)
}

// A rename at any moment of a comparison is one.
func TestRenameDuringRescan(t *testing.T) {
	t.Parallel()
	for step := range 7 { // d, its folders, and their files: more than enough
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			t.Parallel()
			d := t.TempDir()
			write(t, d+"/a", "a")
			write(t, d+"/f/g/x", "x")
			write(t, d+"/z", "z")
			h := newByHand(t, Config{Paths: []string{d}})
			h.listen()
			b := newBatch(t.Context())
			looks := 0
			b.stop = func() bool {
				if looks++; looks == step+1 {
					must(t, os.Rename(d+"/f", d+"/m"))
				}
				return false
			}
			h.all(b, cause{origin: rescan, at: time.Now(), deep: true, renew: true})
			if looks <= step {
				must(t, os.Rename(d+"/f", d+"/m"))
			}
			h.flush(b)
			h.finish(t)
			h.wantMove(t, d)
		})
	}
}

// A file that is moved into a folder made a moment ago, of whose entries the kernel tells nothing, is renamed.
func TestRenameIntoANewFolder(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/f", "x")
	h := newByHand(t, Config{Paths: []string{d}, Settle: time.Hour})
	h.listen()
	h.catchUp(newBatch(t.Context()))
	overwrite(t, d+"/waits", "until it is written whole")
	must(t, os.MkdirAll(d+"/new/er", 0o755), os.Rename(d+"/f", d+"/new/er/g"))
	h.heard(t)
	b := newBatch(t.Context())
	due, _ := h.hints.take(time.Now().Add(pairing), time.Time{}, h.busy) // the rename, long before the folder has settled
	if slices.ContainsFunc(due, func(h *hint) bool { return h.path == d+"/waits" }) {
		t.Error("a file is looked at that is not written yet, want only folders")
	}
	h.process(b, due)
	h.flush(b)
	h.finish(t)
	want := []string{
		"create " + d + "/new", "create " + d + "/new/er", "create " + d + "/waits", "rename " + d + "/new/er/g <" + d + "/f",
	}
	if diff := cmp.Diff(want, h.told); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

// A rename is one also when the reader of the kernel's queue stops between its two names.
func TestRenameThatIsReadInHalves(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/f/g/x", "x")
	h := newByHand(t, Config{Paths: []string{d}, Settle: time.Hour})
	must(t, os.Rename(d+"/f", d+"/m"))
	must(t, h.watches.fs.file.SetReadDeadline(time.Now().Add(patience)))
	for moved := false; !moved; { // before it come the neighbours of d
		notices, err := h.watches.fs.read(nil)
		if err != nil {
			t.Fatalf("the kernel told nothing of the old name: %v", err)
		}
		at := slices.Index(notices, notice{d + "/f", movedAway})
		if moved = at >= 0; moved {
			notices, h.unheard = notices[:at+1], notices[at+1:]
		}
		for _, told := range notices {
			h.hints.add(told, time.Now())
		}
	}
	must(t, h.watches.fs.file.SetReadDeadline(time.Time{}))
	due, _ := h.hints.take(time.Now().Add(pairing), time.Time{}, h.busy)
	h.listen()
	b := newBatch(t.Context())
	h.process(b, due)
	h.flush(b)
	h.finish(t)
	h.wantMove(t, d)
}

// A clock that is set changes no waiting time.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/f", "x")
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		for name, ago := range map[string]time.Duration{"busy": 0, "calm": 10 * time.Minute} {
			h := newByHand(t, Config{Paths: []string{d}, Settle: time.Minute})
			h.made = h.made.Add(-time.Hour)
			h.listen()
			h.catchUp(newBatch(t.Context()))
			overwrite(t, d+"/f", fmt.Sprint(by, name))
			b := newBatch(t.Context())
			n := h.top.lookup(d + "/f")
			h.look(b, n.parent, d, "f", cause{at: clocktest.Set(t, time.Now().Add(-ago), by), written: true})
			h.flush(b)
			if got := h.busy(d + "/f"); got != (name == "busy") {
				t.Errorf("a change %v ago on a clock that was %v off: busy %t", ago, by, got)
			}
		}
	}
}

// A file that is written to and then renamed waits no longer than its new name.
func TestRenameOfWhatIsBusy(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/log", "one")
	h := newByHand(t, Config{Paths: []string{d}})
	h.listen()
	h.catchUp(newBatch(t.Context()))
	h.top.lookup(d + "/log").modified = h.elapsed(time.Now().Add(time.Hour))
	overwrite(t, d+"/log", "two")
	must(t, os.Rename(d+"/log", d+"/log.1"))
	overwrite(t, d+"/log", "three")
	for range 2 { // the first look is at what is due after the rest of what is not busy
		h.heard(t)
		b := newBatch(t.Context())
		due, _ := h.hints.take(time.Now().Add(h.config.Settle/3), time.Time{}, h.busy)
		h.process(b, due)
		h.flush(b)
	}
	h.finish(t)
	want := []string{"create " + d + "/log", "modify " + d + "/log.1 <" + d + "/log", "rename " + d + "/log.1 <" + d + "/log"}
	if diff := cmp.Diff(want, h.told); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}
