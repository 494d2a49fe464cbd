package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/event"
)

// urgentGap is the least time between two messages that are sealed at once because of a HIGH event.
const urgentGap = 5 * time.Millisecond

// storeAgain is the time between two tries to store a message that also waits for a sender.
const storeAgain = time.Second

// lane takes encoded items from a buffer to the publisher.
type lane struct {
	name      string
	c         LaneConfig
	packing   packing
	publisher Publisher
	log       *slog.Logger
	gone      func(error) // called when the publisher will never accept anything again

	buffer  *buffer.Buffer
	spool   *spool.Spool
	refused *spool.Spool

	poke     chan struct{} // something the sealer waits for may have happened
	closing  chan struct{} // closed when nothing is put in any more
	finished chan struct{} // closed when the sealer has sealed all
	jobs     chan job

	mu       sync.Mutex
	barriers []*barrier
	direct   map[uint64]struct{} // messages that are in no spool, by number
	sealed   uint64              // number of the last message
	changed  chan struct{}       // closed and replaced when a message is done with

	counts  laneCounts
	sending sending
}

// laneCounts are what the metrics show.
type laneCounts struct {
	sealedItems, sealedMessages, sealedBytes          atomic.Int64
	confirmedItems, confirmedMessages, confirmedBytes atomic.Int64
	failures                                          atomic.Int64 // attempts to publish
	refusedItems                                      atomic.Int64
	unspooled                                         atomic.Int64 // messages that went past the spool
	droppedAtEnd                                      atomic.Int64 // items that neither spool nor publisher took
}

// job is one message on its way to a sender.
type job struct {
	payload []byte
	items   int
	record  *spool.Record // nil when it is in no spool; then
	number  uint64        // is its number in direct
}

func newLane(name string, c LaneConfig, p packing, pub Publisher, log *slog.Logger, gone func(error)) (*lane, error) {
	log = log.With("lane", name)
	c.Spool.Logger, c.Refused.Logger = log, log
	main, err := spool.Open(c.Spool)
	if err != nil {
		return nil, err
	}
	refused, err := spool.Open(c.Refused)
	if err != nil {
		main.Close()
		return nil, err
	}
	return &lane{
		name: name, c: c, packing: p, publisher: pub, log: log, gone: gone,
		buffer: buffer.New(c.Buffer), spool: main, refused: refused,
		poke: make(chan struct{}, 1), closing: make(chan struct{}), finished: make(chan struct{}), jobs: make(chan job),
		direct: map[uint64]struct{}{}, changed: make(chan struct{}),
		sending: sending{recovered: make(chan struct{})},
	}, nil
}

// put hands an item in. It does not wait.
func (l *lane) put(s event.Severity, tag string, data []byte) {
	f := l.buffer.Put(s, tag, data)
	if f.Count == 1 || f.Count >= l.c.Seal.Count || f.Bytes >= l.c.Seal.Bytes || s >= event.High {
		l.wake()
	}
}

func (l *lane) wake() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// run works until ctx ends, and waits for all it started.
func (l *lane) run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { l.seal(ctx) })
	all.Go(func() { l.pump(ctx) })
	for range l.c.InFlight {
		all.Go(func() { l.sender(ctx) })
	}
	all.Wait()
	l.counts.droppedAtEnd.Add(int64(l.buffer.Fill().Count))
	l.spool.Close()
	l.refused.Close()
}

// seal makes messages of what waits in the buffer, when it is time.
func (l *lane) seal(ctx context.Context) {
	defer close(l.finished)
	var first, last time.Time // when what waits began to wait; when a message was sealed
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		closing := isClosed(l.closing) // before the buffer is looked at: what comes later is not ours
		wanted := l.pass()
		now, f := time.Now(), l.buffer.Fill()
		wait := time.Hour
		if f.Count == 0 {
			if closing {
				return
			}
			first = time.Time{}
		} else {
			if first.IsZero() {
				first = now
			}
			wait = first.Add(l.c.Seal.After).Sub(now)
			if f.Highest >= event.High {
				wait = min(wait, last.Add(urgentGap).Sub(now))
			}
			if wanted || closing || f.Count >= l.c.Seal.Count || f.Bytes >= l.c.Seal.Bytes {
				wait = 0
			}
		}
		if wait <= 0 {
			payload, items := l.packing.pack(l.buffer, now)
			l.counts.sealedMessages.Add(1)
			l.counts.sealedItems.Add(int64(items))
			l.counts.sealedBytes.Add(int64(len(payload)))
			l.store(ctx, payload, items)
			last = now
			continue
		}
		timer.Reset(wait)
		end := l.closing
		if closing {
			end = nil
		}
		select {
		case <-l.poke:
		case <-timer.C:
		case <-end:
		case <-ctx.Done():
		}
	}
	for l.buffer.Fill().Count > 0 { // no time left to send: the next run does it
		payload, items := l.packing.pack(l.buffer, time.Now())
		if l.spool.Append(payload, items) != nil {
			l.counts.droppedAtEnd.Add(int64(items))
		}
	}
}

// store puts a message into the spool or, while that is broken, into a sender's hands.
func (l *lane) store(ctx context.Context, payload []byte, items int) {
	l.mu.Lock()
	l.sealed++
	number := l.sealed
	l.direct[number] = struct{}{}
	l.mu.Unlock()
	if l.spool.Append(payload, items) == nil {
		l.done(number)
		return
	}
	retry := time.NewTicker(storeAgain)
	defer retry.Stop()
	for {
		select {
		case l.jobs <- job{payload: payload, items: items, number: number}:
			l.counts.unspooled.Add(1)
			return
		case <-retry.C:
			if l.spool.Append(payload, items) == nil {
				l.done(number)
				return
			}
		case <-ctx.Done():
			l.counts.droppedAtEnd.Add(int64(items))
			l.done(number)
			return
		}
	}
}

// drain waits until all that was put in is confirmed. Nothing may be put in any more.
func (l *lane) drain(ctx context.Context) error {
	close(l.closing)
	select {
	case <-l.finished:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		l.mu.Lock()
		changed, direct := l.changed, len(l.direct)
		l.mu.Unlock()
		if direct == 0 && l.spool.Stats().Records == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
