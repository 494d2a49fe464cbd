package statetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// records that a benchmark goes through.
const records = 10_000

func benchKeys() []string {
	keys := make([]string, records)
	for i := range keys {
		keys[i] = fmt.Sprintf("0194b0c0-7d00-7000-8000-%012d", i)
	}
	return keys
}

// value of i is that of an alert's id under way.
func value(i int) []byte {
	return fmt.Appendf(nil, "0194b0c0-7d00-7000-8000-%012d 1763811277000000000", i)
}

// BenchmarkUpdate measures changes of many records, one after the other.
func BenchmarkUpdate(b *testing.B, s state.Store) {
	b.Helper()
	keys, at, i := benchKeys(), time.Now().Add(time.Hour), 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		err := s.Update(b.Context(), "seen", keys[i%len(keys)], func(state.Record) (state.Record, error) {
			return state.Record{Value: value(i), Expires: at}, nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGet measures reads.
func BenchmarkGet(b *testing.B, s state.Store) {
	b.Helper()
	err := s.Update(b.Context(), "seen", "k", func(state.Record) (state.Record, error) { return state.Record{Value: value(0)}, nil })
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context(), "seen", "k"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkContended measures changes of one record by a hundred at once, as a storm of one fingerprint makes them.
func BenchmarkContended(b *testing.B, s state.Store) {
	b.Helper()
	b.SetParallelism(100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			err := s.Update(b.Context(), "incidents", "k", func(state.Record) (state.Record, error) {
				return state.Record{Value: value(0), Due: time.Now()}, nil
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
