package network

import (
	"runtime"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// A hunt lists the sockets of a namespace again and again for a moment, after short connections of which nothing tells
// whose they were: where they come in numbers one is caught open, and its process is the candidate for the others.
const (
	huntTries = 64
	huntPause = 10 * time.Second // from the begin of one to that of the next in a namespace
	huntShare = 50               // of the time one part in so many goes into hunts, in CPU time
	huntEvery = 7 * time.Millisecond
	// huntFirst bounds the processes that are looked at before all others, because they hold sockets.
	huntFirst = 24
)

// wound tells the hunt that a connection of n has no candidate.
func (n *namespace) wound(now time.Time) {
	if n.prey == 0 && now.Sub(n.hunted) >= huntPause {
		n.prey, n.hunted = huntTries, now
	}
}

// hunt lists once where there is something to hunt, and returns what happened and when to go on; zero: not at all.
func (s *Sensor) hunt(now time.Time) (events []*event.Event, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun()
	runtime.LockOSThread()
	start := threadTime()
	for _, n := range s.spaces {
		if n.prey > 0 {
			n.prey--
			n.stats.Hunts++
			n.hear(now)
			_ = n.list(now, false) // a poll says it when it goes on
			break                  // one after the other
		}
	}
	cost := threadTime() - start
	runtime.UnlockOSThread()
	return s.events, s.quarry(max(huntEvery, huntShare*cost))
}

// hunting returns when to hunt, zero if there is nothing to.
func (s *Sensor) hunting() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quarry(huntEvery)
}

func (s *Sensor) quarry(wait time.Duration) time.Duration {
	for _, n := range s.spaces {
		if n.prey > 0 {
			return wait
		}
	}
	return 0
}
