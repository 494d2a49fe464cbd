package notify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// seen remembers alerts: that one is being dealt with, and that it was. The first holds for a lease only, for those who
// die over it.
type seen struct {
	store      state.Store
	collection string
	owner      string // this instance
	lease      time.Duration
}

const (
	// rememberFor is longer than an agent's spool needs to be sent twice, and than Pub/Sub's backoff.
	rememberFor = 24 * time.Hour
	// longestKey is what of an id or fingerprint is used as it is; beyond it its hash is.
	longestKey = 128
	// afterwards is how long what must not be left undone may take when its push has been given up.
	afterwards = 5 * time.Second
)

var (
	errDone = errors.New("the alert was dealt with before")
	errBusy = errors.New("the alert is being dealt with")
)

var done = []byte("done")

// keyOf is id as a key of the store.
func keyOf(id string) string {
	if len(id) <= longestKey {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// claim returns nil when the caller is the one to deal with the alert: it must finish or release it. Else errDone, errBusy
// or the store's error.
func (s *seen) claim(ctx context.Context, id string) error {
	now := time.Now()
	return s.store.Update(ctx, s.collection, keyOf(id), func(r state.Record) (state.Record, error) {
		if bytes.Equal(r.Value, done) {
			return r, errDone
		}
		if _, until, ok := bytes.Cut(r.Value, []byte(" ")); ok {
			if end, err := strconv.ParseInt(string(until), 10, 64); err == nil && now.UnixNano() < end {
				return r, errBusy
			}
		}
		end := now.Add(s.lease)
		return state.Record{Value: strconv.AppendInt([]byte(s.owner+" "), end.UnixNano(), 10), Expires: end}, nil
	})
}

// finish says that the alert was dealt with.
func (s *seen) finish(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	return s.store.Update(ctx, s.collection, keyOf(id), func(state.Record) (state.Record, error) {
		return state.Record{Value: done, Expires: time.Now().Add(rememberFor)}, nil
	})
}

// release lets others deal with the alert.
func (s *seen) release(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	return s.store.Update(ctx, s.collection, keyOf(id), func(r state.Record) (state.Record, error) {
		if owner, _, ok := bytes.Cut(r.Value, []byte(" ")); !ok || string(owner) != s.owner {
			return r, nil // the lease ended and another took it
		}
		return state.Record{}, nil
	})
}
