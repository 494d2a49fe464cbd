package statetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// atomic: no change is lost, however many are made at once.
func atomic(t *testing.T, s state.Store) {
	t.Helper()
	const callers, each = 8, 25
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				err := s.Update(t.Context(), "c", "n", func(r state.Record) (state.Record, error) {
					n, _ := strconv.Atoi(string(r.Value)) // nothing is 0
					return state.Record{Value: []byte(strconv.Itoa(n + 1)), Due: base()}, nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, want := string(get(t, s, "c", "n").Value), strconv.Itoa(callers*each); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// removedAndMade: of those who find nothing and make a record, and those who find one and remove it, as many makes as
// removes have happened.
func removedAndMade(t *testing.T, s state.Store) {
	t.Helper()
	var mu sync.Mutex
	balance := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 15 {
				step := 0
				err := s.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
					if r.Value == nil {
						step = 1
						return state.Record{Value: []byte("v")}, nil
					}
					step = -1
					return state.Record{}, nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				balance += step
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	there := 0
	if get(t, s, "c", "k").Value != nil {
		there = 1
	}
	if balance != there {
		t.Errorf("got a balance of %d with %d there", balance, there)
	}
}

// onlyOne: what many want at once, one gets.
func onlyOne(t *testing.T, s state.Store) {
	t.Helper()
	taken := errors.New("taken")
	for round := range 5 {
		key := fmt.Sprint("lease", round)
		var mu sync.Mutex
		var winners []int
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				err := s.Update(t.Context(), "c", key, func(r state.Record) (state.Record, error) {
					if r.Value != nil {
						return r, taken
					}
					return state.Record{Value: []byte(strconv.Itoa(i)), Expires: base()}, nil
				})
				switch {
				case err == nil:
					mu.Lock()
					winners = append(winners, i)
					mu.Unlock()
				case !errors.Is(err, taken):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 || string(get(t, s, "c", key).Value) != strconv.Itoa(winners[0]) {
			t.Errorf("got winners %v, and the record says %q", winners, get(t, s, "c", key).Value)
		}
	}
}
