package forward

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next *outcome.Error
		r := &receiver{answer: func(context.Context, int, []event.Raw) *outcome.Error { return next }}
		f := newForward(t, r, &graveyard{})
		push := 0
		handle := func() *outcome.Error {
			push++
			return outcome.From(f.Handle(t.Context(), newPush(push, 1)))
		}
		// heldFor hands in pushes until the receiver is called again, and returns how long that took.
		heldFor := func() time.Duration {
			t.Helper()
			begin, calls := time.Now(), r.calls
			for r.calls == calls {
				time.Sleep(100 * time.Millisecond)
				handle()
			}
			return time.Since(begin).Round(time.Second)
		}

		next = &outcome.Error{Class: outcome.Retry, Status: 429, After: 20 * time.Second}
		if e := handle(); e.Status != 429 {
			t.Errorf("got %v, want the receiver's 429", e)
		}
		if e := handle(); e.Status != 429 || e.After < 19*time.Second || e.After > 20*time.Second {
			t.Errorf("while held: got %v after %v, want 429 with what is left of 20 s", e, e.After)
		}
		if got := heldFor(); got != 20*time.Second {
			t.Errorf("held for %v, want 20 s", got)
		}
		time.Sleep(time.Minute)

		next = &outcome.Error{Class: outcome.Auth, Status: 401}
		if e := handle(); e.Class != outcome.Auth {
			t.Errorf("got %v, want auth", e)
		}
		if e := handle(); e.Class != outcome.Auth {
			t.Errorf("while held: got %v, want auth", e)
		}
		var got []time.Duration
		for range 8 {
			got = append(got, heldFor())
		}
		want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second,
			32 * time.Second, time.Minute, time.Minute}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("holds (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		next = nil
		if e := handle(); e != nil {
			t.Errorf("got %v, want nil", e)
		}
		next = &outcome.Error{Class: outcome.Auth, Status: 403}
		handle()
		if got := heldFor(); got != time.Second {
			t.Errorf("after a success: held for %v, want 1 s", got)
		}
	})
}

// TestRefusesEverything: a receiver with which something is wrong does not send the whole stream to the dead letters,
// and all that waited is delivered when it is mended.
func TestRefusesEverything(t *testing.T) {
	for _, status := range []int{404, 422} {
		synctest.Test(t, func(t *testing.T) {
			class := outcome.Permanent
			if status == 422 {
				class = outcome.Split
			}
			wrong := &outcome.Error{Class: class, Status: status, Reason: "wrong"}
			r := &receiver{answer: func(context.Context, int, []event.Raw) *outcome.Error { return wrong }}
			g := &graveyard{}
			f := newForward(t, r, g)
			const pushes, perPush = 200, 50
			var waiting []int
			for i := range pushes {
				if f.Handle(t.Context(), newPush(i, perPush)) != nil {
					waiting = append(waiting, i)
				}
			}
			// A flush of 100 events may begin with the count just below the threshold.
			if n := len(g.ids(t)); n < refusals || n > refusals+100 {
				t.Errorf("HTTP %d: %d of %d events went to the dead letters, want %d or a flush more", status, n, pushes*perPush, refusals)
			}
			if s := f.Breaker(); s.Reason == "" || s.Retry.IsZero() {
				t.Errorf("HTTP %d: got %+v, want a reason and a time", status, s)
			}
			wrong = nil
			time.Sleep(time.Minute)
			for _, i := range waiting {
				if err := f.Handle(t.Context(), newPush(i, perPush)); err != nil {
					t.Fatalf("HTTP %d: %v", status, err)
				}
			}
			if got := len(r.accepted) + len(g.ids(t)); got != pushes*perPush {
				t.Errorf("HTTP %d: %d of %d events are somewhere", status, got, pushes*perPush)
			}
		})
	}
}
