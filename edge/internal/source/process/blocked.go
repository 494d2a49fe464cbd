package process

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// patience is how long one process may take to be read. It takes 0.1 ms, on a starved machine some 10.
	patience = time.Second
	// maxBlocked bounds the threads that wait in the kernel, a stack of 16 KiB each. With so many waiting nothing is read
	// that can wait, of any process.
	maxBlocked = 64
)

// blocked are the processes of which a read did not come back. Command line and environment are a process's own memory,
// and where that is a file's, of a server that does not answer, the kernel holds up who reads them, without an end and
// without a way to call it off. It is not read again of such a process what may be held up, until it has come back.
type blocked struct {
	waiting atomic.Int32 // reads

	mu   sync.Mutex
	pids map[int32]int
	ever uint64
}

// has reports whether a read of pid would be held up.
func (b *blocked) has(pid int32) bool {
	waiting := b.waiting.Load()
	if waiting == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pids[pid] > 0 || waiting >= maxBlocked
}

// add notes a read of pid that is held up, until after is closed.
func (b *blocked) add(pid int32, after <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pids == nil {
		b.pids = make(map[int32]int)
	}
	b.pids[pid]++
	b.ever++
	b.waiting.Add(1)
	go func() { // nobody can wait for it
		<-after
		b.mu.Lock()
		defer b.mu.Unlock()
		b.waiting.Add(-1)
		if b.pids[pid]--; b.pids[pid] <= 0 {
			delete(b.pids, pid)
		}
	}()
}

// forget takes in that pid ended: the next process of that number may be read.
func (b *blocked) forget(pid int32) {
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pids, pid)
}

func (b *blocked) stats() (now int, ever uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int(b.waiting.Load()), b.ever
}

// sayBlocked says which process holds up its readers.
func (s *Sensor) sayBlocked(pid int32) {
	s.log.Warn("the kernel holds up a read of a process's command line or environment, as when it is memory of a file whose "+
		"server hangs: its command line is not read any more", "pid", pid)
}

// helper reads processes on a goroutine of its own, with a reader of its own, so that nobody who holds the sensor's lock
// waits for the kernel.
type helper struct {
	read    *reader
	pids    chan int32
	results chan result // of one at a time
	ended   chan struct{}
}

type result struct {
	details
	err error
}

func newHelper(like *reader, proc string) (*helper, error) {
	r, err := newReader(proc)
	if err != nil {
		return nil, err
	}
	r.cut, r.env, r.blocked = like.cut, like.env, like.blocked
	return &helper{read: r, pids: make(chan int32), results: make(chan result, 1), ended: make(chan struct{})}, nil
}

// run reads until pids is closed.
func (h *helper) run() {
	defer close(h.ended)
	defer h.read.close()
	for pid := range h.pids {
		d, err := h.read.read(pid)
		h.results <- result{d, err}
	}
}

// inspect reads all of pid, as [reader.read] does, and leaves out what is held up for longer than patience.
func (s *Sensor) inspect(pid int32) (details, error) {
	if d, found := s.read.early[pid]; found {
		return d, nil
	}
	if s.blocked.has(pid) {
		return s.read.read(pid)
	}
	if s.helper == nil {
		h, err := newHelper(s.read, s.config.Proc)
		if err != nil {
			return details{}, err
		}
		go h.run()
		s.helper = h
	}
	h := s.helper
	h.pids <- pid
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-h.results:
		return r.details, r.err
	case <-timer.C:
	}
	s.helper = nil
	close(h.pids)
	s.blocked.add(pid, h.ended)
	s.sayBlocked(pid)
	return s.read.read(pid)
}

// dismiss ends the helper, which has nothing to do.
func (s *Sensor) dismiss() {
	if h := s.helper; h != nil {
		s.helper = nil
		close(h.pids)
		<-h.ended
	}
}

// busy is what a mechanism's goroutine reads at the moment, for whoever watches over it.
type busy struct {
	pid  atomic.Int32 // 0: nothing
	turn atomic.Uint64
}

func (b *busy) begin(pid int32) {
	b.turn.Add(1)
	b.pid.Store(pid)
}

func (b *busy) end() { b.pid.Store(0) }

// overseer finds out that a goroutine reads one process for longer than patience.
type overseer struct {
	turn  uint64
	since time.Time
}

// check returns the process that holds b up, 0 for none. It is to be asked again and again.
func (o *overseer) check(b *busy, now time.Time) int32 {
	if b == nil {
		return 0
	}
	turn, pid := b.turn.Load(), b.pid.Load()
	if pid == 0 || turn != o.turn || o.since.IsZero() {
		o.turn, o.since = turn, now
		return 0
	}
	if now.Sub(o.since) < patience {
		return 0
	}
	return pid
}

// errHeldUp says that a mechanism's goroutine is held up by a process, and that another takes its place.
var errHeldUp = errors.New("a process holds up who reads it")

// tryAgain is how often a mechanism is begun anew because a process holds it up at its beginning.
const tryAgain = 4

// tryInTime is try for mechanisms that look into every process at once.
func (s *Sensor) tryInTime(ctx context.Context, name string) (mechanism, error) {
	for range tryAgain {
		type tried struct {
			mechanism
			err error
		}
		at, done, ended := &busy{}, make(chan tried, 1), make(chan struct{})
		go func() {
			defer close(ended)
			m, err := s.try(name, at)
			done <- tried{m, err}
		}()
		tick := time.NewTicker(patience / 4)
		var over overseer
		pid := int32(0)
		for pid == 0 {
			select {
			case t := <-done:
				tick.Stop()
				return t.mechanism, t.err
			case now := <-tick.C:
				pid = over.check(at, now)
			case <-ctx.Done():
				pid = -1
			}
		}
		tick.Stop()
		go func() { // nobody can wait for it
			if t := <-done; t.err == nil {
				t.close()
			}
		}()
		if pid < 0 {
			return nil, ctx.Err()
		}
		s.blocked.add(pid, ended)
		s.sayBlocked(pid)
	}
	return nil, fmt.Errorf("beginning: %w", errHeldUp)
}
