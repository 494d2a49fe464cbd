package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// The collections of the state.
const (
	checks     = "health.checks"     // checkRecord by integration
	deliveries = "health.deliveries" // tally by integration
	canaries   = "health.canaries"   // canaryRecord by integration and topic
	schedule   = "health.schedule"   // round by what is done
	agents     = "health.agents"     // agentRecord by the agent's id
	topicTime  = "health.topic"      // when the newest message of the events topic was published
)

// keep is how long a record lives that nobody changes: an integration that is no longer there is forgotten.
const keep = 7 * 24 * time.Hour

// read returns the record under key, the zero value when there is none or it is of an older form.
func read[T any](ctx context.Context, s state.Store, collection, key string) (T, error) {
	var v T
	r, err := s.Get(ctx, collection, key)
	if err != nil || r.Value == nil {
		return v, err
	}
	return decode[T](r), nil
}

func decode[T any](r state.Record) T {
	var v T
	if r.Value == nil || json.Unmarshal(r.Value, &v) != nil {
		return *new(T)
	}
	return v
}

// change lets f change the record under key. An error of f leaves it as it is and comes back.
func change[T any](ctx context.Context, s state.Store, collection, key string, f func(*T) error) error {
	return s.Update(ctx, collection, key, func(old state.Record) (state.Record, error) {
		v := decode[T](old)
		if err := f(&v); err != nil {
			return state.Record{}, err
		}
		return encode(v, time.Time{}, time.Now().Add(keep))
	})
}

func encode(v any, due, expires time.Time) (state.Record, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return state.Record{}, fmt.Errorf("encoding a record: %w", err)
	}
	return state.Record{Value: value, Due: due, Expires: expires}, nil
}

// round is when something is done by one instance for all.
type round struct {
	Since time.Time `json:"since"` // the first
	Next  time.Time `json:"next"`
}

var errNotDue = errors.New("it is not due, or another instance's turn")

// mine reports whether it is the caller's turn to do what is done every so often.
func mine(ctx context.Context, s state.Store, what string, now time.Time, every time.Duration) (bool, error) {
	err := change(ctx, s, schedule, what, func(r *round) error {
		if now.Before(r.Next) && r.Next.Sub(now) <= every { // a longer wait is of an older setting
			return errNotDue
		}
		if r.Since.IsZero() {
			r.Since = now
		}
		r.Next = now.Add(every)
		return nil
	})
	if errors.Is(err, errNotDue) {
		return false, nil
	}
	return err == nil, err
}
