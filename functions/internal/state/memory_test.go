package state_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/statetest"
)

func TestMemory(t *testing.T) {
	statetest.Run(t, func(*testing.T) state.Store { return state.NewMemory(10_000, 64<<20) })
}

func put(t *testing.T, s state.Store, collection, key string, r state.Record) {
	t.Helper()
	err := s.Update(t.Context(), collection, key, func(state.Record) (state.Record, error) { return r, nil })
	if err != nil {
		t.Fatal(err)
	}
}

func there(t *testing.T, s state.Store, collection string) (keys []string) {
	t.Helper()
	err := s.List(t.Context(), collection, func(key string, _ state.Record) bool {
		keys = append(keys, key)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

func TestMemoryGivesWay(t *testing.T) {
	v := state.Record{Value: []byte("v")}
	due := state.Record{Value: []byte("v"), Due: time.Now().Add(time.Hour)}
	type step struct {
		collection, key string
		record          state.Record
	}
	for _, tt := range []struct {
		name  string
		steps []step
		want  map[string][]string
	}{
		{"the oldest", []step{{"a", "1", v}, {"a", "2", v}, {"a", "3", v}, {"a", "4", v}}, map[string][]string{"a": {"2", "3", "4"}}},
		{"the least recently changed", []step{{"a", "1", v}, {"a", "2", v}, {"a", "3", v}, {"a", "1", v}, {"a", "4", v}},
			map[string][]string{"a": {"1", "3", "4"}}},
		{"nothing due first", []step{{"a", "1", due}, {"a", "2", due}, {"a", "3", v}, {"a", "4", due}}, map[string][]string{"a": {"1", "2", "4"}}},
		{"due when there is nothing else", []step{{"a", "1", due}, {"a", "2", due}, {"a", "3", due}, {"a", "4", due}},
			map[string][]string{"a": {"2", "3", "4"}}},
		{"of the largest collection", []step{{"b", "1", v}, {"a", "1", due}, {"a", "2", due}, {"a", "3", due}},
			map[string][]string{"a": {"2", "3"}, "b": {"1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := state.NewMemory(3, 1<<20)
			for _, s := range tt.steps {
				put(t, m, s.collection, s.key, s.record)
			}
			for collection, want := range tt.want {
				if got := there(t, m, collection); !slices.Equal(got, want) {
					t.Errorf("collection %s: got %q, want %q", collection, got, want)
				}
			}
			if _, _, evicted := m.Usage(); evicted != 1 {
				t.Errorf("got %d that gave way, want 1", evicted)
			}
		})
	}
}

// TestMemoryBounded: whatever is done, no bound is passed, and what it says to keep is what it keeps.
func TestMemoryBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records, size = 50, 64 << 10
		m := state.NewMemory(records, size)
		r := rand.New(rand.NewPCG(1, 2))
		for range 20_000 {
			rec := state.Record{}
			if r.IntN(5) > 0 {
				rec.Value = make([]byte, r.IntN(4000))
			}
			if r.IntN(2) == 0 {
				rec.Due = time.Now().Add(time.Duration(r.IntN(60)) * time.Second)
			}
			if r.IntN(2) == 0 {
				rec.Expires = time.Now().Add(time.Duration(r.IntN(60)) * time.Second)
			}
			put(t, m, fmt.Sprint(r.IntN(3)), fmt.Sprint(r.IntN(60)), rec)
			if n, bytes, _ := m.Usage(); n > records || bytes > size {
				t.Fatalf("got %d records of %d bytes", n, bytes)
			}
			time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
		}
		n, _, evicted := m.Usage()
		if got := len(there(t, m, "0")) + len(there(t, m, "1")) + len(there(t, m, "2")); got != n || evicted == 0 {
			t.Errorf("%d records are listed, %d counted; %d gave way", got, n, evicted)
		}
		time.Sleep(time.Hour)
		for c := range 3 {
			for _, key := range there(t, m, fmt.Sprint(c)) {
				put(t, m, fmt.Sprint(c), key, state.Record{})
			}
		}
		if n, bytes, _ := m.Usage(); n != 0 || bytes != 0 {
			t.Errorf("empty: got %d records of %d bytes", n, bytes)
		}
	})
}

// TestMemoryDue: of many records the longest due are found, in their order.
func TestMemoryDue(t *testing.T) {
	const records = 2000
	m := state.NewMemory(records, 64<<20)
	begin := time.Now().Truncate(time.Second)
	for i, after := range rand.New(rand.NewPCG(1, 2)).Perm(records) {
		if i%3 == 0 { // it moves within the heap
			put(t, m, "c", fmt.Sprint(after), state.Record{Value: []byte("v"), Due: begin.Add(time.Hour)})
		}
		put(t, m, "c", fmt.Sprint(after), state.Record{Value: []byte("v"), Due: begin.Add(time.Duration(after) * time.Millisecond)})
	}
	for _, limit := range []int{1, 2, 7, 500, 1000, 1001, 5000} {
		got, err := m.Due(t.Context(), "c", begin.Add(999*time.Millisecond), limit)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for i := range min(limit, 1000) {
			want = append(want, fmt.Sprint(i))
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: got %d keys %.60q, want %d in their order", limit, len(got), got, len(want))
		}
	}
}

// BenchmarkMemoryDue measures a look for 500 of 100,000 records that are due.
func BenchmarkMemoryDue(b *testing.B) {
	m := state.NewMemory(100_000, 256<<20)
	for i := range 100_000 {
		err := m.Update(b.Context(), "c", fmt.Sprint(i), func(state.Record) (state.Record, error) {
			return state.Record{Value: []byte("v"), Due: time.Unix(int64(i), 0)}, nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if keys, err := m.Due(b.Context(), "c", time.Now(), 500); err != nil || len(keys) != 500 {
			b.Fatal(len(keys), err)
		}
	}
}

func BenchmarkMemoryUpdate(b *testing.B) {
	statetest.BenchmarkUpdate(b, state.NewMemory(100_000, 256<<20))
}

func BenchmarkMemoryGet(b *testing.B) { statetest.BenchmarkGet(b, state.NewMemory(100_000, 256<<20)) }

func BenchmarkMemoryContended(b *testing.B) {
	statetest.BenchmarkContended(b, state.NewMemory(100_000, 256<<20))
}
