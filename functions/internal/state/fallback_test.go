package state_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/statetest"
)

// faulty is a store that is down, or hangs, when told to.
type faulty struct {
	*state.Memory
	down, hang atomic.Bool
}

func newFaulty() *faulty { return &faulty{Memory: state.NewMemory(10_000, 64<<20)} }

func (f *faulty) fault(ctx context.Context) error {
	if f.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.down.Load() {
		return fmt.Errorf("%w: connection refused", state.ErrDown)
	}
	return nil
}

func (f *faulty) Update(ctx context.Context, c, k string, change func(state.Record) (state.Record, error)) error {
	if err := f.fault(ctx); err != nil {
		return err
	}
	return f.Memory.Update(ctx, c, k, change)
}

func (f *faulty) Get(ctx context.Context, c, k string) (state.Record, error) {
	if err := f.fault(ctx); err != nil {
		return state.Record{}, err
	}
	return f.Memory.Get(ctx, c, k)
}

func (f *faulty) Due(ctx context.Context, c string, now time.Time, limit int) ([]string, error) {
	if err := f.fault(ctx); err != nil {
		return nil, err
	}
	return f.Memory.Due(ctx, c, now, limit)
}

func (f *faulty) List(ctx context.Context, c string, each func(string, state.Record) bool) error {
	if err := f.fault(ctx); err != nil {
		return err
	}
	return f.Memory.List(ctx, c, each)
}

func (f *faulty) Volatile() bool { return false }

func newFallback(t *testing.T, first state.Store) *state.Fallback {
	t.Helper()
	f, err := state.NewFallback(state.FallbackConfig{
		First: first, Memory: state.NewMemory(10_000, 64<<20), Timeout: time.Second,
		Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFallbackSuite: it is a store, while the first one is up and while it is down.
func TestFallbackSuite(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprintf("down=%t", down), func(t *testing.T) {
			statetest.Run(t, func(t *testing.T) state.Store {
				t.Helper()
				first := newFaulty()
				first.down.Store(down)
				return newFallback(t, first)
			})
		})
	}
}

func TestFallback(t *testing.T) {
	value := func(t *testing.T, s state.Store, key string) string {
		t.Helper()
		r, err := s.Get(t.Context(), "c", key)
		if err != nil {
			t.Fatal(err)
		}
		return string(r.Value)
	}
	for _, trouble := range []string{"down", "hangs"} {
		t.Run(trouble, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := newFaulty()
				f := newFallback(t, first)
				v := func(s string) state.Record { return state.Record{Value: []byte(s)} }
				put(t, f, "c", "before", v("1"))
				put(t, f, "c", "both", v("1"))
				if since, _ := f.Down(); !since.IsZero() || f.Volatile() {
					t.Error("it is down at first")
				}
				first.down.Store(trouble == "down")
				first.hang.Store(trouble == "hangs")
				begin := time.Now()
				put(t, f, "c", "both", v("2"))
				put(t, f, "c", "meanwhile", v("2"))
				put(t, f, "c", "removed", v("2"))
				put(t, f, "c", "removed", state.Record{})
				if took := time.Since(begin); took > time.Second {
					t.Errorf("while it is down operations took %v, want the timeout once", took)
				}
				since, cause := f.Down()
				if since.IsZero() || cause == nil || !f.Volatile() {
					t.Errorf("got down since %v for %v, want both", since, cause)
				}
				if got := value(t, f, "before"); got != "" {
					t.Errorf("got %q of a store that is down", got)
				}
				time.Sleep(5 * time.Minute)
				value(t, f, "both") // tries to return, in vain
				synctest.Wait()
				first.down.Store(false)
				first.hang.Store(false)
				time.Sleep(30 * time.Second)
				value(t, f, "both") // begins the return
				synctest.Wait()
				if since, cause := f.Down(); !since.IsZero() || cause != nil {
					t.Errorf("got down since %v for %v, want a return", since, cause)
				}
				for key, want := range map[string]string{"before": "1", "both": "2", "meanwhile": "2", "removed": ""} {
					if got := value(t, f, key); got != want {
						t.Errorf("%s: got %q, want %q", key, got, want)
					}
					if got := value(t, first, key); got != want {
						t.Errorf("%s: got %q in the first store, want %q", key, got, want)
					}
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestFallbackLosesNoChange: what is counted while the store goes and comes is all there at the end.
func TestFallbackLosesNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := newFaulty()
		f := newFallback(t, first)
		first.down.Store(true)
		put(t, f, "c", "n", state.Record{}) // from here on it is in memory
		const callers, each = 8, 400
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				for k := range each {
					err := f.Update(t.Context(), "c", "n", func(r state.Record) (state.Record, error) {
						n, _ := strconv.Atoi(string(r.Value))
						return state.Record{Value: []byte(strconv.Itoa(n + 1))}, nil
					})
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Duration(1+i+k%7) * time.Millisecond)
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		first.down.Store(false)
		wg.Wait()
		if since, _ := f.Down(); !since.IsZero() {
			t.Error("it is still down")
		}
		r, err := first.Get(t.Context(), "c", "n")
		if err != nil || string(r.Value) != strconv.Itoa(callers*each) {
			t.Errorf("got %q and %v, want %d", r.Value, err, callers*each)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestFallbackPassesErrors: a caller's own trouble is none of the store.
func TestFallbackPassesErrors(t *testing.T) {
	f := newFallback(t, newFaulty())
	fault := errors.New("no")
	err := f.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) { return r, fault })
	if !errors.Is(err, fault) {
		t.Errorf("got %v, want change's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Get(ctx, "c", "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if since, _ := f.Down(); !since.IsZero() {
		t.Error("it counts as down")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
