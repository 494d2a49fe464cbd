package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/redis"
	"github.com/apss-sensor/apss/functions/internal/state/redis/redistest"
	"github.com/apss-sensor/apss/functions/internal/state/statetest"
	"github.com/apss-sensor/apss/shared/secret"
)

// admin is an operator's connection.
func admin(tb testing.TB, s *redistest.Server) *goredis.Client {
	tb.Helper()
	c := goredis.NewClient(&goredis.Options{Network: "unix", Addr: s.Socket, MaxRetries: -1})
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// patience is how long a test waits for a server that is there. It is met on failure only.
const patience = 30 * time.Second

func onSocket(s *redistest.Server) redis.Config {
	return redis.Config{Network: "unix", Address: s.Socket, Timeout: patience}
}

// empty removes everything.
func empty(tb testing.TB, c *goredis.Client) {
	tb.Helper()
	if err := c.FlushAll(tb.Context()).Err(); err != nil {
		tb.Fatal(err)
	}
}

func TestSuite(t *testing.T) {
	server := redistest.Start(t)
	operator := admin(t, server)
	statetest.Run(t, func(t *testing.T) state.Store {
		t.Helper()
		empty(t, operator)
		return redis.New(onSocket(server))
	})
}

func TestShared(t *testing.T) {
	server := redistest.Start(t)
	operator := admin(t, server)
	statetest.RunShared(t, func(t *testing.T) func() state.Store {
		t.Helper()
		empty(t, operator)
		return func() state.Store { return redis.New(onSocket(server)) }
	})
}

func TestOutage(t *testing.T) {
	server := redistest.Start(t)
	operator := admin(t, server)
	statetest.RunOutage(t, "unix", server.Socket, func(t *testing.T, address string) state.Store {
		t.Helper()
		empty(t, operator)
		return redis.New(redis.Config{Network: "tcp", Address: address})
	})
}

func set(ctx context.Context, s state.Store, key, value string) error {
	return s.Update(ctx, "c", key, func(state.Record) (state.Record, error) { return state.Record{Value: []byte(value)}, nil })
}

// TestFailover: a server that answers and cannot keep anything is down as well.
func TestFailover(t *testing.T) {
	server := redistest.Start(t)
	operator := admin(t, server)
	s := redis.New(onSocket(server))
	defer s.Close()
	for _, tt := range []struct {
		name      string
		away, now []any
	}{
		{"a replica", []any{"REPLICAOF", "127.0.0.1", "1"}, []any{"REPLICAOF", "NO", "ONE"}},
		{"a replica that waits for its data", []any{"CONFIG", "SET", "replica-serve-stale-data", "no"}, []any{"REPLICAOF", "NO", "ONE"}},
		{"out of memory", []any{"CONFIG", "SET", "maxmemory", "1"}, []any{"CONFIG", "SET", "maxmemory", "0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := set(t.Context(), s, "k", "before"); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(tt.name, "waits") {
				if err := operator.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
					t.Fatal(err)
				}
			}
			if err := operator.Do(t.Context(), tt.away...).Err(); err != nil {
				t.Fatal(err)
			}
			if err := set(t.Context(), s, "k", "meanwhile"); !errors.Is(err, state.ErrDown) {
				t.Errorf("got %v, want ErrDown", err)
			}
			if err := operator.Do(t.Context(), tt.now...).Err(); err != nil {
				t.Fatal(err)
			}
			if err := set(t.Context(), s, "k", "after"); err != nil {
				t.Errorf("after it: %v", err)
			}
		})
	}
}

// TestKilled: the server is killed and started again while changes are made. Each is made or is ErrDown, soon; and then
// the store goes on by itself.
func TestKilled(t *testing.T) {
	server := redistest.Start(t)
	s := redis.New(onSocket(server))
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	busy, down, back := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var isBusy, isDown sync.Once
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				again := false
				select {
				case <-back:
					again = true
				default:
				}
				switch err := set(ctx, s, strconv.Itoa(i), strconv.Itoa(n)); {
				case errors.Is(err, state.ErrDown):
					isDown.Do(func() { close(down) })
				case err != nil:
					t.Errorf("got %v, want ErrDown for a while and then none", err)
					return
				case again:
					return
				case n == 20:
					isBusy.Do(func() { close(busy) })
				}
			}
		})
	}
	<-busy
	server.Kill()
	select {
	case <-down:
	case <-ctx.Done():
		t.Error("nobody was told that the server is down")
	}
	server.Start()
	close(back)
	wg.Wait()
}

// rotating is a password that changes.
type rotating struct {
	mu        sync.Mutex
	value     string
	next      string // after Refresh
	refreshed int
}

func (r *rotating) Get(context.Context) (secret.Value, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return secret.New(r.value), nil
}

func (r *rotating) Refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value = r.next
	r.refreshed++
}

// TestPassword: a rotated password heals by itself, and none is told.
func TestPassword(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "hunter3")
	p := &rotating{value: "hunter2", next: "hunter3"}
	c := onSocket(server)
	c.Password = p
	s := redis.New(c)
	defer s.Close()
	err := set(t.Context(), s, "k", "v")
	if !errors.Is(err, state.ErrDown) || !strings.Contains(fmt.Sprint(err), "WRONGPASS") || strings.Contains(fmt.Sprint(err), "hunter") {
		t.Errorf("got %v, want ErrDown with the server's reason and no password", err)
	}
	if err := set(t.Context(), s, "k", "v"); err != nil || p.refreshed == 0 {
		t.Errorf("with the new password: got %v after %d refreshes", err, p.refreshed)
	}
}

// TestForeign: what others wrote under our names is neither overwritten nor taken for nothing.
func TestForeign(t *testing.T) {
	server := redistest.Start(t)
	operator := admin(t, server)
	s := redis.New(onSocket(server))
	defer s.Close()
	if err := operator.Set(t.Context(), "apss:{c}:r:k", "theirs", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := set(t.Context(), s, "k", "v"); err == nil || errors.Is(err, state.ErrDown) || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("got %v, want an error that says what to do", err)
	}
	if got := operator.Get(t.Context(), "apss:{c}:r:k").Val(); got != "theirs" {
		t.Errorf("got %q, want theirs", got)
	}
}

// TestNothingStays: what is removed or expires leaves no key behind, the due ones included once they are asked for.
func TestNothingStays(t *testing.T) {
	server := redistest.Start(t)
	operator := admin(t, server)
	s := redis.New(onSocket(server))
	defer s.Close()
	past := time.Unix(1, 0)
	for i := range 300 {
		key := strconv.Itoa(i)
		for _, r := range []state.Record{
			{Value: []byte("v"), Due: past, Expires: time.Now().Add(time.Hour)},
			{},
			{Value: []byte("v"), Due: past, Expires: time.Now().Add(300 * time.Millisecond)},
		} {
			if err := s.Update(t.Context(), "c", key, func(state.Record) (state.Record, error) { return r, nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		keys, err := s.Due(t.Context(), "c", time.Now(), 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the records do not expire")
		}
	}
	if got := operator.Keys(t.Context(), "*").Val(); len(got) != 0 {
		t.Errorf("got %d keys, want none", len(got))
	}
}

// TestOneSlot: a cluster refuses a script whose keys are in different slots.
func TestOneSlot(t *testing.T) {
	// Members of a cluster speak on one more port, 10000 where there is no other: so the address is its own.
	server := redistest.Start(t, "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--bind", address(t).String())
	operator := admin(t, server)
	if err := operator.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	s := redis.New(onSocket(server))
	defer s.Close()
	for _, collection := range []string{"c", "notify.incidents.a{b}c", "}{"} {
		for _, key := range []string{"k", "{k}", "}"} {
			r := state.Record{Value: []byte("v"), Due: time.Unix(1, 0)}
			for {
				err := s.Update(t.Context(), collection, key, func(state.Record) (state.Record, error) { return r, nil })
				if err == nil {
					break
				}
				if !strings.Contains(err.Error(), "CLUSTERDOWN") || t.Context().Err() != nil { // it comes up
					t.Fatalf("%s/%s: %v", collection, key, err)
				}
			}
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := redis.New(onSocket(redistest.Start(b)))
	defer s.Close()
	statetest.BenchmarkUpdate(b, s)
}

func BenchmarkGet(b *testing.B) {
	s := redis.New(onSocket(redistest.Start(b)))
	defer s.Close()
	statetest.BenchmarkGet(b, s)
}

func BenchmarkContended(b *testing.B) {
	s := redis.New(onSocket(redistest.Start(b)))
	defer s.Close()
	statetest.BenchmarkContended(b, s)
}
