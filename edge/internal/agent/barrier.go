package agent

import (
	"context"
	"slices"

	"github.com/apss-sensor/apss/edge/internal/buffer"
)

// wait returns when all that was put in before is in the spool, was confirmed, or was dropped.
func (l *lane) wait(ctx context.Context) error {
	b := &barrier{mark: l.buffer.Mark(), done: make(chan struct{})}
	l.mu.Lock()
	l.barriers = append(l.barriers, b)
	l.mu.Unlock()
	l.wake()
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		l.barriers = slices.DeleteFunc(l.barriers, func(o *barrier) bool { return o == b })
		return ctx.Err()
	}
}

// barrier is a caller of wait.
type barrier struct {
	mark   buffer.Mark
	passed bool   // all before the mark is sealed; then
	number uint64 // is the number of the last message
	done   chan struct{}
}

// pass moves the barriers on and reports whether one waits for the sealer. Only the sealer calls it, between two
// messages: what has left the buffer is then stored or in direct.
func (l *lane) pass() (wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.barriers {
		if !b.passed && l.buffer.Passed(b.mark) {
			b.passed, b.number = true, l.sealed
		}
		wanted = wanted || !b.passed
	}
	l.release()
	return wanted
}

// release lets go the barriers that have nothing more to wait for.
func (l *lane) release() {
	l.barriers = slices.DeleteFunc(l.barriers, func(b *barrier) bool {
		if !b.passed {
			return false
		}
		for n := range l.direct {
			if n <= b.number {
				return false
			}
		}
		close(b.done)
		return true
	})
}

// done says that a message needs no more care: it is in the spool or confirmed. Number is 0 for one from the spool.
func (l *lane) done(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.direct, number)
	l.release()
	close(l.changed)
	l.changed = make(chan struct{})
}
