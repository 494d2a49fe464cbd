package alerting

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a change in a folder may go on before the rules are read: kubelet swaps a ConfigMap's versions in
// one step, an editor or a copy takes several.
const settle = 300 * time.Millisecond

// watch reloads when a folder may have changed, until ctx ends.
func (g *Engine) watch(ctx context.Context) {
	if len(g.config.Dirs) == 0 {
		return
	}
	hints := make(chan struct{}, 1)
	var hearing sync.WaitGroup
	defer hearing.Wait()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		g.log.Warn("the folders of rules are polled only", "every", g.config.Poll, "error", err)
	} else {
		defer func() { _ = watcher.Close() }() // ends hear
		hearing.Go(func() { hear(watcher, hints) })
	}
	tick := time.NewTicker(g.config.Poll)
	defer tick.Stop()
	unsaid := true
	for {
		if watcher != nil {
			for _, dir := range g.config.Dirs {
				// One that was missing may be there now.
				if slices.Contains(watcher.WatchList(), dir) {
					continue
				}
				if err := watcher.Add(dir); err != nil && unsaid {
					unsaid = false
					g.log.Warn("a folder of rules is polled only", "every", g.config.Poll, "error", err)
				}
			}
		}
		g.Reload() // what changed since the last look was perhaps not told of
		select {
		case <-tick.C:
		case <-hints:
			if !pause(ctx, settle) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// hear passes on that there were events, until w is closed.
func hear(w *fsnotify.Watcher, hints chan<- struct{}) {
	for events, errs := w.Events, w.Errors; events != nil || errs != nil; {
		select {
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
		case _, ok := <-errs: // an overflow: whatever it was, it is looked at
			if !ok {
				errs = nil
				continue
			}
		}
		select {
		case hints <- struct{}{}:
		default:
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
