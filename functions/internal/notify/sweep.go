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
	// senders is how many messages of known incidents are on their way at the same time, storeOps how many operations of
	// the store.
	senders, storeOps = 4, 16
	// putOffUnread is how long a record is left alone that cannot be read.
	putOffUnread = 10 * time.Minute
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
	if err := n.enter(ctx); err != nil {
		return err
	}
	defer n.leave()
	return n.sweep(ctx)
}

// enter waits until nobody else is sweeping.
func (n *Notify) enter(ctx context.Context) error {
	select {
	case n.sweeping <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Notify) leave() { <-n.sweeping }

// sweep is Tick for who has the place in sweeping.
func (n *Notify) sweep(ctx context.Context) error {
	for n.breaker.Ready(time.Now()) == nil {
		keys, err := n.cfg.State.Due(ctx, n.incidents, time.Now(), maxDue)
		if err != nil {
			return fmt.Errorf("asking for what is due: %w", err)
		}
		all, err := n.serve(ctx, keys, (*record).do)
		if err != nil || !all || len(keys) < maxDue {
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
	if err := n.enter(ctx); err != nil {
		return err
	}
	defer n.leave()
	// One message for all, as little time is left.
	now := func(r *record, _ time.Time, _ Group) act {
		if r.Count > r.Told {
			return digest
		}
		return nothing
	}
	var errs error
	for part := range slices.Chunk(keys, maxDue) {
		n.digested = time.Time{} // there is no later
		_, err := n.serve(ctx, part, now)
		errs = errors.Join(errs, err)
	}
	return errs
}

// turn is an incident whose turn is ours, as it was when we took it.
type turn struct {
	key string
	record
}

// plan says what is to be done of an incident.
type plan func(*record, time.Time, Group) act

// serve does what is to be done of the incidents under keys, the most severe first, the digest at last. It reports whether
// it came to all of them: what is left is still due.
func (n *Notify) serve(ctx context.Context, keys []string, what plan) (all bool, err error) {
	found := make([]*record, len(keys))
	err = each(storeOps, len(keys), func(i int) (err error) {
		found[i], err = n.read(ctx, keys[i])
		return err
	})
	if err != nil {
		return false, err
	}
	var singles, listing []int
	for i, r := range found {
		switch {
		case r == nil:
		case what(r, time.Now(), n.cfg.Group) == digest:
			listing = append(listing, i)
		default:
			singles = append(singles, i)
		}
	}
	slices.SortFunc(singles, func(a, b int) int { return cmp.Compare(found[b].Severity, found[a].Severity) })
	all = true
	until := half(ctx) // the rest is the digest's
	err = each(senders, len(singles), func(i int) error {
		if len(listing) > 0 && time.Now().After(until) {
			return errLater
		}
		return n.serveOne(ctx, keys[singles[i]], what)
	})
	if errors.Is(err, errLater) {
		all, err = false, nil
	}
	if len(listing) == 0 {
		return all, err
	}
	worst := event.Info
	names := make([]string, len(listing))
	for i, at := range listing {
		names[i] = keys[at]
		worst = max(worst, found[at].Severity)
	}
	if !n.mayDigest(worst) {
		return false, err
	}
	return all, errors.Join(err, n.list(ctx, names, what))
}

// errLater ends what there is no time for now.
var errLater = errors.New("later")

// half is when half of the time is over that ctx has left.
func half(ctx context.Context) time.Time {
	now := time.Now()
	end, ok := ctx.Deadline()
	if !ok {
		return now.Add(time.Minute)
	}
	return now.Add(end.Sub(now) / 2)
}

// each calls f with 0 to n-1, so many at once, and no more after an error, of which it returns one: they have one cause.
func each(atOnce, n int, f func(i int) error) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		next int
		errs error
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= n && errs == nil
	}
	for range min(atOnce, n) {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				if err := f(i); err != nil {
					mu.Lock()
					errs = err
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return errs
}

// read returns the incident under key, nil when there is none. One that cannot be read is of a newer version, which will
// deal with it: here it is put off, so that it does not keep others from being found.
func (n *Notify) read(ctx context.Context, key string) (*record, error) {
	s, err := n.cfg.State.Get(ctx, n.incidents, key)
	if err != nil {
		return nil, fmt.Errorf("reading an incident: %w", err)
	}
	r := parse(s)
	if r != nil || s.Value == nil {
		return r, nil
	}
	n.cfg.Log.WarnContext(ctx, "an incident's state cannot be read; is it of a newer version?", "integration", n.cfg.Name, "incident", key)
	err = n.cfg.State.Update(ctx, n.incidents, key, func(s state.Record) (state.Record, error) {
		if parse(s) == nil && !s.Due.IsZero() {
			s.Due = time.Now().Add(putOffUnread)
		}
		return s, nil
	})
	if err != nil {
		return nil, fmt.Errorf("putting an incident off: %w", err)
	}
	return nil, nil
}

// serveOne does what is to be done of one incident.
func (n *Notify) serveOne(ctx context.Context, key string, what plan) error {
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
func (n *Notify) take(ctx context.Context, key string, what plan) (*turn, act, error) {
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
