// Package state is the small memory that instances of the functions share: which alerts were sent, what repeats of an
// incident came to, how healthy a receiver is.
//
// A record is a few hundred bytes under a key in a collection. Everything is built on one operation, [Store.Update],
// which changes a record atomically across instances. Records may have a time at which something is due; [Store.Due]
// finds those, so that any instance does what another one began.
//
// Implementations: memory (one instance), Redis, Firestore. All pass statetest.Run.
package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Limits of a record, from Firestore's documents (https://cloud.google.com/firestore/quotas#limits: 1 MiB, and 1,500 bytes
// of a document's id, in which a byte of the key may take three).
const (
	MaxKey   = 480
	MaxValue = 256 << 10
)

// ErrDown is what a Store's errors wrap when the store cannot be reached: the caller goes on without it.
var ErrDown = errors.New("the state store cannot be reached")

// ErrLimit is what a Store's errors wrap when a key or value is beyond the limits.
var ErrLimit = errors.New("a record beyond the limits")

// Record is what is kept under a key. A store may cut times to microseconds.
type Record struct {
	Value   []byte    // nil: there is none
	Due     time.Time // zero: never
	Expires time.Time // zero: never; afterwards there is none
}

// Store keeps records. Safe for concurrent use.
type Store interface {
	// Update hands the record under key to change, and keeps what it returns; a nil Value removes it. It is one step for
	// everybody: when another change came between, change is called again. change must not block nor call the store. An
	// error of change leaves the record as it is and comes back as it is.
	Update(ctx context.Context, collection, key string, change func(Record) (Record, error)) error
	// Get returns the record under key, without a Value when there is none.
	Get(ctx context.Context, collection, key string) (Record, error)
	// Due returns keys of records that are due at now, the longest due first, at most limit.
	Due(ctx context.Context, collection string, now time.Time, limit int) ([]string, error)
	// List calls f with each record of a collection in no order, until f returns false.
	List(ctx context.Context, collection string, f func(key string, r Record) bool) error
	// Close ends what the store started.
	Close() error
}

// Volatile is what a Store has whose records may end with the program: what waits in it is better sent before.
type Volatile interface{ Volatile() bool }

// Check reports what keeps an operation on key from being done.
func Check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("%w: a key of %d bytes, want 1 to %d", ErrLimit, len(key), MaxKey)
	}
	return nil
}

// CheckValue reports a value that is too large for a record.
func CheckValue(key string, value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: %d bytes under %.64q, want at most %d", ErrLimit, len(value), key, MaxValue)
	}
	return nil
}

// Down is what a Store returns when it could not do what it was asked under ctx, because of err: a caller that gave up
// finds its own reason, any other that the store is down.
func Down(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		return ended
	}
	return fmt.Errorf("%w: %w", ErrDown, err)
}

// Expired reports whether the record has ended at now.
func (r Record) Expired(now time.Time) bool { return !r.Expires.IsZero() && !r.Expires.After(now) }

// Equal reports whether r and other are the same record.
func (r Record) Equal(other Record) bool {
	return (r.Value == nil) == (other.Value == nil) && bytes.Equal(r.Value, other.Value) &&
		r.Due.Equal(other.Due) && r.Expires.Equal(other.Expires)
}
