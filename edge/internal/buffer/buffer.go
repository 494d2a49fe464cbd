// Package buffer holds encoded events until they are sealed.
//
// A buffer is bounded by count and by bytes. It is one queue for each severity: what is taken leaves the highest
// severity first, and within one severity in the order it came. When an item does not fit, the lowest severity gives
// way, its oldest item first; an item never drives out one of a higher severity, it is dropped itself. Every drop is
// counted by severity and reason.
//
// Items are bytes, copied into blocks that are reused, so that a full buffer is some hundred objects for the garbage
// collector and not some million: see BenchmarkFull. A buffer does not block; a Buffer is safe for concurrent use.
package buffer

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/apss-sensor/apss/shared/event"
)

// MaxItem is the most bytes of one item; larger ones are dropped. A Pub/Sub message may have 10 MB
// (cloud.google.com/pubsub/quotas), a receiver of many is happier with less.
const MaxItem = 1 << 20

const (
	severities = int(event.Critical) + 1
	blockSize  = 64 << 10
	maxFree    = 8 // blocks kept for reuse
	header     = 6 // of an item: length of the data (4) and of the tag (2), little endian
)

// Reason says why an item was dropped.
type Reason uint8

// The reasons.
const (
	Full     Reason = iota // something at least as severe needed the room
	Oversize               // larger than MaxItem or than the whole buffer
)

const reasons = int(Oversize) + 1

// String returns the reason as it stands in metrics.
func (r Reason) String() string {
	switch r {
	case Full:
		return "buffer_full"
	case Oversize:
		return "oversize"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Limits bound a buffer.
type Limits struct {
	Count int
	Bytes int // of the items with their tags and six bytes each
}

// Fill is what a buffer holds.
type Fill struct {
	Count int
	Bytes int
	// Highest is the highest severity in the buffer; Info when it is empty.
	Highest event.Severity
}

// Item is one item as it was put in. Its slices are the buffer's: they end with the call that hands them out.
type Item struct {
	Severity  event.Severity
	Tag, Data []byte
}

// Mark is a place in the stream of items, see [Buffer.Mark].
type Mark [severities]uint64

// Drops counts dropped items.
type Drops [severities][reasons]uint64

// Total returns the drops of every severity and reason.
func (d Drops) Total() (n uint64) {
	for s := range d {
		for _, c := range d[s] {
			n += c
		}
	}
	return n
}

// Buffer holds items.
type Buffer struct {
	limits Limits

	mu     sync.Mutex
	queues [severities]queue
	fill   Fill // Highest is computed when asked
	free   [][]byte
	drops  Drops
}

// queue is a FIFO of items in blocks. Items do not span blocks.
type queue struct {
	blocks [][]byte
	head   int    // offset of the first item in blocks[0]
	came   uint64 // items ever put in
	left   uint64 // items ever taken or driven out
}

// New returns an empty buffer. Limits must be positive.
func New(l Limits) *Buffer { return &Buffer{limits: l} }

// Put copies an item in and returns what the buffer then holds. The tag, at most 64 KiB, is for the caller's use.
func (b *Buffer) Put(s event.Severity, tag string, data []byte) Fill {
	s = min(s, event.Critical)
	size := header + len(tag) + len(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if size > min(MaxItem, b.limits.Bytes) || len(tag) > 1<<16-1 {
		b.drops[s][Oversize]++
		return b.filled()
	}
	for b.fill.Count+1 > b.limits.Count || b.fill.Bytes+size > b.limits.Bytes {
		if !b.giveWay(s) {
			b.drops[s][Full]++
			return b.filled()
		}
	}
	q := &b.queues[s]
	last := len(q.blocks) - 1
	if last < 0 || cap(q.blocks[last])-len(q.blocks[last]) < size {
		q.blocks = append(q.blocks, b.block(size))
		last++
	}
	block := q.blocks[last]
	block = binary.LittleEndian.AppendUint32(block, uint32(len(data)))
	block = binary.LittleEndian.AppendUint16(block, uint16(len(tag)))
	block = append(block, tag...)
	q.blocks[last] = append(block, data...)
	q.came++
	b.fill.Count++
	b.fill.Bytes += size
	return b.filled()
}

// Take removes items, the highest severity first, and hands each to visit: the first in any case, further ones while
// they keep within count and within bytes of data. It returns what is left. Visit must not use the buffer.
func (b *Buffer) Take(count, bytes int, visit func(Item)) Fill {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken, size := 0, 0
	for s := severities - 1; s >= 0; s-- {
		q := &b.queues[s]
		for q.came > q.left {
			tag, data := q.peek()
			if taken > 0 && (taken >= count || size+len(data) > bytes) {
				return b.filled()
			}
			visit(Item{event.Severity(s), tag, data})
			taken++
			size += len(data)
			b.remove(q)
		}
	}
	return b.filled()
}

// Mark returns the end of the stream: [Buffer.Passed] tells whether all that was put in before it has left.
func (b *Buffer) Mark() Mark {
	b.mu.Lock()
	defer b.mu.Unlock()
	var m Mark
	for s := range b.queues {
		m[s] = b.queues[s].came
	}
	return m
}

// Passed reports whether all items put in before m were taken or dropped.
func (b *Buffer) Passed(m Mark) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.queues {
		if b.queues[s].left < m[s] {
			return false
		}
	}
	return true
}

// Fill returns what the buffer holds.
func (b *Buffer) Fill() Fill {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.filled()
}

// Drops returns what was dropped since the start.
func (b *Buffer) Drops() Drops {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drops
}

// giveWay drops the oldest item of the lowest severity, unless that is above s.
func (b *Buffer) giveWay(s event.Severity) bool {
	for low := range int(s) + 1 {
		if q := &b.queues[low]; q.came > q.left {
			b.remove(q)
			b.drops[low][Full]++
			return true
		}
	}
	return false
}

func (b *Buffer) filled() Fill {
	f := b.fill
	for s := severities - 1; s > 0; s-- {
		if q := &b.queues[s]; q.came > q.left {
			f.Highest = event.Severity(s)
			break
		}
	}
	return f
}

// peek returns the first item of a queue that has one.
func (q *queue) peek() (tag, data []byte) {
	item := q.blocks[0][q.head:]
	n, t := int(binary.LittleEndian.Uint32(item)), int(binary.LittleEndian.Uint16(item[4:]))
	item = item[header:]
	return item[:t:t], item[t : t+n : t+n]
}

// remove takes away the first item of q and the block that it emptied.
func (b *Buffer) remove(q *queue) {
	tag, data := q.peek()
	size := header + len(tag) + len(data)
	q.head += size
	q.left++
	b.fill.Count--
	b.fill.Bytes -= size
	if q.head < len(q.blocks[0]) {
		return
	}
	if len(b.free) < maxFree && cap(q.blocks[0]) == blockSize {
		b.free = append(b.free, q.blocks[0][:0])
	}
	q.blocks[0] = nil
	q.blocks = q.blocks[1:]
	q.head = 0
}

// block returns an empty block with room for size.
func (b *Buffer) block(size int) []byte {
	if size > blockSize {
		return make([]byte, 0, size)
	}
	if last := len(b.free) - 1; last >= 0 {
		block := b.free[last]
		b.free = b.free[:last]
		return block
	}
	return make([]byte, 0, blockSize)
}
