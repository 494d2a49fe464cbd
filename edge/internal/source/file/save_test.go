package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The saver holds a snapshot until the events before it are durable, and after a write that failed takes only a whole one.
func TestSaver(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	synctest.Test(t, func(t *testing.T) {
		var faults atomic.Int64
		var durable atomic.Bool
		sv := &saver{
			store: &store{path: filepath.Join(dir, "state")},
			sealed: func(context.Context) error {
				if !durable.Load() {
					return errors.New("not yet")
				}
				return nil
			},
			fault: func(error) { faults.Add(1) },
			in:    make(chan snapshot, 1),
		}
		go sv.run(t.Context())
		whole := snapshot{whole: true, records: appendState([]byte(header), "/a", &state{kind: regular})}
		part := snapshot{records: appendState(nil, "/b", &state{kind: regular})}
		give := func(s snapshot) {
			sv.in <- s
			time.Sleep(10 * saveEvery) // the bubble's time
			synctest.Wait()
		}

		give(whole)
		if faults.Load() > 0 {
			t.Fatal("it wrote before the events were durable")
		}
		durable.Store(true)
		time.Sleep(2 * saveEvery)
		synctest.Wait()
		if faults.Load() != 1 || !sv.whole.Load() { // the folder is not there
			t.Fatalf("got %d faults, asked for a whole one: %v; want one fault and true", faults.Load(), sv.whole.Load())
		}
		must(t, os.Mkdir(dir, 0o700))
		give(part)
		if _, err := os.Stat(sv.store.path); err == nil {
			t.Fatal("a part was written after the whole was lost")
		}
		give(whole)
		give(part)
		close(sv.in)
		synctest.Wait()
		var paths []string
		found, err := (&store{path: sv.store.path}).load(func([]string) {}, func(p string, _ state) { paths = append(paths, p) })
		if !found || err != nil || len(paths) != 2 {
			t.Errorf("got %q, found %v, %v; want two paths", paths, found, err)
		}
	})
}

// What is outdated in the file does not pile up.
func TestStateFileIsRewritten(t *testing.T) {
	st := &store{path: filepath.Join(t.TempDir(), "state")}
	record := appendState(nil, "/a", &state{kind: regular})
	must(t, st.replace(append([]byte(header), record...)))
	n := 0
	for ; !st.crowded(); n++ {
		must(t, st.append(record))
	}
	if info, err := os.Stat(st.path); err != nil || info.Size() > 1<<17 || n < 100 {
		t.Errorf("got %d appends, size %v, %v; want it rewritten at some 64 KiB", n, info.Size(), err)
	}
	must(t, st.replace(append([]byte(header), record...)))
	if st.crowded() {
		t.Error("a new file is crowded")
	}
	must(t, st.close())
}
