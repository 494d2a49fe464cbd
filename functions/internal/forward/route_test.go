package forward

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestRoute: what is not routed is done with, and what is keeps its place in the push through redeliveries.
func TestRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var data bytes.Buffer
		for k := range 8 {
			fmt.Fprintf(&data, "{\"id\":%q,\"severity\":%q}\n", id(1, k), event.Severity(k%2*4))
		}
		poison := has(id(1, 3))
		r := &receiver{answer: func(_ context.Context, call int, events []event.Raw) *outcome.Error {
			switch {
			case call == 1: // the second one fails, and comes again
				return &outcome.Error{Class: outcome.Split, Status: 413}
			case call == 3:
				return &outcome.Error{Class: outcome.Retry, Status: 502}
			case poison(events):
				return &outcome.Error{Class: outcome.Permanent, Status: 410, Reason: "no"}
			}
			return nil
		}}
		g := &graveyard{}
		f := newForward(t, r, g)
		f.cfg.Route = integration.Route{MinSeverity: event.High}
		push := pushOf("m1", data.Bytes())
		if err := f.Handle(t.Context(), push); class(t, err) != outcome.Retry {
			t.Fatalf("got %v, want a retry", err)
		}
		if err := f.Handle(t.Context(), push); err != nil {
			t.Fatal(err)
		}
		want := map[string]int{id(1, 5): 1, id(1, 7): 1}
		if diff := cmp.Diff(want, r.accepted); diff != "" {
			t.Errorf("accepted (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{id(1, 1), id(1, 3)}, g.ids(t)); diff != "" {
			t.Errorf("dead letters (-want +got):\n%s", diff)
		}
		if l := g.letters[0]; l.Topic != "events" || l.Integration != "test" {
			t.Errorf("got a letter of %q for %q, want events for test", l.Topic, l.Integration)
		}
		calls := r.calls
		f.cfg.Route = integration.Route{Rules: []integration.Glob{"none"}}
		if err := f.Handle(t.Context(), newPush(2, 5)); err != nil || r.calls != calls {
			t.Errorf("got %v after %d calls, want a push of which nothing is routed to be done with and no call", err, r.calls-calls)
		}
	})
}
