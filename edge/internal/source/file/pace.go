package file

import (
	"context"
	"sync"
	"time"
)

const (
	// stallAfter is how long one look may take. The longest there is, to hash the largest file from a slow disk, takes a
	// second or two.
	stallAfter = 10 * time.Second
	// paceEvery is how often that is looked after.
	paceEvery = 5 * time.Second
)

// pace is what the sensor's loop looks at, for others to see: a file system whose server hangs holds a look up without
// an end. Safe for concurrent use.
type pace struct {
	limit, every time.Duration

	mu    sync.Mutex
	path  string
	since time.Time // zero while the loop waits for something to do
}

// at is told what is looked at next.
func (p *pace) at(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path, p.since = path, time.Now()
}

func (p *pace) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path, p.since = "", time.Time{}
}

// stalled returns what the loop has looked at for longer than it should, and for how long.
func (p *pace) stalled(now time.Time) (path string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if took = now.Sub(p.since); p.since.IsZero() || took < p.limit {
		return "", 0
	}
	return p.path, took
}

// oversee says when the loop stands still, and when it goes on, until ctx ends.
func (s *Sensor) oversee(ctx context.Context) {
	tick := time.NewTicker(s.pace.every)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			path, took := s.pace.stalled(now)
			switch {
			case path != "" && said == "":
				s.counters.change(func(t *Stats) { t.Stalls++ })
				s.config.Logger.Warn("the file system of a watched path does not answer: no change is told until it does",
					"path", path, "since", took.Round(time.Second))
			case path == "" && said != "":
				s.config.Logger.Info("the file system of a watched path answers again", "path", said)
			}
			said = path
		}
	}
}
