package secretmanager

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/shared/secret"
)

// rig is a source over an answer that the test sets, in the test's bubble of time.
type rig struct {
	source
	log   bytes.Buffer
	mu    sync.Mutex
	calls int
	value string
	err   error
	takes time.Duration
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{value: "one"}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	r.source = source{
		name: "projects/p/secrets/s/versions/latest", log: slog.New(slog.NewTextHandler(&r.log, nil)),
		start: func(f func(context.Context)) bool {
			wg.Go(func() { f(t.Context()) })
			return true
		},
		fetch: func(context.Context) (secret.Value, error) {
			r.mu.Lock()
			r.calls++
			value, err, takes := r.value, r.err, r.takes
			r.mu.Unlock()
			time.Sleep(takes)
			return secret.New(value), err
		},
	}
	return r
}

func (r *rig) set(value string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.err = value, err
}

// want asks for the secret and holds what comes, and how many calls there were by then, against what should.
func (r *rig) want(t *testing.T, value string, calls int) {
	t.Helper()
	v, err := r.Get(t.Context())
	synctest.Wait() // a read in the background
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := v.Reveal(); got != value || (err == nil) != (value != "") || r.calls != calls {
		t.Errorf("got %q, %v, %d calls, want %q, %d calls", got, err, r.calls, value, calls)
	}
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.want(t, "one", 1)
		r.set("two", nil)
		time.Sleep(lifetime - lifetime/5 - time.Second)
		r.want(t, "one", 1)
		time.Sleep(2*lifetime/5 + time.Second)
		r.want(t, "one", 2) // nobody waits for what is only old
		r.want(t, "two", 2)
		if !strings.Contains(r.log.String(), "a secret has changed") || strings.Contains(r.log.String(), "two") {
			t.Errorf("got log %s", &r.log)
		}
	})
}

func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 20 {
			r := newRig(t)
			r.want(t, "one", 1)
			left := time.Until(r.next)
			if left < lifetime*4/5 || left > lifetime*6/5 {
				t.Errorf("got a lifetime of %v, want %v, a fifth more or less", left, lifetime)
			}
			seen[left] = true
		}
		if len(seen) < 10 {
			t.Errorf("got %d different lifetimes of 20", len(seen))
		}
	})
}

func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.takes = time.Second
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if v, err := r.Get(t.Context()); err != nil || v.Reveal() != "one" {
					t.Errorf("got %v, %v", v.Reveal(), err)
				}
			})
		}
		wg.Wait()
		r.want(t, "one", 1)
	})
}

// TestCallerLeaves: the read goes on for the others.
func TestCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.takes = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.Get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		r.want(t, "one", 1)
	})
}

func TestLastGoodValue(t *testing.T) {
	for c, stands := range map[codes.Code]time.Duration{
		codes.Unavailable: staleDown, codes.DeadlineExceeded: staleDown, codes.Internal: staleDown, codes.Unauthenticated: staleDown,
		codes.NotFound: staleDenied, codes.PermissionDenied: staleDenied, codes.FailedPrecondition: staleDenied,
	} {
		t.Run(c.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.want(t, "one", 1)
				r.set("", status.Error(c, "told by the service"))
				time.Sleep(2 * lifetime)
				r.want(t, "one", 2)
				r.want(t, "one", 2) // it is not asked for each
				if !strings.Contains(r.log.String(), "its last value stands") || !strings.Contains(r.log.String(), "told by the service") {
					t.Errorf("got log %s", &r.log)
				}
				time.Sleep(stands - 2*lifetime)
				r.want(t, "one", 3)
				time.Sleep(time.Minute)
				r.want(t, "", 4)
				r.set("two", nil)
				time.Sleep(2 * retryNone)
				r.want(t, "two", 5)
			})
		})
	}
}

func TestNoValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.set("", status.Error(codes.PermissionDenied, "no"))
		r.want(t, "", 1)
		r.want(t, "", 1) // a storm of pushes is no storm of calls
		if _, err := r.Get(t.Context()); !strings.Contains(err.Error(), "secretAccessor") {
			t.Errorf("got %v, want it to say what to do", err)
		}
		time.Sleep(2 * retryNone)
		r.set("one", nil)
		r.want(t, "one", 2)
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.want(t, "one", 1)
		r.set("two", nil)
		r.Refresh()
		r.want(t, "two", 2) // at once: the receiver refused the old one
		r.set("three", nil)
		r.Refresh()
		r.want(t, "two", 2) // not for each refusal
		time.Sleep(refreshGap)
		r.set("", status.Error(codes.Unavailable, "down"))
		r.Refresh()
		r.want(t, "two", 3) // nothing better is to be had
	})
}

// TestRefreshDuringRead: a read that began before the refusal may have read the refused value.
func TestRefreshDuringRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.takes = time.Second
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = r.Get(t.Context()) })
		synctest.Wait()
		r.set("two", nil)
		r.Refresh()
		r.want(t, "two", 2)
		wg.Wait()
	})
}
