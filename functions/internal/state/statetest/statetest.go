// Package statetest is the suite that every [state.Store] passes.
package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// Run runs the suite. Each call of open returns a store that sees an empty state of its own, and is closed by the suite.
// The suite waits on the real clock for records to expire; a store may take up to a second longer for it.
func Run(t *testing.T, open func(t *testing.T) state.Store) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, state.Store)
	}{
		{"nothing there", nothing},
		{"kept", kept},
		{"removed", removed},
		{"error of change", changeFails},
		{"collections apart", apart},
		{"names", names},
		{"limits", limits},
		{"atomic", atomic},
		{"removed and made at the same time", removedAndMade},
		{"only one", onlyOne},
		{"due", due},
		{"due moves", dueMoves},
		{"expires", expires},
		{"list", list},
		{"values are the store's own", aliasing},
		{"ended context", ended},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			c.run(t, s)
		})
	}
}

// base is a time far enough ahead that nothing expires meanwhile, and whole, so that a store may keep milliseconds only.
// It is the same for the whole run: records are compared that were made a second apart.
var base = sync.OnceValue(func() time.Time { return time.Now().Add(time.Hour).Truncate(time.Second) }) //nolint:gochecknoglobals // it never changes

func put(t *testing.T, s state.Store, collection, key string, r state.Record) {
	t.Helper()
	err := s.Update(t.Context(), collection, key, func(state.Record) (state.Record, error) { return r, nil })
	if err != nil {
		t.Fatalf("Update %s/%s: %v", collection, key, err)
	}
}

func get(t *testing.T, s state.Store, collection, key string) state.Record {
	t.Helper()
	r, err := s.Get(t.Context(), collection, key)
	if err != nil {
		t.Fatalf("Get %s/%s: %v", collection, key, err)
	}
	return r
}

func keys(t *testing.T, s state.Store, collection string, now time.Time, limit int) []string {
	t.Helper()
	found, err := s.Due(t.Context(), collection, now, limit)
	if err != nil {
		t.Fatalf("Due %s: %v", collection, err)
	}
	return found
}

func listed(t *testing.T, s state.Store) map[string]state.Record {
	t.Helper()
	all := map[string]state.Record{}
	err := s.List(t.Context(), "c", func(key string, r state.Record) bool {
		if _, twice := all[key]; twice {
			t.Errorf("%s is listed twice", key)
		}
		all[key] = r
		return true
	})
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return all
}

// same are times that are one instant, whatever zone they are read in.
var same = cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })

func wantRecord(t *testing.T, got, want state.Record) {
	t.Helper()
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func wantKeys(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got keys %q, want %q", got, want)
	}
}

func nothing(t *testing.T, s state.Store) {
	t.Helper()
	wantRecord(t, get(t, s, "c", "k"), state.Record{})
	wantKeys(t, keys(t, s, "c", base(), 10))
	if n := len(listed(t, s)); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
	called := false
	err := s.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
		called = true
		wantRecord(t, r, state.Record{})
		return state.Record{}, nil
	})
	if err != nil || !called {
		t.Errorf("removing what is not there: got %v, change called: %t; want nil and a call", err, called)
	}
}

func kept(t *testing.T, s state.Store) {
	t.Helper()
	for i, r := range []state.Record{
		{Value: []byte("v")},
		{Value: []byte{}},
		{Value: []byte{0, 255, '\n', 128}},
		{Value: []byte("v"), Due: base()},
		{Value: []byte("v"), Expires: base()},
		{Value: []byte("v"), Due: base(), Expires: base().Add(time.Hour)},
		{Value: []byte("old"), Due: time.Unix(1_000_000_000, 0)},
	} {
		key := strconv.Itoa(i)
		put(t, s, "c", key, r)
		wantRecord(t, get(t, s, "c", key), r)
		// What comes back is what the next change sees, and what it does not set is gone.
		err := s.Update(t.Context(), "c", key, func(old state.Record) (state.Record, error) {
			wantRecord(t, old, r)
			return state.Record{Value: []byte("next")}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		wantRecord(t, get(t, s, "c", key), state.Record{Value: []byte("next")})
	}
}

func removed(t *testing.T, s state.Store) {
	t.Helper()
	put(t, s, "c", "k", state.Record{Value: []byte("v"), Due: base(), Expires: base()})
	put(t, s, "c", "k", state.Record{Due: base()}) // without a value there is no record
	wantRecord(t, get(t, s, "c", "k"), state.Record{})
	wantKeys(t, keys(t, s, "c", base().Add(time.Hour), 10))
	if n := len(listed(t, s)); n != 0 {
		t.Errorf("got %d records, want none", n)
	}
}

func changeFails(t *testing.T, s state.Store) {
	t.Helper()
	r := state.Record{Value: []byte("v"), Due: base()}
	put(t, s, "c", "k", r)
	fault := errors.New("no")
	for _, key := range []string{"k", "new"} {
		err := s.Update(t.Context(), "c", key, func(state.Record) (state.Record, error) {
			return state.Record{Value: []byte("changed")}, fault
		})
		if !errors.Is(err, fault) {
			t.Errorf("got %v, want change's own error", err)
		}
		if errors.Is(err, state.ErrDown) {
			t.Error("an error of change is none of the store")
		}
	}
	wantRecord(t, get(t, s, "c", "k"), r)
	wantRecord(t, get(t, s, "c", "new"), state.Record{})
}

func apart(t *testing.T, s state.Store) {
	t.Helper()
	put(t, s, "a", "k", state.Record{Value: []byte("1"), Due: base()})
	put(t, s, "b", "k", state.Record{Value: []byte("2"), Due: base()})
	put(t, s, "a", "only", state.Record{Value: []byte("3"), Due: base().Add(time.Second)})
	put(t, s, "b", "k", state.Record{})
	wantRecord(t, get(t, s, "a", "k"), state.Record{Value: []byte("1"), Due: base()})
	wantKeys(t, keys(t, s, "a", base().Add(time.Hour), 10), "k", "only")
	wantKeys(t, keys(t, s, "b", base().Add(time.Hour), 10))
}

// names: instances are called by people, alerts' ids and fingerprints come from outside.
func names(t *testing.T, s state.Store) {
	t.Helper()
	all := []string{
		"a/b", "..", ".", "__k__", "a:b", "a b", "{a}", "a*?[x]", "ünïcode 世界", "quote'\"`", "line\nbreak", "%2F",
		strings.Repeat("k", state.MaxKey),
	}
	for i, name := range all {
		put(t, s, "c", name, state.Record{Value: []byte(strconv.Itoa(i)), Due: base().Add(time.Duration(i) * time.Second)})
	}
	for i, name := range all {
		if got := get(t, s, "c", name).Value; string(got) != strconv.Itoa(i) {
			t.Errorf("%q: got %q, want %d", name, got, i)
		}
	}
	wantKeys(t, keys(t, s, "c", base().Add(time.Hour), 100), all...)
	for _, collection := range []string{"notify.incidents.slack-on call", "a/b", "a:b"} {
		put(t, s, collection, "k", state.Record{Value: []byte(collection), Due: base()})
	}
	for _, collection := range []string{"notify.incidents.slack-on call", "a/b", "a:b"} {
		if got := get(t, s, collection, "k").Value; string(got) != collection {
			t.Errorf("collection %q: got %q", collection, got)
		}
	}
}

func limits(t *testing.T, s state.Store) {
	t.Helper()
	large := state.Record{Value: bytes.Repeat([]byte("v"), state.MaxValue)}
	put(t, s, "c", "large", large)
	whole := func(when string) {
		if got := get(t, s, "c", "large").Value; !bytes.Equal(got, large.Value) {
			t.Errorf("%s: got %d bytes, want the %d of the value", when, len(got), len(large.Value))
		}
	}
	whole("the largest")
	for _, c := range []struct {
		what, key string
		value     []byte
	}{
		{"a value too large", "large", append(large.Value, 'v')},
		{"a key too long", strings.Repeat("k", state.MaxKey+1), []byte("v")},
		{"an empty key", "", []byte("v")},
	} {
		err := s.Update(t.Context(), "c", c.key, func(state.Record) (state.Record, error) { return state.Record{Value: c.value}, nil })
		if !errors.Is(err, state.ErrLimit) {
			t.Errorf("%s: got %v, want ErrLimit", c.what, err)
		}
	}
	whole("after what was refused")
}

func list(t *testing.T, s state.Store) {
	t.Helper()
	const n = 250 // more than a page
	want := map[string]state.Record{}
	for i := range n {
		r := state.Record{Value: []byte(strconv.Itoa(i))}
		if i%2 == 0 {
			r.Due = base()
		}
		want[fmt.Sprint("k", i)] = r
		put(t, s, "c", fmt.Sprint("k", i), r)
	}
	if diff := cmp.Diff(want, listed(t, s), same); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	seen := 0
	err := s.List(t.Context(), "c", func(string, state.Record) bool {
		seen++
		return seen < 3
	})
	if err != nil || seen != 3 {
		t.Errorf("a list that is broken off: got %v after %d records, want nil after 3", err, seen)
	}
	// What is called may use the store.
	err = s.List(t.Context(), "c", func(key string, _ state.Record) bool {
		put(t, s, "c", key, state.Record{})
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(listed(t, s)); got != n-1 {
		t.Errorf("got %d records, want %d", got, n-1)
	}
}

func aliasing(t *testing.T, s state.Store) {
	t.Helper()
	value := []byte("abc")
	put(t, s, "c", "k", state.Record{Value: value})
	copy(value, "xxx")
	copy(get(t, s, "c", "k").Value, "yyy")
	_ = s.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
		copy(r.Value, "zzz")
		return r, errors.New("no")
	})
	for _, r := range listed(t, s) {
		copy(r.Value, "www")
	}
	if got := get(t, s, "c", "k").Value; string(got) != "abc" {
		t.Errorf("got %q, want what was put", got)
	}
}

func ended(t *testing.T, s state.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Update(ctx, "c", "k", func(state.Record) (state.Record, error) { return state.Record{Value: []byte("v")}, nil })
	_, err2 := s.Get(ctx, "c", "k")
	_, err3 := s.Due(ctx, "c", base(), 1)
	err4 := s.List(ctx, "c", func(string, state.Record) bool { return true })
	for i, err := range []error{err, err2, err3, err4} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("operation %d: got %v, want the context's error", i, err)
		}
		// Nobody is to take a caller that gave up for a store that is down.
		if errors.Is(err, state.ErrDown) {
			t.Errorf("operation %d: got %v, which says that the store is down", i, err)
		}
	}
}
