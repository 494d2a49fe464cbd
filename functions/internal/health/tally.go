package health

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/apss-sensor/apss/functions/internal/breaker"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Figures are what one way to an integration came to in this instance, since its start.
type Figures struct {
	Accepted, DeadLettered int64
	Failures               [outcome.Partial + 1]int64 // calls that failed, by class
	Breaker                breaker.Status
}

const (
	slotLength = 5 * time.Minute
	slots      = int64(time.Hour / slotLength)
)

// slot is what was delivered in five minutes, by all instances.
type slot struct {
	Number   int64            `json:"n"` // of five minutes since 1970
	Accepted int64            `json:"a,omitempty"`
	Dead     int64            `json:"d,omitempty"`
	Failures map[string]int64 `json:"f,omitempty"`
}

// tally is what is known of the deliveries to an integration.
type tally struct {
	Slots       []slot                `json:"slots,omitempty"` // of the last hour, the newest last
	LastSuccess time.Time             `json:"success,omitzero"`
	LastFailure time.Time             `json:"failure,omitzero"`
	LastError   string                `json:"error,omitempty"`
	Breakers    map[string]openRecord `json:"breakers,omitempty"` // those that are not closed, by instance and topic
}

// openRecord is a breaker that is not closed.
type openRecord struct {
	State  string    `json:"state"`
	Reason string    `json:"reason"`
	Retry  time.Time `json:"retry"`
	At     time.Time `json:"at"` // of this word
}

const (
	// staleBreaker is how long an instance's word of its breaker counts after the pause: without requests an instance has
	// no CPU to say more, and a killed one says nothing.
	staleBreaker = 2 * time.Minute
	mostBreakers = 64
	longestError = 512
)

func (r openRecord) stale(now time.Time) bool {
	return now.Sub(r.At) > staleBreaker && now.Sub(r.Retry) > staleBreaker
}

// add adds what a way came to between two looks at its figures.
func (t *tally) add(now time.Time, who string, before, after Figures) {
	number := now.Unix() / int64(slotLength/time.Second)
	t.Slots = slices.DeleteFunc(t.Slots, func(s slot) bool { return s.Number <= number-slots || s.Number > number })
	if len(t.Slots) == 0 || t.Slots[len(t.Slots)-1].Number != number {
		t.Slots = append(t.Slots, slot{Number: number})
	}
	s := &t.Slots[len(t.Slots)-1]
	s.Accepted += after.Accepted - before.Accepted
	s.Dead += after.DeadLettered - before.DeadLettered
	for class, n := range after.Failures {
		if n -= before.Failures[class]; n > 0 {
			if s.Failures == nil {
				s.Failures = map[string]int64{}
			}
			s.Failures[outcome.Class(class).String()] += n
		}
	}
	b := after.Breaker
	if b.LastSuccess.After(t.LastSuccess) {
		t.LastSuccess = b.LastSuccess
	}
	if b.LastFailure.After(t.LastFailure) {
		t.LastFailure, t.LastError = b.LastFailure, clip(b.LastError)
	}
	t.breaker(now, who, b)
}

func (t *tally) breaker(now time.Time, who string, b breaker.Status) {
	delete(t.Breakers, who)
	maps.DeleteFunc(t.Breakers, func(_ string, r openRecord) bool { return r.stale(now) })
	if b.State != breaker.Closed && len(t.Breakers) < mostBreakers {
		if t.Breakers == nil {
			t.Breakers = map[string]openRecord{}
		}
		t.Breakers[who] = openRecord{State: b.State.String(), Reason: clip(b.Reason), Retry: b.Retry, At: now}
	}
}

// worst is the breaker with the longest pause of those that are not closed.
func (t *tally) worst(now time.Time) (openRecord, bool) {
	var found []openRecord
	for _, r := range t.Breakers {
		if !r.stale(now) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return openRecord{}, false
	}
	return slices.MaxFunc(found, func(a, b openRecord) int { return cmp.Or(a.Retry.Compare(b.Retry), cmp.Compare(a.Reason, b.Reason)) }), true
}

// hour is what was delivered in the last hour.
func (t *tally) hour(now time.Time) (sum slot) {
	number := now.Unix() / int64(slotLength/time.Second)
	sum.Failures = map[string]int64{}
	for _, s := range t.Slots {
		if s.Number <= number-slots {
			continue
		}
		sum.Accepted += s.Accepted
		sum.Dead += s.Dead
		for class, n := range s.Failures {
			sum.Failures[class] += n
		}
	}
	return sum
}

func clip(s string) string {
	if len(s) <= longestError {
		return s
	}
	return string([]rune(s[:longestError-len("...")])) + "..." // a cut character becomes U+FFFD
}

// Collect adds this instance's figures to the state, where there are new ones. Of two at the same time one does it.
func (h *Health) Collect(ctx context.Context) error {
	if !h.collecting.TryLock() {
		return nil
	}
	defer h.collecting.Unlock()
	var first error
	for _, in := range h.cfg.Instances {
		for _, w := range in.Ways {
			who := h.owner + " " + w.Topic
			place := in.Name + " " + w.Topic
			before, after := h.collected[place], w.Figures()
			if before == after && after.Breaker.State == breaker.Closed {
				continue
			}
			err := change(ctx, h.cfg.State, deliveries, in.Name, func(t *tally) error {
				t.add(time.Now(), who, before, after)
				return nil
			})
			if err != nil {
				if first == nil { // of one cause, mostly
					first = err
				}
				continue // with the next look
			}
			h.collected[place] = after
		}
	}
	return first
}
