// Package budget bounds the bytes that are in hand: who gets none is told so at once instead of waiting in memory.
package budget

import "sync/atomic"

// Budget is a number of bytes to share. Safe for concurrent use.
type Budget struct {
	size int64
	used atomic.Int64
}

// New returns a budget of size bytes.
func New(size int64) *Budget { return &Budget{size: size} }

// Take reserves n bytes, or none when fewer are left.
func (b *Budget) Take(n int64) bool {
	if b.used.Add(n) <= b.size {
		return true
	}
	b.used.Add(-n)
	return false
}

// Give returns n bytes that were taken.
func (b *Budget) Give(n int64) { b.used.Add(-n) }

// Size returns how many bytes there are to share.
func (b *Budget) Size() int64 { return b.size }

// Used returns how many bytes are taken.
func (b *Budget) Used() int64 { return b.used.Load() }
