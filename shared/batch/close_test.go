package batch_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/batch"
)

func TestCloseFlushesWhatIsInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := roomy()
		l.Linger, l.Waiting = time.Hour, 3
		r := &recorder{start: time.Now(), takes: time.Second}
		g := batch.New(l, r.flush)
		var wg sync.WaitGroup
		do := func(item int, want error) {
			wg.Go(func() {
				if err := g.Do(t.Context(), item, one); !errors.Is(err, want) {
					t.Errorf("item %d: got %v, want %v", item, err, want)
				}
			})
			synctest.Wait()
		}
		do(1, nil)
		do(2, nil)
		time.Sleep(time.Minute)
		var closed time.Duration
		wg.Go(func() {
			if err := g.Close(t.Context()); err != nil {
				t.Errorf("Close: %v", err)
			}
			closed = time.Since(r.start)
		})
		synctest.Wait()
		do(3, batch.ErrClosed)
		wg.Wait()
		if diff := cmp.Diff([]string{"1m0s: [1 2]"}, r.flushes); diff != "" {
			t.Errorf("flushes (-want +got):\n%s", diff)
		}
		if want := time.Minute + time.Second; closed != want {
			t.Errorf("Close returned after %v, want %v", closed, want)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("Close again: %v", err)
		}
	})
}

func TestCloseRefusesWhatWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := roomy()
		l.Waiting = 1
		r := &recorder{start: time.Now(), takes: time.Second}
		g := batch.New(l, r.flush)
		var wg sync.WaitGroup
		for item, want := range []error{nil, batch.ErrClosed} {
			wg.Go(func() {
				if err := g.Do(t.Context(), item, one); !errors.Is(err, want) {
					t.Errorf("item %d: got %v, want %v", item, err, want)
				}
			})
			synctest.Wait()
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		wg.Wait()
		if diff := cmp.Diff([]string{"0s: [0]"}, r.flushes); diff != "" {
			t.Errorf("flushes (-want +got):\n%s", diff)
		}
	})
}

func TestCloseWithoutGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := roomy()
		l.Linger = 0
		r := &recorder{start: time.Now(), takes: time.Hour}
		g := batch.New(l, r.flush)
		var wg sync.WaitGroup
		wg.Go(func() { // is being flushed: ends with what the flush makes of its context's end
			if err := g.Do(t.Context(), 1, one); err == nil || errors.Is(err, batch.ErrClosed) {
				t.Errorf("item 1: got %v, want the cause of the flush's end", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { // waits for the slot: never flushed
			if err := g.Do(t.Context(), 2, one); !errors.Is(err, batch.ErrClosed) {
				t.Errorf("item 2: got %v, want %v", err, batch.ErrClosed)
			}
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := g.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: got %v, want %v", err, context.DeadlineExceeded)
		}
		wg.Wait()
		if got, want := time.Since(r.start), 10*time.Second; got != want {
			t.Errorf("everybody was answered after %v, want %v", got, want)
		}
		if diff := cmp.Diff([]string{"0s: [1]"}, r.flushes); diff != "" {
			t.Errorf("flushes (-want +got):\n%s", diff)
		}
	})
}

func TestEndedContextHandsNothingIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now()}
		g := batch.New(roomy(), r.flush)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Do(ctx, 1, one); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if len(r.flushes) != 0 {
			t.Errorf("got flushes %v, want none", r.flushes)
		}
	})
}

func TestLimitsOutOfRange(t *testing.T) {
	for _, change := range []func(*batch.Limits){
		func(l *batch.Limits) { l.Count = 0 },
		func(l *batch.Limits) { l.Bytes = 0 },
		func(l *batch.Limits) { l.Linger = -1 },
		func(l *batch.Limits) { l.Flushes = 0 },
		func(l *batch.Limits) { l.Waiting = 0 },
	} {
		l := roomy()
		change(&l)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New accepted %+v", l)
				}
			}()
			batch.New(l, func(context.Context, []int) []error { return nil })
		}()
	}
}

// One core's worth of a group with 1,000 callers that do nothing else; the flush is free.
func BenchmarkDo(b *testing.B) {
	g := batch.New(batch.Limits{Count: 100, Bytes: 1 << 20, Linger: time.Millisecond, Flushes: 4, Waiting: 64 << 20},
		func(context.Context, []int) []error { return nil })
	b.ReportAllocs()
	var (
		wg    sync.WaitGroup
		ctx   = b.Context()
		turns = make(chan int, 1000)
	)
	for range 1000 {
		wg.Go(func() {
			for n := range turns {
				for range n {
					if err := g.Do(ctx, 1, batch.Weight{Count: 1, Bytes: 1000}); err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	const each = 100
	b.ResetTimer()
	for left := b.N; left > 0; left -= each {
		turns <- min(left, each)
	}
	close(turns)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "Do/s")
	if err := g.Close(ctx); err != nil {
		b.Error(err)
	}
}
