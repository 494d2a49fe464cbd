package notify

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/redis"
	"github.com/apss-sensor/apss/functions/internal/state/redis/redistest"
	"github.com/apss-sensor/apss/functions/internal/state/statetest"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// on starts an instance whose state is on the Redis server behind a proxy of its own: cut, the instance is as good as dead
// to the others.
func on(t *testing.T, server *redistest.Server, to integration.Integration, change func(*Config)) (setup, *statetest.Proxy) {
	t.Helper()
	p := statetest.NewProxy(t, "unix", server.Socket)
	store := redis.New(redis.Config{Network: "tcp", Address: p.Address(), Timeout: 30 * time.Second})
	s := start(t, to, func(c *Config) {
		c.State = store
		c.Group.Window = time.Hour // the test's own time does not come near it
		if change != nil {
			change(c)
		}
	})
	t.Cleanup(func() {
		s.closes(t)
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, p
}

// eventually calls f until it returns nil: to a busy machine the store may look down for a moment. It returns how often it
// called again.
func eventually(t *testing.T, f func() error) (again int) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; again++ { // longer than the lease of a lost answer
		err := f()
		if err == nil {
			return again
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return again
		}
		<-time.After(100 * time.Millisecond)
	}
}

// bring hands a in until it is done with, as Pub/Sub does.
func (s setup) bring(t *testing.T, a *event.Alert) (again int) {
	t.Helper()
	return eventually(t, func() error { return s.Handle(t.Context(), pushOf(a)) })
}

// TestInstancesOpenOnce: a hundred alerts of one fingerprint come to two instances at the same moment. One message is
// sent, and all are counted; of those that came again because an answer of the store was late, some perhaps twice.
func TestInstancesOpenOnce(t *testing.T) {
	server := redistest.Start(t)
	p := &people{}
	p.set(func(context.Context, message) *outcome.Error {
		<-time.After(50 * time.Millisecond) // for the others to come meanwhile
		return nil
	})
	a, _ := on(t, server, p, nil)
	b, _ := on(t, server, p, nil)
	var wg sync.WaitGroup
	var again atomic.Int64
	for i := range 100 {
		wg.Go(func() { again.Add(int64([]setup{a, b}[i%2].bring(t, alert(i, "f", event.High)))) })
	}
	wg.Wait()
	wantLines(t, &p.inbox, "opened f x1 HIGH")
	for _, s := range []setup{a, b} {
		r, err := s.cfg.State.Get(t.Context(), s.incidents, "f")
		if got := parse(r); err != nil || got == nil || got.Count < 100 || got.Count > 100+again.Load() {
			t.Errorf("got %+v and %v, want 100 counted; %d came again", got, err, again.Load())
		}
	}
}

// TestInstancesRedelivery: what one instance deals with is not sent by another, neither meanwhile nor afterwards.
func TestInstancesRedelivery(t *testing.T) {
	server := redistest.Start(t)
	p := &program{}
	underWay, goOn := make(chan struct{}), make(chan struct{})
	p.set(func(context.Context, message) *outcome.Error {
		close(underWay)
		<-goOn
		return nil
	})
	a, _ := on(t, server, p, nil)
	b, _ := on(t, server, p, nil)
	var wg sync.WaitGroup
	wg.Go(func() { a.bring(t, alert(1, "f", event.High)) })
	<-underWay
	var e *outcome.Error
	eventually(t, func() error {
		if e = b.hand(t.Context(), alert(1, "f", event.High)); e != nil && errors.Is(e, state.ErrDown) {
			return e
		}
		return nil
	})
	if e == nil || e.Class != outcome.Retry || !strings.Contains(e.Reason, "under way") {
		t.Errorf("got %v, want a retry while it is under way", e)
	}
	close(goOn)
	wg.Wait()
	b.bring(t, alert(1, "f", event.High))
	a.bring(t, alert(1, "f", event.High))
	wantLines(t, &p.inbox, "alert "+alert(1, "", 0).ID)
	if got := b.Stats(); got.Duplicate != 1 {
		t.Errorf("got %+v, want a duplicate", got)
	}
}

// TestInstancesInherit: what is due of an instance that is gone is done by another: the count of repeats, and then the
// incident's end.
func TestInstancesInherit(t *testing.T) {
	server := redistest.Start(t)
	p := &people{}
	a, cut := on(t, server, p, nil)
	b, _ := on(t, server, p, nil)
	for i := range 3 {
		a.bring(t, alert(i, "f", event.High))
	}
	cut.Cut()
	ago := time.Now().Add(-2 * time.Hour).UnixNano()
	eventually(t, func() error {
		return b.change(t.Context(), "f", func(r *record) (*record, error) {
			r.Sent, r.Heard = ago, ago
			return r, nil
		})
	})
	for range 2 {
		eventually(t, func() error { return b.Tick(t.Context()) })
	}
	wantLines(t, &p.inbox, "opened f x1 HIGH", "repeated f x3 HIGH", "resolved f x3 HIGH")
	if e := a.hand(t.Context(), alert(4, "f", event.High)); e == nil || e.Class != outcome.Retry || e.Status == http.StatusTooManyRequests {
		t.Errorf("without its store: got %v, want that the alert comes again", e)
	}
}

// counting counts what a store is asked for.
type counting struct {
	state.Store
	mu           sync.Mutex
	reads, write int
}

func (c *counting) count(reads, writes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads += reads
	c.write += writes
}

func (c *counting) Update(ctx context.Context, collection, key string, change func(state.Record) (state.Record, error)) error {
	err := c.Store.Update(ctx, collection, key, change)
	if err == nil {
		c.count(1, 1)
	} else {
		c.count(1, 0)
	}
	return err
}

func (c *counting) Get(ctx context.Context, collection, key string) (state.Record, error) {
	c.count(1, 0)
	return c.Store.Get(ctx, collection, key)
}

func (c *counting) Due(ctx context.Context, collection string, now time.Time, limit int) ([]string, error) {
	keys, err := c.Store.Due(ctx, collection, now, limit)
	c.count(max(len(keys), 1), 0) // Firestore's price of a query is at least one read
	return keys, err
}

// TestStoreCost: what docs/state.md says an alert costs in reads and writes.
func TestStoreCost(t *testing.T) {
	type cost struct{ Reads, Writes int }
	got := map[string]cost{}
	for _, to := range []integration.Integration{&program{}, &people{}} {
		c := &counting{Store: state.NewMemory(1000, 1<<20)}
		s := start(t, to, func(cfg *Config) { cfg.State = c })
		s.look.Store(time.Now().Add(time.Hour).UnixNano()) // looks for what is due are counted by themselves
		name := "program"
		if _, is := to.(*people); is {
			name = "people"
		}
		step := func(what string, f func()) {
			reads, writes := c.reads, c.write
			f()
			got[name+", "+what] = cost{c.reads - reads, c.write - writes}
		}
		step("first", func() { s.done(t, alert(1, "f", event.High)) })
		step("repeat", func() { s.done(t, alert(2, "f", event.High)) })
		step("redelivery", func() { s.done(t, alert(2, "f", event.High)) })
		step("look", func() {
			if err := s.Tick(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		s.closes(t)
	}
	want := map[string]cost{
		"program, first": {2, 2}, "program, repeat": {2, 2}, "program, redelivery": {1, 0}, "program, look": {},
		"people, first": {4, 4}, "people, repeat": {3, 3}, "people, redelivery": {1, 0}, "people, look": {1, 0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
