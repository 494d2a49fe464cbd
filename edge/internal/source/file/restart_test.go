package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWhileDown(t *testing.T) {
	t.Parallel()
	d, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	write(t, d+"/same", "same")
	write(t, d+"/a", "a")
	write(t, d+"/b", "b")
	write(t, d+"/gone", "gone")
	write(t, d+"/touched", "t")
	write(t, d+"/w/anew", "w")
	c := Config{Paths: []string{d}, Exclude: []string{d + "/w"}, StateFile: state}
	r := start(t, c)
	r.hashed(t)
	r.stop()

	r = start(t, c) // nothing changed
	r.stop()
	if len(r.events) > 0 {
		t.Fatalf("got %+v, want nothing", r.next(t).File)
	}

	write(t, d+"/a", "A")
	must(t, os.Rename(d+"/b", d+"/c"), os.Remove(d+"/gone"), os.Chtimes(d+"/touched", time.Time{}, time.Unix(1, 0)))
	write(t, d+"/new", "new")
	c.Exclude = nil
	other := t.TempDir()
	write(t, other+"/x", "not watched before")
	c.Paths = append(c.Paths, other)
	r = start(t, c)
	got := r.want(t, "modify "+d+"/a", "rename "+d+"/c", "delete "+d+"/gone", "create "+d+"/new", "create "+d+"/w", "create "+d+"/w/anew")
	for name, e := range got {
		if e.Metadata["while_down"] != true {
			t.Errorf("%s: got metadata %v, want while_down", name, e.Metadata)
		}
	}
	if got, want := shas(got["modify "+d+"/a"]), change6("a", "A"); got != want {
		t.Errorf("hashes: got %s, want %s", got, want)
	}
	write(t, d+"/a", "live")
	if e := r.want(t, "modify "+d+"/a")["modify "+d+"/a"]; e.Metadata["while_down"] != nil {
		t.Error("a live change is marked while_down")
	}
	r.stop()
}

// What is not durable is told again.
func TestStateIsSavedOnlyAfterTheEvents(t *testing.T) {
	t.Parallel()
	d, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	write(t, d+"/a", "a")
	c := Config{Paths: []string{d}, StateFile: state}
	r := start(t, c)
	r.hashed(t)
	r.stop()
	before, err := os.ReadFile(state)
	must(t, err)

	r = startSealed(t, c, func(context.Context) error { return errors.New("the spool is full") })
	write(t, d+"/a", "changed")
	r.want(t, "modify "+d+"/a")
	r.stop()
	if after, err := os.ReadFile(state); err != nil || string(after) != string(before) {
		t.Fatalf("the state file was written although nothing was durable (%v)", err)
	}

	r = start(t, c)
	r.want(t, "modify "+d+"/a")
	r.stop()
	r = start(t, c)
	r.stop()
	if len(r.events) > 0 {
		t.Errorf("got %+v again after it was durable", r.next(t).File)
	}
}

func TestDamagedStateFile(t *testing.T) {
	d, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	write(t, d+"/a", "a")
	write(t, d+"/b", "b")
	c := Config{Paths: []string{d}, StateFile: state}
	r := start(t, c)
	r.hashed(t)
	r.stop()
	data, err := os.ReadFile(state)
	must(t, err)
	for name, test := range map[string]struct {
		data  []byte
		fault bool
	}{
		"torn":    {append(append([]byte{}, data...), 9, 0, 0, 0, 1), false},
		"zeros":   {append(append([]byte{}, data...), make([]byte, 5000)...), false},
		"garbled": {append(append([]byte{}, data[:40]...), append([]byte{data[40] ^ 1}, data[41:]...)...), true},
		"foreign": {[]byte("#!/bin/sh\necho this is a script\n"), true},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.WriteFile(state, test.data, 0o600))
			_ = os.Remove(state + corruptSuffix)
			r := start(t, c)
			write(t, d+"/last", name)
			r.until(t, "create "+d+"/last")
			r.stop()
			if len(r.events) > 0 || r.Stats().Created != 1 {
				t.Errorf("got %+v, want no event but the last", r.Stats())
			}
			if got := r.Stats().StateFaults > 0; got != test.fault {
				t.Errorf("fault counted: got %v, want %v", got, test.fault)
			}
			if _, err := os.Stat(state + corruptSuffix); (err == nil) != test.fault {
				t.Errorf("set aside: got %v, want %v", err, test.fault)
			}
			must(t, os.Remove(d+"/last"), os.Remove(state))
			start(t, c).stop()
		})
	}
}
