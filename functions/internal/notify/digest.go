package notify

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
)

// mayDigest reports whether a digest may go out now, and charges it: one does after each interval, or when something in it
// is critical, others within the rate. It is for who is sweeping.
func (n *Notify) mayDigest(worst event.Severity) bool {
	now := time.Now()
	if now.Sub(n.digested) >= n.cfg.Group.DigestEvery {
		worst = event.Critical
	}
	if !n.pace.first(now, worst) {
		return false
	}
	n.digested = now
	return true
}

// list sends a digest of the incidents under keys. When the store is slow it stands for those whose turn could be taken in
// time, and the others are due again.
func (n *Notify) list(ctx context.Context, keys []string, what plan) error {
	taking, cancel := context.WithDeadline(ctx, half(ctx))
	defer cancel()
	turns := make([]*turn, len(keys))
	err := each(storeOps, len(keys), func(i int) error {
		t, do, err := n.take(taking, keys[i], what)
		if do == digest {
			turns[i] = t
		}
		return err
	})
	turns = slices.DeleteFunc(turns, func(t *turn) bool { return t == nil })
	if len(turns) > 0 {
		n.digest(ctx, turns)
	}
	return err
}

// digest sends one message that stands for all of turns.
func (n *Notify) digest(ctx context.Context, turns []*turn) {
	if len(turns) == 1 { // it is no digest
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
	made, e := n.call(ctx, kindDigest, turns[0].Severity, "", func(ctx context.Context) error { return n.people.SendDigest(ctx, d) })
	_ = each(storeOps, len(turns), func(i int) error { // before their lease ends
		switch t := turns[i]; {
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
		return nil
	})
}
