package batch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/batch"
)

// limits that nothing in a test reaches unless the test lowers them.
func roomy() batch.Limits {
	return batch.Limits{Count: 1000, Bytes: 1 << 30, Linger: 100 * time.Millisecond, Flushes: 1, Waiting: 1 << 30}
}

var one = batch.Weight{Count: 1, Bytes: 1}

// recorder is a flush that remembers what it got, and when.
type recorder struct {
	mu      sync.Mutex
	start   time.Time
	flushes []string // "<after>: <items>"
	takes   time.Duration
	verdict func(items []int) []error
}

func (r *recorder) flush(ctx context.Context, items []int) []error {
	r.mu.Lock()
	r.flushes = append(r.flushes, fmt.Sprintf("%v: %v", time.Since(r.start), items))
	r.mu.Unlock()
	select {
	case <-time.After(r.takes):
	case <-ctx.Done():
		errs := make([]error, len(items))
		for i := range errs {
			errs[i] = context.Cause(ctx)
		}
		return errs
	}
	if r.verdict != nil {
		return r.verdict(items)
	}
	return nil
}

// call is one Do, started some time after the test's start.
type call struct {
	after  time.Duration
	item   int
	weight batch.Weight
	giveUp time.Duration // after the call; 0 never
	want   error
}

// inFlush reports whether item is in one of flushes, each like "100ms: [1 2]".
func inFlush(flushes []string, item int) bool {
	return slices.ContainsFunc(flushes, func(f string) bool {
		_, items, _ := strings.Cut(f, "[")
		return slices.Contains(strings.Fields(strings.TrimSuffix(items, "]")), strconv.Itoa(item))
	})
}

func TestGathering(t *testing.T) {
	const ms = time.Millisecond
	heavy := batch.Weight{Count: 1, Bytes: 500}
	for _, tt := range []struct {
		name    string
		limits  func(*batch.Limits)
		takes   time.Duration
		calls   []call
		flushes []string
	}{
		{"linger counts from the first item", nil, 0,
			[]call{{0, 1, one, 0, nil}, {50 * ms, 2, one, 0, nil}, {99 * ms, 3, one, 0, nil}, {130 * ms, 4, one, 0, nil}},
			[]string{"100ms: [1 2 3]", "230ms: [4]"}},
		{"count ends the gathering at once", func(l *batch.Limits) { l.Count = 2 }, 0,
			[]call{{0, 1, one, 0, nil}, {10 * ms, 2, one, 0, nil}, {20 * ms, 3, one, 0, nil}},
			[]string{"10ms: [1 2]", "120ms: [3]"}},
		{"bytes end the gathering at once", func(l *batch.Limits) { l.Bytes = 1000 }, 0,
			[]call{{0, 1, heavy, 0, nil}, {10 * ms, 2, heavy, 0, nil}},
			[]string{"10ms: [1 2]"}},
		{"what does not fit stays for the next flush", func(l *batch.Limits) { l.Bytes = 999 }, 0,
			[]call{{0, 1, heavy, 0, nil}, {10 * ms, 2, heavy, 0, nil}},
			[]string{"10ms: [1]", "110ms: [2]"}},
		{"an item above a limit goes alone", func(l *batch.Limits) { l.Bytes, l.Flushes = 100, 3 }, 0,
			[]call{{0, 1, one, 0, nil}, {10 * ms, 2, heavy, 0, nil}, {20 * ms, 3, one, 0, nil}},
			[]string{"10ms: [1]", "10ms: [2]", "120ms: [3]"}},
		{"without linger a free slot takes the item", func(l *batch.Limits) { l.Linger = 0 }, 30 * ms,
			[]call{{0, 1, one, 0, nil}, {10 * ms, 2, one, 0, nil}, {20 * ms, 3, one, 0, nil}},
			[]string{"0s: [1]", "30ms: [2 3]"}},
		{"items gather above linger while the slots are busy", func(l *batch.Limits) { l.Count = 4 }, 500 * ms,
			[]call{{0, 1, one, 0, nil}, {110 * ms, 2, one, 0, nil}, {210 * ms, 3, one, 0, nil}, {590 * ms, 4, one, 0, nil}},
			[]string{"100ms: [1]", "600ms: [2 3 4]"}},
		{"one item more than count waits for its own linger", func(l *batch.Limits) { l.Count, l.Flushes = 2, 2 }, 0,
			[]call{{0, 1, one, 0, nil}, {60 * ms, 2, batch.Weight{Count: 2, Bytes: 1}, 0, nil}, {70 * ms, 3, one, 0, nil}},
			[]string{"60ms: [1]", "60ms: [2]", "170ms: [3]"}},
		{"an item given up in time is taken back", nil, 0,
			[]call{{0, 1, one, 40 * ms, context.DeadlineExceeded}, {20 * ms, 2, one, 0, nil}},
			[]string{"120ms: [2]"}},
		{"an item given up too late is delivered", nil, 50 * ms,
			[]call{{0, 1, one, 120 * ms, batch.ErrUnderWay}, {10 * ms, 2, one, 0, nil}},
			[]string{"100ms: [1 2]"}},
		{"the flush ends when all gave up", nil, time.Hour,
			[]call{{0, 1, one, 150 * ms, context.DeadlineExceeded}, {ms, 2, one, 160 * ms, context.DeadlineExceeded}, {200 * ms, 3, one, 200 * ms, context.DeadlineExceeded}},
			[]string{"100ms: [1 2]", "300ms: [3]"}},
		{"a full house blocks, then serves in order", func(l *batch.Limits) { l.Waiting = 2 }, 50 * ms,
			[]call{{0, 1, one, 0, nil}, {10 * ms, 2, one, 0, nil}, {20 * ms, 3, one, 0, nil}, {30 * ms, 4, one, 0, nil}, {40 * ms, 5, one, 0, nil}},
			[]string{"20ms: [1 2]", "70ms: [3 4]", "220ms: [5]"}},
		{"what blocks can be given up", func(l *batch.Limits) { l.Waiting = 1 }, 50 * ms,
			[]call{{0, 1, one, 0, nil}, {10 * ms, 2, one, 20 * ms, context.DeadlineExceeded}, {20 * ms, 3, one, 0, nil}},
			[]string{"10ms: [1]", "160ms: [3]"}},
		{"what is larger than the house waits until it is empty", func(l *batch.Limits) { l.Waiting = 10 }, 50 * ms,
			[]call{{0, 1, one, 0, nil}, {10 * ms, 2, heavy, 0, nil}, {20 * ms, 3, one, 0, nil}},
			[]string{"10ms: [1]", "60ms: [2]", "210ms: [3]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := roomy()
				if tt.limits != nil {
					tt.limits(&l)
				}
				r := &recorder{start: time.Now(), takes: tt.takes}
				g := batch.New(l, r.flush)
				var wg sync.WaitGroup
				for _, c := range tt.calls {
					wg.Go(func() {
						time.Sleep(c.after)
						ctx := t.Context()
						if c.giveUp > 0 {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, c.giveUp)
							defer cancel()
						}
						err := g.Do(ctx, c.item, c.weight)
						if !errors.Is(err, c.want) || c.giveUp > 0 && !errors.Is(err, ctx.Err()) {
							t.Errorf("item %d: got %v, want %v", c.item, err, c.want)
						}
						if d := inFlush(tt.flushes, c.item); c.giveUp > 0 && errors.Is(err, batch.ErrUnderWay) != d {
							t.Errorf("item %d: got %v, and that a flush had it is %t", c.item, err, d)
						}
					})
				}
				wg.Wait()
				slices.Sort(r.flushes) // those of one moment start in any order
				slices.Sort(tt.flushes)
				if diff := cmp.Diff(tt.flushes, r.flushes); diff != "" {
					t.Errorf("flushes (-want +got):\n%s", diff)
				}
				if err := g.Close(t.Context()); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

func TestVerdicts(t *testing.T) {
	refused := errors.New("refused")
	for _, tt := range []struct {
		name  string
		flush batch.Flush[int]
		want  map[int]string // by item; "" is accepted
	}{
		{"one per item", func(_ context.Context, items []int) []error {
			errs := make([]error, len(items))
			for i, item := range items {
				if item%2 == 1 {
					errs[i] = refused
				}
			}
			return errs
		}, map[int]string{1: "refused", 2: "", 3: "refused", 4: ""}},
		{"too few", func(context.Context, []int) []error { return []error{nil} }, map[int]string{
			1: "the flush returned 1 verdicts for 4 items", 2: "the flush returned 1 verdicts for 4 items",
			3: "the flush returned 1 verdicts for 4 items", 4: "the flush returned 1 verdicts for 4 items",
		}},
		{"none, but not nil", func(context.Context, []int) []error { return []error{} }, map[int]string{
			1: "the flush returned 0 verdicts for 4 items", 2: "the flush returned 0 verdicts for 4 items",
			3: "the flush returned 0 verdicts for 4 items", 4: "the flush returned 0 verdicts for 4 items",
		}},
		{"panic", func(context.Context, []int) []error { panic("on fire") }, map[int]string{
			1: "the flush panicked: on fire", 2: "the flush panicked: on fire",
			3: "the flush panicked: on fire", 4: "the flush panicked: on fire",
		}},
		{"Goexit", func(context.Context, []int) []error { runtime.Goexit(); return nil }, map[int]string{
			1: "the flush ended its goroutine", 2: "the flush ended its goroutine",
			3: "the flush ended its goroutine", 4: "the flush ended its goroutine",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := batch.New(roomy(), tt.flush)
				var (
					mu  sync.Mutex
					got = map[int]string{}
					wg  sync.WaitGroup
				)
				for item := 1; item <= 4; item++ {
					wg.Go(func() {
						err := g.Do(t.Context(), item, one)
						mu.Lock()
						defer mu.Unlock()
						got[item] = ""
						if err != nil {
							got[item] = err.Error()
						}
					})
				}
				wg.Wait()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("verdicts (-want +got):\n%s", diff)
				}
				// The group goes on after whatever the flush did.
				if err := g.Close(t.Context()); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// Verdicts of many callers, under the race detector where it is on: each must be the one made for the caller's own item.
func TestVerdictsFindTheirCallers(t *testing.T) {
	l := batch.Limits{Count: 16, Bytes: 1 << 10, Linger: time.Millisecond, Flushes: 3, Waiting: 2 << 10}
	type refusal struct{ error }
	g := batch.New(l, func(_ context.Context, items []uint64) []error {
		if rand.N(10) == 0 {
			panic("now and then")
		}
		errs := make([]error, len(items))
		for i, item := range items {
			if item%3 == 0 {
				errs[i] = refusal{fmt.Errorf("%d", item)}
			}
		}
		return errs
	})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 200 {
				item := rand.Uint64N(1 << 40)
				err := g.Do(t.Context(), item, batch.Weight{Count: rand.N(3), Bytes: rand.N(300)})
				var (
					refused  refusal
					panicked *batch.PanicError
				)
				switch {
				case errors.As(err, &panicked):
				case errors.As(err, &refused):
					if err.Error() != fmt.Sprint(item) {
						t.Errorf("item %d got the verdict of %v", item, err)
					}
				case err != nil || item%3 == 0:
					t.Errorf("item %d: got %v", item, err)
				}
			}
		})
	}
	wg.Wait()
	if err := g.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// Each caller must get ctx's error or its verdict, and the bound must hold, with callers that give up at any moment.
func TestGivingUpAtAnyMoment(t *testing.T) {
	const waiting = 100
	var held, most atomic.Int64
	l := batch.Limits{Count: 8, Bytes: 50, Linger: time.Millisecond, Flushes: 4, Waiting: waiting}
	g := batch.New(l, func(ctx context.Context, items []int) []error {
		sum := 0
		for _, bytes := range items {
			sum += bytes
		}
		now := held.Add(int64(sum))
		for {
			old := most.Load()
			if now <= old || most.CompareAndSwap(old, now) {
				break
			}
		}
		defer held.Add(-int64(sum))
		select {
		case <-time.After(rand.N(time.Millisecond)):
		case <-ctx.Done():
		}
		return nil
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(3*time.Millisecond))
				bytes := 1 + rand.N(20)
				if err := g.Do(ctx, bytes, batch.Weight{Count: 1, Bytes: bytes}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if err := g.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if got := most.Load(); got > waiting {
		t.Errorf("%d bytes were in flushes at once, want at most %d", got, waiting)
	}
}
