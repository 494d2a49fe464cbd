// Package budget bounds the bytes that are in hand: who gets none is told so at once instead of waiting in memory.
package budget

import "sync/atomic"

// Budget is a number of bytes to share. Safe for concurrent use.
type Budget struct {
	size   int64
	used   atomic.Int64
	parent *Budget // of a share
}

// New returns a budget of size bytes.
func New(size int64) *Budget { return &Budget{size: size} }

// Share returns a budget that takes from b, but never more than it leaves to others: who hangs on to all that it gets has a
// half, and two such have a third each (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
// switches", IEEE/ACM Transactions on Networking 6(2), 1998). What is taken at the same moment may go beyond that by
// itself.
func (b *Budget) Share() *Budget { return &Budget{size: b.size, parent: b} }

// Take reserves n bytes, or none when fewer are left.
func (b *Budget) Take(n int64) bool {
	own := b.used.Add(n)
	if b.parent == nil && own <= b.size || b.parent != nil && own <= b.size-b.parent.used.Load() && b.parent.Take(n) {
		return true
	}
	b.used.Add(-n)
	return false
}

// Give returns n bytes that were taken.
func (b *Budget) Give(n int64) {
	b.used.Add(-n)
	if b.parent != nil {
		b.parent.Give(n)
	}
}

// Size returns how many bytes there are to share.
func (b *Budget) Size() int64 { return b.size }

// Used returns how many bytes are taken; of a share, from it.
func (b *Budget) Used() int64 { return b.used.Load() }
