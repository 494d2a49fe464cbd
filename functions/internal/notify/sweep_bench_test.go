package notify

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state/redis"
	"github.com/apss-sensor/apss/functions/internal/state/redis/redistest"
	"github.com/apss-sensor/apss/shared/event"
)

// BenchmarkSweep keeps 1,000 open incidents on a real Redis server, all of which have repeats to tell, critical ones,
// which no rate holds back. It reports how long a Tick takes that finds them all due, and the median and 99th percentile of alerts of other
// incidents that are handled while it runs and while nothing is due.
func BenchmarkSweep(b *testing.B) {
	const incidents, beside = 1000, 200
	server := redistest.Start(b)
	for b.Loop() {
		store := redis.New(redis.Config{Network: "unix", Address: server.Socket})
		p := &people{}
		s := start(b, p, func(c *Config) {
			c.State = store
			c.Group.Window = time.Millisecond
			c.Rate = Rate{PerMinute: 60, Burst: 10}
			c.Name = event.NewID() // a collection of its own
		})
		var next atomic.Int64
		hand := func(fingerprint string) {
			if err := s.hand(b.Context(), alert(int(next.Add(1)), fingerprint, event.Critical)); err != nil {
				b.Error(err)
			}
		}
		all := func() { // sixteen at a time, as pushes come
			var wg sync.WaitGroup
			fingerprints := make(chan string)
			for range 16 {
				wg.Go(func() {
					for f := range fingerprints {
						hand(f)
					}
				})
			}
			for i := range incidents {
				fingerprints <- fmt.Sprint("f", i)
			}
			close(fingerprints)
			wg.Wait()
		}
		s.look.Store(1 << 62) // only Tick looks
		times := func(name string) (median, p99 time.Duration) {
			took := make([]time.Duration, beside)
			for i := range took {
				begin := time.Now()
				hand(fmt.Sprint(name, i))
				took[i] = time.Since(begin)
			}
			slices.Sort(took)
			return took[beside/2], took[beside*99/100]
		}
		all()
		all()
		median, p99 := times("alone")
		b.ReportMetric(float64(median.Microseconds()), "alone-median-us")
		b.ReportMetric(float64(p99.Microseconds()), "alone-p99-us")
		var tick time.Duration
		var wg sync.WaitGroup
		wg.Go(func() {
			begin := time.Now()
			if err := s.Tick(b.Context()); err != nil {
				b.Error(err)
			}
			tick = time.Since(begin)
		})
		median, p99 = times("beside")
		wg.Wait()
		b.ReportMetric(float64(median.Microseconds()), "beside-median-us")
		b.ReportMetric(float64(p99.Microseconds()), "beside-p99-us")
		b.ReportMetric(float64(tick.Milliseconds()), "tick-ms")
		b.ReportMetric(float64(len(p.got())), "messages")
		s.closes(b)
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	}
	b.ReportMetric(0, "ns/op")
}
