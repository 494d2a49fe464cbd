package forward

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// numbered are n events that are told apart by their content: the bad ones say so.
func numbered(n int, bad ...int) []event.Raw {
	events := make([]event.Raw, n)
	for i := range events {
		kind := "good"
		if slices.Contains(bad, i) {
			kind = "bad"
		}
		events[i] = fmt.Appendf(nil, `{"id":"%08d-0000-7000-8000-000000000000","kind":%q}`, i, kind)
	}
	return events
}

func isBad(e event.Raw) bool { return strings.Contains(string(e), `"bad"`) }

// picky refuses a call with a bad event in it, with status, and counts what it accepted.
type picky struct {
	status   int
	accepted map[string]int
}

func (p *picky) send(_ context.Context, events []event.Raw) *outcome.Error {
	if slices.ContainsFunc(events, isBad) {
		return &outcome.Error{Class: outcome.Split, Status: p.status, Reason: "bad content"}
	}
	for _, e := range events {
		p.accepted[string(e)]++
	}
	return nil
}

func open() *outcome.Error { return nil }

func run(t *testing.T, events []event.Raw, send func(context.Context, []event.Raw) *outcome.Error) *delivery {
	t.Helper()
	d := &delivery{events: events, send: send, may: open}
	d.run(t.Context(), 1000, 1<<20)
	return d
}

func TestBisecting(t *testing.T) {
	tests := []struct {
		name   string
		n      int
		bad    []int
		status int
		calls  int
	}{
		{"nothing bad", 1000, nil, 422, 1},
		{"alone", 1, []int{0}, 422, 1},
		{"the first of two", 2, []int{0}, 422, 3},
		// The first half is accepted, so the second is known to hold the bad one; it is still asked for before it is given up.
		{"the second of two", 2, []int{1}, 422, 3},
		{"the first of 1000", 1000, []int{0}, 422, 19},
		{"the last of 1000", 1000, []int{999}, 422, 12},
		// Halves of what is too large may pass, so none is known to be bad.
		{"the last of 1000, too large", 1000, []int{999}, 413, 21},
		{"both ends", 1000, []int{0, 999}, 400, 29},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &picky{status: tt.status, accepted: map[string]int{}}
			d := run(t, numbered(tt.n, tt.bad...), p.send)
			if d.calls != tt.calls {
				t.Errorf("got %d calls, want %d", d.calls, tt.calls)
			}
			checkFates(t, d, p)
		})
	}
}

// TestBisectingRandom: whatever is bad, it alone is refused, and the rest is accepted exactly once; when the calls run
// out, the rest is pending.
func TestBisectingRandom(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		n := 1 + r.IntN(1500)
		var bad []int
		for range r.IntN(12) {
			bad = append(bad, r.IntN(n))
		}
		p := &picky{status: []int{400, 413, 422}[r.IntN(3)], accepted: map[string]int{}}
		d := run(t, numbered(n, bad...), p.send)
		checkFates(t, d, p)
		if t.Failed() {
			t.Fatalf("seed %d: %d events, bad %v", seed, n, bad)
		}
	}
}

func checkFates(t *testing.T, d *delivery, p *picky) {
	t.Helper()
	for i, e := range d.events {
		switch f := d.fates[i]; {
		case f == accepted && (isBad(e) || p.accepted[string(e)] != 1):
			t.Errorf("event %d, bad: %t, is accepted; the receiver took it %d times", i, isBad(e), p.accepted[string(e)])
		case f == refused && !isBad(e):
			t.Errorf("good event %d is refused", i)
		case f == pending && p.accepted[string(e)] != 0:
			t.Errorf("event %d is pending, the receiver has it", i)
		case f == pending && d.stop == nil:
			t.Errorf("event %d is pending and nobody says why", i)
		}
	}
	if d.calls > maxCalls {
		t.Errorf("got %d calls, want at most %d", d.calls, maxCalls)
	}
	if d.stop == nil && len(d.todo) > 0 {
		t.Errorf("%d spans are left and nobody says why", len(d.todo))
	}
}

func TestOutcomes(t *testing.T) {
	all := func(f fate) []fate { return []fate{f, f, f, f} }
	tests := []struct {
		name  string
		e     *outcome.Error
		fates []fate
		stop  outcome.Class
	}{
		{"accepted", nil, all(accepted), outcome.OK},
		{"retry", &outcome.Error{Class: outcome.Retry, Status: 503}, all(pending), outcome.Retry},
		{"auth", &outcome.Error{Class: outcome.Auth, Status: 401}, all(pending), outcome.Auth},
		{"permanent", &outcome.Error{Class: outcome.Permanent, Status: 410}, all(refused), outcome.OK},
		{"partial", &outcome.Error{Class: outcome.Partial, Rejected: []outcome.Rejection{
			{ID: "00000002-0000-7000-8000-000000000000", Reason: "too old"}, {ID: "unknown"},
		}}, []fate{accepted, accepted, refused, accepted}, outcome.OK},
		{"a class of the future", &outcome.Error{Class: 99}, all(pending), outcome.Retry},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := run(t, numbered(4), func(context.Context, []event.Raw) *outcome.Error { return tt.e })
			if diff := cmp.Diff(tt.fates, d.fates); diff != "" {
				t.Errorf("fates (-want +got):\n%s", diff)
			}
			if got := outcome.From(errOrNil(d.stop)); (got == nil) != (tt.stop == outcome.OK) || got != nil && got.Class != tt.stop {
				t.Errorf("got stop %v, want class %v", got, tt.stop)
			}
		})
	}
}

func errOrNil(e *outcome.Error) error {
	if e == nil {
		return nil
	}
	return e
}

// TestNoCallAfterTrouble: a receiver in trouble is not called again for the other half.
func TestNoCallAfterTrouble(t *testing.T) {
	calls := 0
	d := run(t, numbered(8), func(_ context.Context, events []event.Raw) *outcome.Error {
		switch calls++; calls {
		case 1:
			return &outcome.Error{Class: outcome.Split, Status: 422}
		case 2:
			return nil
		default:
			return &outcome.Error{Class: outcome.Retry, Status: http.StatusBadGateway}
		}
	})
	if calls != 3 {
		t.Errorf("got %d calls, want 3", calls)
	}
	want := []fate{accepted, accepted, accepted, accepted, pending, pending, pending, pending}
	if diff := cmp.Diff(want, d.fates); diff != "" {
		t.Errorf("fates (-want +got):\n%s", diff)
	}
}

func TestCut(t *testing.T) {
	sized := func(sizes ...int) (events []event.Raw) {
		for _, n := range sizes {
			events = append(events, make(event.Raw, n))
		}
		return events
	}
	tests := []struct {
		name   string
		events []event.Raw
		want   []int // events of each call, in order
	}{
		{"none", nil, nil},
		{"within", sized(1, 1, 1), []int{3}},
		{"count", sized(1, 1, 1, 1, 1, 1, 1), []int{2, 5}},
		{"bytes", sized(60, 60, 60), []int{1, 1, 1}},
		{"exactly", sized(50, 50, 50, 50), []int{2, 2}},
		{"too large alone", sized(10, 500, 10), []int{1, 1, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			spans := cut(tt.events, 5, 100)
			for i, next := len(spans)-1, 0; i >= 0; i-- {
				if spans[i].lo != next {
					t.Errorf("span %d starts at %d, want %d", i, spans[i].lo, next)
				}
				next = spans[i].hi
				got = append(got, spans[i].hi-spans[i].lo)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
