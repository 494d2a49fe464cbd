package program

import (
	"context"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/telemetry"
)

// flusher exports telemetry now and then, before an answer: a function has no CPU between requests.
type flusher struct {
	tel  *telemetry.Telemetry
	also func(context.Context) // before it
	mu   sync.Mutex
	last time.Time
}

const (
	flushEvery   = 10 * time.Second
	flushTimeout = 500 * time.Millisecond
)

func newFlusher(t *telemetry.Telemetry, also func(context.Context)) *flusher {
	return &flusher{tel: t, also: also, last: time.Now()}
}

func (f *flusher) maybe(ctx context.Context) {
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.last) < flushEvery {
		return
	}
	f.last = now
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	f.also(ctx)
	if err := f.tel.Flush(ctx); err != nil {
		f.tel.Logger().DebugContext(ctx, "exporting telemetry", "error", err.Error())
	}
}
