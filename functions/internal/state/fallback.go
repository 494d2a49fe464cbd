package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// Fallback is a Store that goes on in memory while its first one is down, so that delivery does. It says so in the log, in
// the metric apss.state.down and by [Fallback.Down].
//
// While it is down, instances do not know of each other, nor of what was there before: an incident that was open is
// opened again. On return what is in memory is merged with what is in the first store, where others may have been, or
// replaces it. Safe for concurrent use.
type Fallback struct {
	cfg FallbackConfig

	// mu is held for reading through each operation in memory: the return to the first store waits for those, and none
	// is between the last copy and the return.
	mu        sync.RWMutex
	since     time.Time // zero: not down
	cause     error
	again     time.Time // when the first store is tried again
	pause     time.Duration
	returning bool
	closed    bool
	stop      context.CancelFunc // ends a return under way
	wg        sync.WaitGroup

	// base is what of memory was merged into the first store, also by a return that came to nothing; for who returns.
	base map[place]Record
}

// FallbackConfig is what a Fallback needs. All fields but Merge are required. The Fallback owns both stores.
type FallbackConfig struct {
	First  Store
	Memory *Memory
	// Merge says what the first store is to keep, which has there, when memory has mine. Of mine, base is in there already;
	// each may be without a Value. It does not block. Nil: mine.
	Merge   func(collection string, there, base, mine Record) Record
	Timeout time.Duration // of one operation of the first store: what takes longer is down
	Log     *slog.Logger
	Meter   metric.Meter
}

const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
	copies     = 16 // records on their way to the first store at the same time
)

// NewFallback fails only when the meter does.
func NewFallback(c FallbackConfig) (*Fallback, error) {
	if c.Merge == nil {
		c.Merge = func(_ string, _, _, mine Record) Record { return mine }
	}
	f := &Fallback{cfg: c, stop: func() {}, base: map[place]Record{}}
	_, err := c.Meter.Int64ObservableGauge("apss.state.down",
		metric.WithDescription("1 while the state store cannot be reached and memory stands in for it."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			down := int64(0)
			if since, _ := f.Down(); !since.IsZero() {
				down = 1
			}
			o.Observe(down)
			return nil
		}))
	if err != nil {
		return nil, fmt.Errorf("metric of the state store: %w", err)
	}
	return f, nil
}

// Down returns since when the first store is down and why; a zero time when it is not.
func (f *Fallback) Down() (time.Time, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.since, f.cause
}

// Volatile implements [Volatile].
func (f *Fallback) Volatile() bool {
	if since, _ := f.Down(); !since.IsZero() {
		return true
	}
	v, ok := f.cfg.First.(Volatile)
	return ok && v.Volatile()
}

// Update implements [Store].
func (f *Fallback) Update(ctx context.Context, collection, key string, change func(Record) (Record, error)) error {
	return f.do(ctx, func(ctx context.Context, s Store) error { return s.Update(ctx, collection, key, change) })
}

// Get implements [Store].
func (f *Fallback) Get(ctx context.Context, collection, key string) (r Record, err error) {
	err = f.do(ctx, func(ctx context.Context, s Store) (err error) {
		r, err = s.Get(ctx, collection, key)
		return err
	})
	return r, err
}

// Due implements [Store].
func (f *Fallback) Due(ctx context.Context, collection string, now time.Time, limit int) (keys []string, err error) {
	err = f.do(ctx, func(ctx context.Context, s Store) (err error) {
		keys, err = s.Due(ctx, collection, now, limit)
		return err
	})
	return keys, err
}

// List implements [Store].
func (f *Fallback) List(ctx context.Context, collection string, each func(key string, r Record) bool) error {
	type item struct {
		key string
		r   Record
	}
	var items []item // of one store, also when the first fails midway; each is called without a lock
	err := f.do(ctx, func(ctx context.Context, s Store) error {
		items = nil
		return s.List(ctx, collection, func(key string, r Record) bool {
			items = append(items, item{key, r})
			return true
		})
	})
	if err != nil {
		return err
	}
	for _, i := range items {
		if !each(i.key, i.r) {
			break
		}
	}
	return nil
}

// Close ends both stores.
func (f *Fallback) Close() error {
	f.mu.Lock()
	f.closed = true
	f.stop()
	f.mu.Unlock()
	f.wg.Wait()
	return errors.Join(f.cfg.First.Close(), f.cfg.Memory.Close())
}

// do runs op on the first store, or in memory while that one is down.
func (f *Fallback) do(ctx context.Context, op func(context.Context, Store) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.RLock()
	up := f.since.IsZero()
	f.mu.RUnlock()
	if up {
		short, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
		err := op(short, f.cfg.First)
		late := short.Err() != nil
		cancel()
		if ctx.Err() != nil || !errors.Is(err, ErrDown) && (err == nil || !late) {
			return err
		}
		f.fail(err)
	}
	f.tryReturn()
	f.mu.RLock()
	if f.since.IsZero() { // it returned meanwhile
		f.mu.RUnlock()
		return op(ctx, f.cfg.First)
	}
	defer f.mu.RUnlock()
	return op(ctx, f.cfg.Memory)
}

// fail notes that the first store is down.
func (f *Fallback) fail(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.since.IsZero() { // one of several operations that found it at the same time
		return
	}
	now := time.Now()
	f.since, f.cause, f.pause, f.again = now, cause, firstPause, now.Add(firstPause)
	f.cfg.Log.Error("the state store is down; going on with memory", "error", cause.Error())
}

// tryReturn begins a return when it is time for one.
func (f *Fallback) tryReturn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() || f.returning || f.closed || time.Now().Before(f.again) {
		return
	}
	ctx, stop := context.WithCancel(context.Background()) // no caller waits for it
	f.returning, f.stop = true, stop
	f.wg.Go(func() {
		defer stop()
		err := f.bring(ctx)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.returning = false
		if err != nil {
			f.pause = min(2*f.pause, lastPause)
			f.cause, f.again = err, time.Now().Add(f.pause)
		}
	})
}

// place is where a record is.
type place struct{ collection, key string }

// bring copies what is in memory to the first store until there is no difference, and returns to it then.
func (f *Fallback) bring(ctx context.Context) error {
	probe, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	_, err := f.cfg.First.Get(probe, "state", "probe")
	cancel()
	if err != nil {
		return err
	}
	brought := map[place]Record{}
	for {
		changed, err := f.difference(ctx, brought)
		if err != nil {
			return err
		}
		if len(changed) == 0 {
			done, err := f.switchBack(ctx, brought)
			if done || err != nil {
				return err
			}
			continue
		}
		if err := f.copy(ctx, changed); err != nil {
			return err
		}
		for p, r := range changed {
			brought[p] = r
		}
	}
}

// difference is what in memory is not as it was brought; a record without a Value was removed.
func (f *Fallback) difference(ctx context.Context, brought map[place]Record) (map[place]Record, error) {
	changed, seen := map[place]Record{}, map[place]bool{}
	for _, name := range f.cfg.Memory.names() {
		err := f.cfg.Memory.List(ctx, name, func(key string, r Record) bool {
			p := place{name, key}
			seen[p] = true
			if old, ok := brought[p]; !ok || !old.Equal(r) {
				changed[p] = r
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	now := time.Now()
	for p, old := range brought {
		if !seen[p] && old.Value != nil && !old.Expired(now) {
			changed[p] = Record{}
		}
	}
	return changed, nil
}

// copy writes records to the first store.
func (f *Fallback) copy(ctx context.Context, records map[place]Record) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs error
		room = make(chan struct{}, copies)
	)
	for p, r := range records {
		room <- struct{}{}
		mu.Lock()
		failed := errs != nil
		mu.Unlock()
		if failed {
			break
		}
		wg.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
			defer cancel()
			mu.Lock()
			base := f.base[p]
			mu.Unlock()
			err := f.cfg.First.Update(ctx, p.collection, p.key, func(there Record) (Record, error) {
				return f.cfg.Merge(p.collection, there, base, r), nil
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = err // one is enough to read: they have one cause
				return
			}
			f.base[p] = r
		})
	}
	wg.Wait()
	return errs
}

// switchBack returns to the first store, unless memory has changed since it was brought there.
func (f *Fallback) switchBack(ctx context.Context, brought map[place]Record) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, err := f.difference(ctx, brought)
	if err != nil || len(changed) > 0 {
		return false, err
	}
	f.cfg.Memory.clear()
	f.cfg.Log.Info("the state store is back", "down_for", time.Since(f.since).String(), "records", len(brought))
	f.since, f.cause, f.pause = time.Time{}, nil, 0
	f.base = map[place]Record{}
	return true, nil
}
