package swap

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// fake is a table in memory that takes its time.
type fake struct {
	takes time.Duration

	mu             sync.Mutex
	entries        map[string]Entry
	reads, writes  int
	beforeReplace  func(entries map[string]Entry)
	afterReplace   error // lost answers: the write is done
	hangs, refuses bool
	full           error // nothing is written
}

func (f *fake) wait(ctx context.Context) error {
	f.mu.Lock()
	hangs, refuses := f.hangs, f.refuses
	f.mu.Unlock()
	if refuses {
		return state.Down(ctx, errors.New("refused"))
	}
	var timer <-chan time.Time
	if !hangs {
		timer = time.After(f.takes)
	}
	select {
	case <-timer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fake) Read(ctx context.Context, _, key string) (Entry, error) {
	if err := f.wait(ctx); err != nil {
		return Entry{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return f.entries[key], nil
}

func (f *fake) Replace(ctx context.Context, _, key string, old, next Entry) (Entry, error) {
	if err := f.wait(ctx); err != nil {
		return Entry{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full != nil {
		return Entry{}, f.full
	}
	if f.beforeReplace != nil {
		f.beforeReplace(f.entries)
	}
	if f.entries[key].Mark == old.Mark {
		f.writes++
		f.entries[key] = next
		if f.afterReplace != nil {
			return Entry{}, f.afterReplace
		}
	}
	return f.entries[key], nil
}

func add(n int) func(state.Record) (state.Record, error) {
	return func(r state.Record) (state.Record, error) {
		old, _ := strconv.Atoi(string(r.Value)) // nothing is 0
		return state.Record{Value: []byte(strconv.Itoa(old + n))}, nil
	}
}

// TestTogether: what comes while a write is under way goes in the next one, and each gets its own error.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: 10 * time.Millisecond, entries: map[string]Entry{}}
		u := New(f, time.Second)
		odd := errors.New("odd")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				err := u.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
					if i%2 == 1 {
						r.Value = append(r.Value, "spoilt"...)
						return r, odd
					}
					return add(1)(r)
				})
				if (i%2 == 1) != errors.Is(err, odd) {
					t.Errorf("change %d: got %v", i, err)
				}
			})
		}
		wg.Wait()
		if got := string(f.entries["k"].Value); got != "50" {
			t.Errorf("got %s, want 50", got)
		}
		if f.reads != 2 || f.writes > 2 {
			t.Errorf("got %d reads and %d writes, want 2 of each at most: of the first, and of those who waited for it", f.reads, f.writes)
		}
		u.Close()
		if err := u.Update(t.Context(), "c", "k", add(1)); err == nil {
			t.Error("a change after Close is made")
		}
		if len(u.next) != 0 {
			t.Errorf("%d records are still being changed", len(u.next))
		}
	})
}

// TestUnchanged: what is as it was is not written.
func TestUnchanged(t *testing.T) {
	f := &fake{entries: map[string]Entry{"k": {Mark: 1, Record: state.Record{Value: []byte("v")}}}}
	u := New(f, time.Second)
	defer u.Close()
	for _, key := range []string{"k", "none"} {
		err := u.Update(t.Context(), "c", key, func(r state.Record) (state.Record, error) { return r, nil })
		if err != nil || f.writes != 0 {
			t.Errorf("%s: got %d writes and %v, want none", key, f.writes, err)
		}
	}
}

// TestLostAnswer: a library that tries again after a lost answer finds its own mark, and the change is made once.
func TestLostAnswer(t *testing.T) {
	f := &fake{entries: map[string]Entry{}}
	u := New(retrying{f}, time.Second)
	defer u.Close()
	f.afterReplace = errors.New("connection reset")
	calls := 0
	err := u.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
		calls++
		return add(1)(r)
	})
	if got := string(f.entries["k"].Value); err != nil || got != "1" || calls != 1 {
		t.Errorf("got %s after %d calls and %v, want 1", got, calls, err)
	}
}

// retrying is a table whose library tries again.
type retrying struct{ *fake }

func (r retrying) Replace(ctx context.Context, collection, key string, old, next Entry) (Entry, error) {
	if e, err := r.fake.Replace(ctx, collection, key, old, next); err == nil {
		return e, nil
	}
	return r.fake.Replace(ctx, collection, key, old, next)
}

func TestTrouble(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(*fake)
		down  bool
		after time.Duration
	}{
		{"refuses", func(f *fake) { f.refuses = true }, true, 0},
		{"hangs", func(f *fake) { f.hangs = true }, true, time.Second},
		{"always changed by others", func(f *fake) {
			f.beforeReplace = func(e map[string]Entry) { e["k"] = Entry{Mark: e["k"].Mark + 2} }
		}, false, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{takes: 7 * time.Millisecond, entries: map[string]Entry{}}
				tt.set(f)
				u := New(f, time.Second)
				begin := time.Now()
				err := u.Update(t.Context(), "c", "k", add(1))
				if err == nil || errors.Is(err, state.ErrDown) != tt.down || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want down: %t", err, tt.down)
				}
				if took := time.Since(begin); took != tt.after {
					t.Errorf("got it after %v, want %v", took, tt.after)
				}
				u.Close()
			})
		})
	}
}

// TestPredecessorLost: a change that answered to another's that could not be kept fails with it.
func TestPredecessorLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{takes: time.Millisecond, entries: map[string]Entry{}, full: fmt.Errorf("%w: it is full", state.ErrDown)}
		u := New(f, time.Second)
		taken := errors.New("taken")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				err := u.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
					if r.Value != nil {
						return r, taken
					}
					return add(1)(r)
				})
				if !errors.Is(err, state.ErrDown) {
					t.Errorf("got %v, want ErrDown", err)
				}
			})
		}
		wg.Wait()
		u.Close()
	})
}
