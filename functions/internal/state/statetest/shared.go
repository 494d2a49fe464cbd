package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// RunShared runs what a store owes to several instances that share it. Each call of begin makes an empty state, and what it
// returns opens a client of that; the suite closes them.
func RunShared(t *testing.T, begin func(t *testing.T) (open func() state.Store)) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, open func() state.Store)
	}{
		{"seen by others", seenByOthers},
		{"change again", changeAgain},
		{"conflict with a removal", conflictWithRemoval},
		{"atomic between clients", atomicBetween},
		{"due for others", dueForOthers},
		{"given up while it waits", givenUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			open := begin(t)
			c.run(t, func() state.Store {
				s := open()
				t.Cleanup(func() {
					if err := s.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
				return s
			})
		})
	}
}

func seenByOthers(t *testing.T, open func() state.Store) {
	t.Helper()
	a, b := open(), open()
	r := state.Record{Value: []byte("v"), Due: base(), Expires: base().Add(time.Hour)}
	put(t, a, "c", "k", r)
	wantRecord(t, get(t, b, "c", "k"), r)
	put(t, b, "c", "k", state.Record{})
	wantRecord(t, get(t, a, "c", "k"), state.Record{})
}

// changeAgain: what came between is what change is called with again.
func changeAgain(t *testing.T, open func() state.Store) {
	t.Helper()
	a, b := open(), open()
	for _, first := range []string{"", "first"} { // none, one
		if first != "" {
			put(t, a, "c", "k", state.Record{Value: []byte(first)})
		}
		var saw []string
		err := a.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
			if saw = append(saw, string(r.Value)); len(saw) == 1 {
				put(t, b, "c", "k", state.Record{Value: []byte("between")})
			}
			return state.Record{Value: append(r.Value, '!')}, nil
		})
		if want := []string{first, "between"}; err != nil || !slices.Equal(saw, want) {
			t.Errorf("got calls with %q and %v, want %q", saw, err, want)
		}
		if got := string(get(t, b, "c", "k").Value); got != "between!" {
			t.Errorf("got %q", got)
		}
		put(t, b, "c", "k", state.Record{})
	}
}

func conflictWithRemoval(t *testing.T, open func() state.Store) {
	t.Helper()
	a, b := open(), open()
	put(t, a, "c", "k", state.Record{Value: []byte("v")})
	calls := 0
	// Removed and made again with the same value it is not the same record.
	err := a.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
		if calls++; calls == 1 {
			put(t, b, "c", "k", state.Record{})
			put(t, b, "c", "k", state.Record{Value: []byte("v")})
		}
		return state.Record{Value: []byte("w")}, nil
	})
	if err != nil || calls != 2 {
		t.Errorf("got %d calls and %v, want 2", calls, err)
	}
	calls = 0
	err = a.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
		if calls++; calls == 1 {
			put(t, b, "c", "k", state.Record{})
		}
		return state.Record{}, nil
	})
	if err != nil || get(t, b, "c", "k").Value != nil {
		t.Errorf("both remove: got %v", err)
	}
}

func atomicBetween(t *testing.T, open func() state.Store) {
	t.Helper()
	const clients, callers, each = 4, 4, 10
	var wg sync.WaitGroup
	for range clients {
		s := open()
		for range callers {
			wg.Go(func() {
				for range each {
					err := s.Update(t.Context(), "c", "n", func(r state.Record) (state.Record, error) {
						n, _ := strconv.Atoi(string(r.Value)) // nothing is 0
						return state.Record{Value: []byte(strconv.Itoa(n + 1)), Due: base(), Expires: base().Add(time.Hour)}, nil
					})
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	if got, want := string(get(t, open(), "c", "n").Value), strconv.Itoa(clients*callers*each); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// dueForOthers: what one began another finds, also when the one is gone.
func dueForOthers(t *testing.T, open func() state.Store) {
	t.Helper()
	a, b := open(), open()
	for i := range 5 {
		put(t, a, "c", fmt.Sprint(i), state.Record{Value: []byte("v"), Due: base().Add(time.Duration(i) * time.Second)})
	}
	wantKeys(t, keys(t, b, "c", base().Add(time.Minute), 3), "0", "1", "2")
	put(t, b, "c", "0", state.Record{})
	put(t, b, "c", "1", state.Record{Value: []byte("v")})
	wantKeys(t, keys(t, a, "c", base().Add(time.Minute), 10), "2", "3", "4")
}

// givenUp: a caller that gives up while another's change is under way gets its own reason, and its change is not made.
func givenUp(t *testing.T, open func() state.Store) {
	t.Helper()
	s := open()
	begun, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		first := true
		err := s.Update(t.Context(), "c", "k", func(r state.Record) (state.Record, error) {
			if first { // it blocks, as a change should not: here it stands for a slow store
				first = false
				close(begun)
				<-goOn
			}
			return state.Record{Value: append(r.Value, 'a')}, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	called := false
	wg.Go(func() {
		result <- s.Update(ctx, "c", "k", func(r state.Record) (state.Record, error) {
			called = true
			return state.Record{Value: append(r.Value, 'b')}, nil
		})
	})
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) || errors.Is(err, state.ErrDown) {
		t.Errorf("got %v, want the context's error", err)
	}
	close(goOn)
	wg.Wait()
	if called {
		t.Error("change was called after its caller had given up")
	}
	put(t, s, "c", "other", state.Record{Value: []byte("v")})
	if got := get(t, s, "c", "k").Value; string(got) != "a" {
		t.Errorf("got %q, want a", got)
	}
}

// RunOutage runs what a store owes while its server is not there. open returns a client of the server at address, whose
// state is empty; the suite closes it. It takes a few of the store's own timeouts.
func RunOutage(t *testing.T, network, server string, open func(t *testing.T, address string) state.Store) {
	t.Helper()
	start := func(t *testing.T) (*Proxy, state.Store) {
		t.Helper()
		p := NewProxy(t, network, server)
		s := open(t, p.Address())
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		before := state.Record{Value: []byte("v"), Due: base()}
		eventually(t, "the store does not begin", func() error {
			return s.Update(t.Context(), "c", "before", func(state.Record) (state.Record, error) { return before, nil })
		})
		return p, s
	}
	t.Run("connections cut", func(t *testing.T) {
		p, s := start(t)
		p.Cut()
		wantDown(t, s)
		p.Heal()
		wantBack(t, s)
	})
	t.Run("no answer", func(t *testing.T) {
		p, s := start(t)
		resume := p.Hang()
		defer func() { resume() }()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		for name, err := range operations(ctx, s) {
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, state.ErrDown) {
				t.Errorf("%s: got %v, want the caller's own deadline", name, err)
			}
		}
		wantDown(t, s)
		resume()
		resume = func() {}
		wantBack(t, s)
	})
	t.Run("one connection lost", func(t *testing.T) {
		p, s := start(t)
		eventually(t, "no new connection is made", func() error { // at once, where the machine does not stall just then
			p.Cut()
			p.Heal()
			return first(operations(t.Context(), s))
		})
	})
}

func operations(ctx context.Context, s state.Store) map[string]error {
	all := map[string]error{}
	all["Update"] = s.Update(ctx, "c", "k", func(state.Record) (state.Record, error) { return state.Record{Value: []byte("v")}, nil })
	_, all["Get"] = s.Get(ctx, "c", "k")
	_, all["Due"] = s.Due(ctx, "c", base(), 1)
	all["List"] = s.List(ctx, "c", func(string, state.Record) bool { return true })
	return all
}

func wantDown(t *testing.T, s state.Store) {
	t.Helper()
	for name, err := range operations(t.Context(), s) {
		if !errors.Is(err, state.ErrDown) {
			t.Errorf("%s: got %v, want ErrDown", name, err)
		}
	}
}

// wantBack: the store works again by itself, with what was there before.
func wantBack(t *testing.T, s state.Store) {
	t.Helper()
	eventually(t, "the store does not come back", func() error {
		r, err := s.Get(t.Context(), "c", "before")
		if err == nil && !bytes.Equal(r.Value, []byte("v")) {
			t.Errorf("got %q, want what was there before", r.Value)
		}
		if err != nil {
			return err
		}
		return first(operations(t.Context(), s))
	})
}

// first returns one of the errors, by name.
func first(errs map[string]error) error {
	for name, err := range errs {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// eventually tries until there is no error: what takes longer than a store's own timeout is down to it, on a machine that
// stalls too.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(20 * time.Millisecond) // the library's own pauses
	}
}
