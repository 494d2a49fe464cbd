package notify

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// errLeave leaves a record as it is.
var errLeave = errors.New("the record stays as it is")

// change hands the incident under key to f, nil when there is none, and keeps what it returns; nil removes it.
func (n *Notify) change(ctx context.Context, key string, f func(*record) (*record, error)) error {
	err := n.cfg.State.Update(ctx, n.incidents, key, func(old state.Record) (state.Record, error) {
		r, err := f(parse(old))
		if r == nil || err != nil {
			return state.Record{}, err
		}
		return r.keep(n.cfg.Group)
	})
	if errors.Is(err, errLeave) {
		return nil
	}
	return err
}

// note is change for what has happened already: it is kept also when the push was given up meanwhile, and tried again when
// the store does not take it at once, because who does not know of a message sends it again.
func (n *Notify) note(ctx context.Context, key string, f func(*record) *record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	note := func() error { return n.change(ctx, key, func(r *record) (*record, error) { return f(r), nil }) }
	err := note()
	for pause := firstPoll; err != nil && ctx.Err() == nil; pause *= 2 {
		select {
		case <-time.After(pause):
			err = note()
		case <-ctx.Done():
		}
	}
	if err != nil {
		n.cfg.Log.WarnContext(ctx, "an incident's state could not be kept", "integration", n.cfg.Name, "incident", key, "error", err.Error())
	}
	return err
}

// flights are the first messages that this instance is sending, by incident.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
}

// flight is one of them. result stands when done is closed.
type flight struct {
	done   chan struct{}
	result *outcome.Error
}

func (f *flights) start(key string) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[string]*flight{}
	}
	own := &flight{done: make(chan struct{})}
	f.m[key] = own
	return own
}

func (f *flights) end(key string, own *flight, result *outcome.Error) {
	own.result = result
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m[key] == own {
		delete(f.m, key)
	}
	close(own.done)
}

func (f *flights) get(key string) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[key]
}

const (
	firstPoll = 10 * time.Millisecond
	lastPoll  = time.Second
)

// conclude notes that a's incident is over; its end is told when it is looked for what is due. One that nobody was told
// of has none.
func (n *Notify) conclude(ctx context.Context, a *event.Alert) (fate, *outcome.Error) {
	if a.Fingerprint == "" {
		return numbered, nil
	}
	now, busy := time.Now(), false
	err := n.change(ctx, keyOf(a.Fingerprint), func(r *record) (*record, error) {
		if r == nil || r.Phase == opening {
			busy = r != nil && r.busy(now)
			return nil, errLeave
		}
		busy = false
		r.Over, r.Heard = true, now.UnixNano()
		return r, nil
	})
	switch {
	case err != nil:
		return 0, storeTrouble(err)
	case busy:
		return 0, &outcome.Error{Class: outcome.Retry, Reason: "the incident's first message is under way"}
	}
	return numbered, nil
}

// join brings a into its incident.
func (n *Notify) join(ctx context.Context, a *event.Alert) (fate, *outcome.Error) {
	key := keyOf(a.Fingerprint)
	if key == "" { // each is an incident of its own
		key = keyOf("alert " + a.ID)
	}
	for poll := firstPoll; ; poll = min(2*poll, lastPoll) {
		var taken record
		var what step
		err := n.change(ctx, key, func(r *record) (*record, error) {
			r, what = r.join(a, time.Now(), n.owner, n.lease())
			if what == hold {
				return nil, errLeave
			}
			taken = *r
			return r, nil
		})
		switch {
		case err != nil:
			return 0, storeTrouble(err)
		case what == send:
			own := n.flights.start(key)
			f, e := n.announce(ctx, key, &taken, a)
			n.flights.end(key, own, e)
			return f, e
		case what == counted && taken.Phase == waiting:
			return digested, nil
		case what == counted:
			return numbered, nil
		}
		if e := n.await(ctx, key, poll); e != nil {
			return 0, e
		}
	}
}

// await waits until the message that another is sending of the incident may have come to an end. When this instance sends
// it and the receiver is in trouble, that is everybody's result.
func (n *Notify) await(ctx context.Context, key string, poll time.Duration) *outcome.Error {
	var done chan struct{}
	own := n.flights.get(key)
	if own != nil {
		done, poll = own.done, n.lease()
	}
	timer := time.NewTimer(poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return &outcome.Error{Class: outcome.Retry, Reason: "no time left to wait for the incident's first message", Err: ctx.Err()}
	case <-timer.C:
	case <-done:
		if e := own.result; e != nil && (e.Class == outcome.Retry || e.Class == outcome.Auth) {
			return e
		}
	}
	return nil
}

// announce sends what a is to the incident at once: its first message, or its higher severity. The caller has the turn.
func (n *Notify) announce(ctx context.Context, key string, taken *record, a *event.Alert) (fate, *outcome.Error) {
	now := time.Now()
	if e := n.breaker.Ready(now); e != nil {
		return n.putOff(ctx, key, a, e)
	}
	if !n.pace.first(now, a.Severity) {
		return n.enlist(ctx, key, a, n.nextDigest(now))
	}
	next := *taken
	next.count(a, now)
	i := next.incident(key, a)
	ref, _, e := n.tellIncident(ctx, i)
	if e != nil && i.Change == integration.Repeated && e.Class == outcome.Permanent { // its message may be gone: a new one
		i.Change, i.Ref = integration.Opened, ""
		ref, _, e = n.tellIncident(ctx, i)
	}
	if e != nil {
		return n.putOff(ctx, key, a, e)
	}
	_ = n.note(ctx, key, func(r *record) *record {
		if r == nil { // the lease was over before the answer came
			r = new(record)
		}
		r.count(a, now)
		r.accept(i.Change, ref)
		r.told(&next, now)
		r.leave(n.owner)
		return r
	})
	return sent, nil
}

// putOff is what becomes of a when its message could not be sent.
func (n *Notify) putOff(ctx context.Context, key string, a *event.Alert, e *outcome.Error) (fate, *outcome.Error) {
	if e.Class == outcome.Retry && e.Status == http.StatusTooManyRequests {
		return n.enlist(ctx, key, a, time.Now().Add(max(e.After, time.Second)))
	}
	_ = n.note(ctx, key, func(r *record) *record {
		if r == nil || r.Turn != n.owner {
			return r
		}
		if r.leave(n.owner); r.Phase == opening {
			return nil
		}
		return r
	})
	return 0, e
}

// enlist counts a and puts its incident into the digest.
func (n *Notify) enlist(ctx context.Context, key string, a *event.Alert, at time.Time) (fate, *outcome.Error) {
	fresh := false
	err := n.note(ctx, key, func(r *record) *record {
		if r == nil {
			r = &record{Phase: opening}
		}
		r.count(a, time.Now())
		fresh = r.Phase == opening
		r.list(at)
		r.leave(n.owner)
		return r
	})
	if err != nil {
		return 0, storeTrouble(err)
	}
	if fresh {
		n.cfg.Log.InfoContext(ctx, "an incident waits for the digest", "integration", n.cfg.Name, "incident", key, "alert", a.ID,
			"rule", a.RuleID, "severity", a.Severity.String(), "digest", at.UTC())
	}
	return digested, nil
}

// nextDigest is when the next digest goes out: the same time for all instances.
func (n *Notify) nextDigest(now time.Time) time.Time {
	return now.Truncate(n.cfg.Group.DigestEvery).Add(n.cfg.Group.DigestEvery)
}

// incident is r for the receiver, with the alert that is to stand for it.
func (r *record) incident(key string, a *event.Alert) integration.Incident {
	change := integration.Opened
	if r.Phase == open {
		change = integration.Repeated
	}
	return integration.Incident{
		Change: change, Alert: a, Fingerprint: key, Count: r.Count,
		FirstSeen: time.Unix(0, r.First).UTC(), LastSeen: time.Unix(0, r.Last).UTC(), Ref: r.Ref,
		Test: a.Event != nil && a.Event.Type == event.IntegrationTest,
	}
}

// accept notes that the receiver has a message of its own for r, and by what it knows that from now on.
func (r *record) accept(c integration.Change, ref string) {
	r.Phase = open
	if ref != "" || c == integration.Opened {
		r.Ref = ref
	}
}

// tellIncident sends i, and returns the receiver's reference and whether the receiver was called.
func (n *Notify) tellIncident(ctx context.Context, i integration.Incident) (ref string, made bool, e *outcome.Error) {
	k := map[integration.Change]kind{integration.Opened: kindOpened, integration.Repeated: kindRepeated, integration.Resolved: kindResolved}[i.Change]
	made, e = n.call(ctx, k, i.Alert.Severity, i.Alert.ID, func(ctx context.Context) (err error) {
		ref, err = n.people.SendIncident(ctx, i)
		return err
	})
	return ref, made, e
}
