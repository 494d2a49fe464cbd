package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

const (
	// maxDue is how many incidents are dealt with at a time: a digest stands for no more.
	maxDue = 500
	// senders is how many messages of known incidents are on their way at the same time.
	senders = 4
)

// Tick sends what is due: counts of repeats, digests, ends of incidents. It is to be called every second or so, and is
// cheap when there is nothing. While another call is under way it waits for it. It returns what kept the store from being
// read; what the receiver does not take is due again.
func (n *Notify) Tick(ctx context.Context) error {
	if n.people == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Deliver)
	defer cancel()
	select {
	case n.sweeping <- struct{}{}:
		defer func() { <-n.sweeping }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for n.breaker.Ready(time.Now()) == nil {
		keys, err := n.cfg.State.Due(ctx, n.incidents, time.Now(), maxDue)
		if err != nil {
			return fmt.Errorf("asking for what is due: %w", err)
		}
		if err := n.serve(ctx, keys, (*record).do); err != nil || len(keys) < maxDue {
			return err
		}
	}
	return nil
}

// empty sends what waits in a store that ends with the program.
func (n *Notify) empty(ctx context.Context) error {
	v, ok := n.cfg.State.(state.Volatile)
	if n.people == nil || !ok || !v.Volatile() {
		return nil
	}
	var keys []string
	err := n.cfg.State.List(ctx, n.incidents, func(key string, s state.Record) bool {
		if r := parse(s); r != nil && r.Count > r.Told {
			keys = append(keys, key)
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("asking for what waits: %w", err)
	}
	// One message for all, as little time is left.
	now := func(r *record, _ time.Time, _ Group) act {
		if r.Count > r.Told {
			return digest
		}
		return nothing
	}
	var errs error
	for part := range slices.Chunk(keys, maxDue) {
		errs = errors.Join(errs, n.serve(ctx, part, now))
	}
	return errs
}

// turn is an incident whose turn is ours, as it was when we took it.
type turn struct {
	key string
	record
}

// serve does what is to be done of the incidents under keys, the most severe first, the digest at last.
func (n *Notify) serve(ctx context.Context, keys []string, what func(*record, time.Time, Group) act) error {
	type single struct {
		key      string
		severity event.Severity
	}
	var singles []single
	var listing []*turn
	for _, key := range keys {
		s, err := n.cfg.State.Get(ctx, n.incidents, key)
		if err != nil {
			return fmt.Errorf("reading an incident: %w", err)
		}
		r := parse(s)
		if r == nil {
			continue
		}
		if what(r, time.Now(), n.cfg.Group) != digest {
			singles = append(singles, single{key, r.Severity})
			continue
		}
		t, do, err := n.take(ctx, key, what)
		if err != nil {
			return err
		}
		if do == digest {
			listing = append(listing, t)
		}
	}
	slices.SortFunc(singles, func(a, b single) int { return cmp.Compare(b.severity, a.severity) })
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  error
		queue = make(chan string)
	)
	for range min(senders, len(singles)) {
		wg.Go(func() {
			for key := range queue {
				if err := n.serveOne(ctx, key, what); err != nil {
					mu.Lock()
					errs = err // one is enough to read: they have one cause
					mu.Unlock()
				}
			}
		})
	}
	for _, s := range singles {
		queue <- s.key
	}
	close(queue)
	wg.Wait()
	n.digest(ctx, listing)
	return errs
}

// serveOne does what is to be done of one incident.
func (n *Notify) serveOne(ctx context.Context, key string, what func(*record, time.Time, Group) act) error {
	if e := n.breaker.Ready(time.Now()); e != nil {
		return nil //nolint:nilerr // it stays due until the receiver is called again
	}
	t, do, err := n.take(ctx, key, what)
	if err != nil {
		return err
	}
	switch do {
	case tell, digest:
		now := time.Now()
		if !n.pace.later(now, t.Severity) {
			_ = n.note(ctx, key, t.mine(n.owner, func(r *record) *record { r.list(n.nextDigest(now)); return r }))
			return nil
		}
		n.tell(ctx, t)
	case resolve:
		n.resolve(ctx, t)
	case nothing:
	}
	return nil
}

// take gives us the turn of what is to be done of an incident, if there is anything and nobody else has it.
func (n *Notify) take(ctx context.Context, key string, what func(*record, time.Time, Group) act) (*turn, act, error) {
	var t *turn
	var do act
	err := n.change(ctx, key, func(r *record) (*record, error) {
		now := time.Now()
		t, do = nil, nothing
		if r == nil || r.busy(now) {
			return nil, errLeave
		}
		if do = what(r, now, n.cfg.Group); do == nothing {
			return r, nil // with the due time of today's settings
		}
		r.take(now, n.owner, n.lease())
		r.Ending = do == resolve
		t = &turn{key, *r}
		return r, nil
	})
	if err != nil {
		return nil, nothing, fmt.Errorf("taking an incident's turn: %w", err)
	}
	return t, do, nil
}

// mine is f for a record whose turn is still ours, and ends the turn.
func (t *turn) mine(owner string, f func(*record) *record) func(*record) *record {
	return func(r *record) *record {
		if r == nil || r.Turn != owner || r.Until != t.Until {
			return r
		}
		r.leave(owner)
		return f(r)
	}
}

// alertOf is the alert that stands for the incident.
func (t *turn) alertOf() *event.Alert {
	a, err := event.DecodeAlert(t.alert)
	if err != nil { // it was written by AppendJSON
		a = &event.Alert{Severity: t.Severity, Fingerprint: t.key, Description: "the alert's record cannot be read: " + err.Error()}
	}
	return a
}

// tell sends what the receiver does not know yet.
func (n *Notify) tell(ctx context.Context, t *turn) {
	a := t.alertOf()
	i := t.incident(t.key, a)
	ref, made, e := n.tellIncident(ctx, i)
	switch {
	case e == nil:
		_ = n.note(ctx, t.key, func(r *record) *record {
			if r == nil {
				return nil
			}
			r.accept(i.Change, ref)
			r.told(&t.record, time.Now())
			r.leave(n.owner)
			return r
		})
	case e.Class == outcome.Retry && e.Status == http.StatusTooManyRequests:
		_ = n.note(ctx, t.key, t.mine(n.owner, func(r *record) *record {
			r.list(time.Now().Add(max(e.After, time.Second)))
			return r
		}))
	case !final(t, e):
		n.lose(ctx, t, made, e)
	case i.Change == integration.Repeated: // its message may be gone: begin a new one
		n.cfg.Log.WarnContext(ctx, "the receiver refuses news of an incident; it gets a new message", "integration", n.cfg.Name,
			"incident", t.key, "status", e.Status, "reason", e.Reason)
		_ = n.note(ctx, t.key, t.mine(n.owner, func(r *record) *record {
			r.Phase, r.Ref, r.Sent, r.Tries, r.Again = listed, "", 0, 0, 0
			return r
		}))
	default:
		n.buryIncident(ctx, t, a, e)
	}
}

// final reports whether there is no use in another try.
func final(t *turn, e *outcome.Error) bool {
	return e.Class != outcome.Retry && e.Class != outcome.Auth || t.Tries >= mostTries
}

// lose notes a try in vain. It counts only when the receiver was called and the trouble may be the message's.
func (n *Notify) lose(ctx context.Context, t *turn, made bool, e *outcome.Error) {
	now := time.Now()
	var at time.Time
	if !made || e.Class == outcome.Auth || e.After > 0 {
		at = now.Add(max(e.After, time.Second))
	}
	_ = n.note(ctx, t.key, t.mine(n.owner, func(r *record) *record {
		r.lose(now, at)
		return r
	}))
}

// buryIncident publishes what the receiver will never be told of an incident as a dead letter: its alert, with the count. It
// is a new alert: the one whose id it had was dealt with, and would not be delivered again when the letter is replayed.
func (n *Notify) buryIncident(ctx context.Context, t *turn, a *event.Alert, e *outcome.Error) {
	a.ID, a.Count = event.NewID(), int(t.Count-t.Told)
	_, bad := n.bury(ctx, envelope.Push{Message: envelope.SealAlert(a, envelope.Source{Cluster: a.Cluster}, time.Now())}, e)
	if bad != nil {
		n.lose(ctx, t, true, bad)
		return
	}
	n.metrics.alert(ctx, dead)
	_ = n.note(ctx, t.key, t.mine(n.owner, func(r *record) *record {
		r.told(&t.record, time.Now())
		if r.Phase != open && r.Count <= r.Told {
			return nil
		}
		return r
	}))
}

// resolve says that an incident is over, when the receiver has a message of it.
func (n *Notify) resolve(ctx context.Context, t *turn) {
	gone := t.mine(n.owner, func(*record) *record { return nil })
	if t.Phase != open {
		_ = n.note(ctx, t.key, gone)
		return
	}
	now := time.Now()
	if !n.pace.later(now, t.Severity) {
		_ = n.note(ctx, t.key, t.mine(n.owner, func(r *record) *record {
			r.Again = n.nextDigest(now).UnixNano()
			return r
		}))
		return
	}
	i := t.incident(t.key, t.alertOf())
	i.Change = integration.Resolved
	_, made, e := n.tellIncident(ctx, i)
	if e != nil && !final(t, e) {
		n.lose(ctx, t, made, e)
		return
	}
	if e != nil {
		n.cfg.Log.WarnContext(ctx, "the receiver refuses an incident's end", "integration", n.cfg.Name, "incident", t.key,
			"status", e.Status, "reason", e.Reason)
	}
	_ = n.note(ctx, t.key, gone)
}

// digest sends one message that stands for all of turns.
func (n *Notify) digest(ctx context.Context, turns []*turn) {
	switch len(turns) {
	case 0:
		return
	case 1: // it is no digest
		n.pace.charge(time.Now())
		n.tell(ctx, turns[0])
		return
	}
	slices.SortFunc(turns, func(a, b *turn) int {
		// Of equals those that were told of least, so that none is always beyond the list.
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.Told, b.Told), cmp.Compare(a.First, b.First), cmp.Compare(a.key, b.key))
	})
	now := time.Now()
	d := integration.Digest{From: now, To: now.UTC(), More: max(len(turns)-integration.MaxDigest, 0)}
	for k, t := range turns {
		d.Alerts += t.Alerts
		if first := time.Unix(0, t.First); first.Before(d.From) {
			d.From = first
		}
		if k < integration.MaxDigest {
			d.Incidents = append(d.Incidents, t.incident(t.key, t.alertOf()))
			continue
		}
		n.cfg.Log.InfoContext(ctx, "an incident stands in a digest without being listed", "integration", n.cfg.Name,
			"incident", t.key, "severity", t.Severity.String(), "events", t.Count, "alert", string(t.alert))
	}
	d.From = d.From.UTC()
	n.pace.charge(now)
	made, e := n.call(ctx, kindDigest, turns[0].Severity, "", func(ctx context.Context) error { return n.people.SendDigest(ctx, d) })
	for _, t := range turns {
		switch {
		case e == nil:
			_ = n.note(ctx, t.key, func(r *record) *record {
				if r == nil {
					return nil
				}
				if r.Phase == waiting {
					r.Phase = listed
				}
				r.told(&t.record, now)
				r.leave(n.owner)
				return r
			})
		case final(t, e):
			n.buryIncident(ctx, t, t.alertOf(), e)
		default:
			n.lose(ctx, t, made, e)
		}
	}
}
