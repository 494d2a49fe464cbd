// Package batch is group commit: many callers hand in items and block, one flush takes what has gathered, every caller
// gets its own item's verdict.
package batch

import (
	"context"
	"errors"
	"time"
)

// ErrClosed is the verdict of items that come after Close began.
var ErrClosed = errors.New("the group is closed")

// Limits end the gathering of a flush: whichever is reached first.
type Limits struct {
	Count   int           // weight of items, see Weight.Count
	Bytes   int           // weight of items, see Weight.Bytes
	Linger  time.Duration // since the first item of the flush came
	Flushes int           // flushes at the same time, at most
	Waiting int           // bytes that wait or are being flushed, at most; further callers block
}

// Weight is what one item counts against the limits.
type Weight struct{ Count, Bytes int }

// Flush delivers items and returns nil when all were accepted, or one verdict per item, nil for an accepted one.
// Its context ends when all of its callers gave up or the group was closed without grace.
type Flush[T any] func(ctx context.Context, items []T) []error

// Group gathers items for flushes. Safe for concurrent use.
type Group[T any] struct{}

// New starts a group.
func New[T any](l Limits, f Flush[T]) *Group[T] { panic("unwritten") }

// Do hands item in and waits for its verdict. When ctx ends first, Do returns ctx's error; an item not yet taken by a
// flush is taken back, one already taken may still be delivered.
func (g *Group[T]) Do(ctx context.Context, item T, w Weight) error { panic("unwritten") }

// Close flushes what is in hand and waits for it until ctx ends.
func (g *Group[T]) Close(ctx context.Context) error { panic("unwritten") }
