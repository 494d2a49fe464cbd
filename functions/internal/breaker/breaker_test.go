package breaker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/outcome"
)

// clock is the time of a test; it passes when told to.
type clock struct{ now time.Time }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

func start() (*Breaker, *clock) {
	return New(Config{Failures: 3, Refusals: 4}), &clock{time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
}

var (
	down    = &outcome.Error{Class: outcome.Retry, Status: 503, Reason: "HTTP 503"}
	auth    = &outcome.Error{Class: outcome.Auth, Status: 401, Reason: "HTTP 401"}
	refused = &outcome.Error{Class: outcome.Permanent, Status: 400, Reason: "HTTP 400"}
	split   = &outcome.Error{Class: outcome.Split, Status: 422, Reason: "HTTP 422"}
	partial = &outcome.Error{Class: outcome.Partial, Status: 207}
	gone    = &outcome.Error{Class: outcome.Retry, Err: context.Canceled}
	slow    = &outcome.Error{Class: outcome.Retry, Status: 429}
)

func asked(d time.Duration) *outcome.Error {
	return &outcome.Error{Class: outcome.Retry, Status: 429, After: d}
}

// call makes one call that comes to e.
func call(t *testing.T, b *Breaker, c *clock, e *outcome.Error) time.Duration {
	t.Helper()
	pass, stop := b.Begin(c.now)
	if stop != nil {
		t.Fatalf("a call may not begin: %v", stop)
	}
	return pass.End(c.now, e, 1)
}

func TestWhatOpens(t *testing.T) {
	for _, tt := range []struct {
		name  string
		calls []*outcome.Error
		pause time.Duration // after the last call
	}{
		{"success", []*outcome.Error{nil, nil, partial}, 0},
		{"a failure", []*outcome.Error{down, down}, 0},
		{"failures in a row", []*outcome.Error{down, down, down}, time.Second},
		{"failures with a success between", []*outcome.Error{down, down, nil, down, down}, 0},
		{"failures with a refusal between", []*outcome.Error{down, down, refused, down, down}, 0},
		{"given up by the caller", []*outcome.Error{gone, gone, gone, gone}, 0},
		{"429", []*outcome.Error{slow}, time.Second},
		{"Retry-After", []*outcome.Error{asked(20 * time.Second)}, 20 * time.Second},
		{"Retry-After of a day", []*outcome.Error{asked(24 * time.Hour)}, longestAfter},
		{"auth", []*outcome.Error{nil, auth}, time.Second},
		{"refusals", []*outcome.Error{refused, refused, refused}, 0},
		{"refusals in a row", []*outcome.Error{refused, split, refused, down, refused, refused}, time.Second},
		{"refusals with a success between", []*outcome.Error{refused, refused, refused, nil, refused, refused, refused}, 0},
		{"refusals with a part accepted between", []*outcome.Error{refused, refused, refused, partial, refused}, 0},
		{"splits", []*outcome.Error{split, split, split, split, split}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, c := start()
			for i, e := range tt.calls {
				got, want := call(t, b, c, e), time.Duration(0)
				if i == len(tt.calls)-1 {
					want = tt.pause
				}
				if got != want {
					t.Errorf("call %d: got a pause of %v, want %v", i, got, want)
				}
			}
			if got := b.Ready(c.now) == nil; got != (tt.pause == 0) {
				t.Errorf("got ready %t, want %t", got, tt.pause == 0)
			}
			c.pass(tt.pause)
			if e := b.Ready(c.now); e != nil {
				t.Errorf("after the pause: %v", e)
			}
		})
	}
}

// TestPausesGrow: a cause that lasts is asked for more and more slowly, and one good answer ends that.
func TestPausesGrow(t *testing.T) {
	seconds := func(all ...int) (pauses []time.Duration) {
		for _, s := range all {
			pauses = append(pauses, time.Duration(s)*time.Second)
		}
		return pauses
	}
	for _, tt := range []struct {
		name  string
		cause *outcome.Error
		want  []time.Duration
	}{
		{"auth", auth, seconds(1, 2, 4, 8, 16, 32, 60, 60)},
		{"down", down, seconds(1, 2, 4, 8, 16, 32, 60, 60)},
		{"429", slow, seconds(1, 2, 4, 8, 16, 32, 60, 60)},
		{"refused", refused, seconds(1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300)},
		{"Retry-After", asked(7 * time.Second), seconds(7, 7, 7)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, c := start()
			first := func() time.Duration {
				for {
					if pause := call(t, b, c, tt.cause); pause > 0 {
						return pause
					}
				}
			}
			got := []time.Duration{first()}
			for len(got) < len(tt.want) {
				c.pass(got[len(got)-1])
				got = append(got, call(t, b, c, tt.cause))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("pauses (-want +got):\n%s", diff)
			}
			c.pass(time.Hour)
			call(t, b, c, nil)
			if got := first(); got != tt.want[0] {
				t.Errorf("after a success: got a pause of %v, want %v", got, tt.want[0])
			}
		})
	}
}

func TestOneProbeAtATime(t *testing.T) {
	b, c := start()
	call(t, b, c, auth)
	c.pass(time.Second)
	probe, e := b.Begin(c.now)
	if e != nil {
		t.Fatal(e)
	}
	if _, e := b.Begin(c.now); e == nil || e.Class != outcome.Auth || e.After <= 0 {
		t.Errorf("a second call beside the probe: got %v, want the cause with a time", e)
	}
	// A probe that its caller gave up leaves the question open.
	if pause := probe.End(c.now, gone, 1); pause != 0 {
		t.Errorf("got a pause of %v, want none", pause)
	}
	probe, e = b.Begin(c.now)
	if e != nil {
		t.Fatalf("after a probe that was given up: %v", e)
	}
	probe.End(c.now, nil, 1)
	first, e1 := b.Begin(c.now)
	second, e2 := b.Begin(c.now)
	if e1 != nil || e2 != nil {
		t.Fatalf("closed again: got %v and %v", e1, e2)
	}
	first.End(c.now, nil, 1)
	second.End(c.now, nil, 1)
}

// TestProbeOfRefusals: while everything is refused, a batch that is being halved decides nothing until a part of it is
// accepted.
func TestProbeOfRefusals(t *testing.T) {
	b, c := start()
	pass, _ := b.Begin(c.now)
	if pause := pass.End(c.now, refused, 1000); pause != time.Second {
		t.Fatalf("1000 items refused at once: got a pause of %v, want 1 s", pause)
	}
	c.pass(time.Second)
	call(t, b, c, split)
	if got := b.Status(c.now).State; got != HalfOpen {
		t.Errorf("got %v, want half-open", got)
	}
	if pause := call(t, b, c, refused); pause != 2*time.Second {
		t.Errorf("got a pause of %v, want 2 s", pause)
	}
	c.pass(2 * time.Second)
	call(t, b, c, nil)
	if got := b.Status(c.now).State; got != Closed {
		t.Errorf("got %v, want closed", got)
	}
}

// TestLateAnswers: calls that began before the breaker opened neither close it nor count, but a longer pause that they
// bring is kept.
func TestLateAnswers(t *testing.T) {
	b, c := start()
	var calls [4]Call
	for i := range calls {
		calls[i], _ = b.Begin(c.now)
	}
	calls[0].End(c.now, auth, 1)
	calls[1].End(c.now, nil, 1)
	if b.Ready(c.now) == nil {
		t.Error("a late success closed the breaker")
	}
	calls[2].End(c.now, asked(30*time.Second), 1)
	if e := b.Ready(c.now); e == nil || e.After != 30*time.Second {
		t.Errorf("got %+v, want a pause of 30 s", e)
	}
	if pause := calls[3].End(c.now, down, 1); pause != 0 {
		t.Errorf("got a pause of %v, want none", pause)
	}
}

func TestStatus(t *testing.T) {
	b, c := start()
	if diff := cmp.Diff(Status{}, b.Status(c.now)); diff != "" {
		t.Errorf("at first (-want +got):\n%s", diff)
	}
	begin := c.now
	call(t, b, c, nil)
	c.pass(time.Minute)
	for range 4 {
		call(t, b, c, refused)
	}
	want := Status{
		State: Open, Reason: "retry: 4 refused in a row and nothing accepted; the last: HTTP 400", Retry: c.now.Add(time.Second),
		LastSuccess: begin, LastFailure: c.now, LastError: "permanent: HTTP 400",
	}
	if diff := cmp.Diff(want, b.Status(c.now)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if e := b.Ready(c.now); e.Class != outcome.Retry || e.Status != 400 || !strings.Contains(e.Error(), "in a row") {
		t.Errorf("got %+v, want a retry that says why", e)
	}
	c.pass(time.Second)
	if got := b.Status(c.now).State; got != HalfOpen {
		t.Errorf("after the pause: got %v, want half-open", got)
	}
}

func TestStateNames(t *testing.T) {
	for s, want := range map[State]string{Closed: "closed", Open: "open", HalfOpen: "half-open", 9: "State(9)"} {
		if got := s.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
