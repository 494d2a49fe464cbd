package event

import (
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestNewID(t *testing.T) {
	const each, callers = 5000, 4
	var (
		lists [callers][]string
		wg    sync.WaitGroup
	)
	before := time.Now().Truncate(time.Millisecond)
	for c := range callers {
		wg.Go(func() {
			for range each {
				lists[c] = append(lists[c], NewID())
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, list := range lists {
		last := ""
		for _, id := range list {
			if id <= last {
				t.Fatalf("%s came after %s", id, last)
			}
			last, seen[id] = id, true
		}
		u, err := uuid.Parse(list[0])
		if err != nil {
			t.Fatal(err)
		}
		sec, nsec := u.Time().UnixTime()
		if made := time.Unix(sec, nsec); u.Version() != 7 || u.Variant() != uuid.RFC4122 || made.Before(before) || made.After(time.Now().Add(time.Second)) {
			t.Errorf("%s: got version %d, variant %v, time %v; want 7, RFC4122, about %v", u, u.Version(), u.Variant(), made, before)
		}
	}
	if len(seen) != each*callers {
		t.Errorf("got %d different ids of %d", len(seen), each*callers)
	}
}

func TestIDsWhenTheClockMisbehaves(t *testing.T) {
	g := &ids{tail: 1<<64 - 1}
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	last := ""
	for i := range 10_000 { // more than a millisecond holds
		now := noon
		if i%3 == 0 {
			now = noon.Add(-time.Hour)
		}
		if id := g.next(now).String(); id <= last {
			t.Fatalf("id %d: %s came after %s", i, id, last)
		} else {
			last = id
		}
	}
	later := g.next(noon.Add(time.Second)).String()
	if got, want := later[14:], "7000-bfff-ffffffffffff"; got != want {
		t.Errorf("a new millisecond: got an id that ends in %s, want %s", got, want)
	}
}

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = NewID()
	}
}
