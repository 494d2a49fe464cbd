package notify

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/event"
)

var testGroup = Group{Window: 5 * time.Minute, ResolveAfter: time.Hour, DigestEvery: time.Minute}

// TestJoin: what an alert comes to, by what is known of its incident.
func TestJoin(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	in := func(p phase, s event.Severity) *record {
		return &record{Phase: p, Severity: s, Count: 5, Told: 5, Alerts: 1, alert: []byte("{}")}
	}
	taken := func(r *record, left time.Duration) *record {
		r.take(now, "other", left)
		return r
	}
	ending := func(r *record) *record {
		r.Ending = true
		return r
	}
	for _, tt := range []struct {
		name     string
		r        *record
		severity event.Severity
		want     step
		count    int64 // of the record afterwards
	}{
		{"the first", nil, event.Low, send, 0},
		{"the first is being sent", taken(&record{Phase: opening}, time.Minute), event.Critical, hold, 0},
		{"who sent the first died", taken(&record{Phase: opening}, 0), event.Low, send, 0},
		{"a repeat", in(open, event.High), event.High, counted, 6},
		{"a lesser one", in(open, event.High), event.Low, counted, 6},
		{"a higher one", in(open, event.Low), event.Medium, send, 5},
		{"a repeat while news are sent", taken(in(open, event.High), time.Minute), event.High, counted, 6},
		{"a higher one while news are sent", taken(in(open, event.Low), time.Minute), event.High, hold, 5},
		{"a higher one after a sender's death", taken(in(open, event.Low), 0), event.High, send, 5},
		{"a repeat while the end is sent", ending(taken(in(open, event.High), time.Minute)), event.High, hold, 5},
		{"a repeat after the end's sender's death", ending(taken(in(open, event.High), 0)), event.High, counted, 6},
		{"a repeat of a listed one", in(listed, event.High), event.High, counted, 6},
		{"a higher one of a listed one", in(listed, event.Low), event.High, send, 5},
		{"a repeat of one that waits", in(waiting, event.High), event.High, counted, 6},
		{"a higher one of one that waits", in(waiting, event.Low), event.High, counted, 6},
		{"a critical one of one that waits", in(waiting, event.High), event.Critical, send, 5},
		{"a second critical one of one that waits", in(waiting, event.Critical), event.Critical, counted, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, got := tt.r.join(alert(1, "f", tt.severity), now, "me", time.Minute)
			if got != tt.want || r.Count != tt.count {
				t.Errorf("got step %d with a count of %d, want %d and %d", got, r.Count, tt.want, tt.count)
			}
			if mine := r.Turn == "me" && r.busy(now); mine != (tt.want == send) {
				t.Errorf("got the turn %t, want it with a message to send", mine)
			}
			if tt.want == counted && tt.severity > event.High && r.Severity != tt.severity {
				t.Errorf("got severity %v", r.Severity)
			}
		})
	}
}

// TestDue: when something is to be done of an incident, and what.
func TestDue(t *testing.T) {
	at := func(minutes int) int64 { return time.Unix(0, 0).Add(time.Duration(minutes) * time.Minute).UnixNano() }
	for _, tt := range []struct {
		name string
		r    record
		g    Group
		due  int // minutes; -1 never
		do   act
	}{
		{"opening", record{Phase: opening, Until: at(1)}, testGroup, -1, nothing},
		{"quiet", record{Phase: open, Count: 1, Told: 1, Heard: at(10), Sent: at(10)}, testGroup, 70, resolve},
		{"quiet without an end", record{Phase: open, Count: 1, Told: 1, Heard: at(10), Sent: at(10)}, Group{}, -1, nothing},
		{"more to tell", record{Phase: open, Count: 2, Told: 1, Heard: at(12), Sent: at(10)}, testGroup, 15, tell},
		{"more to tell, after tries in vain", record{Phase: open, Count: 2, Told: 1, Sent: at(10), Again: at(30)}, testGroup, 30, tell},
		{"somebody's turn", record{Phase: open, Count: 2, Told: 1, Sent: at(10), Turn: "x", Until: at(20)}, testGroup, 20, tell},
		{"waits for a digest", record{Phase: waiting, Count: 2, Heard: at(10), Digest: at(11)}, testGroup, 11, digest},
		{"waits for a digest, and was told of", record{Phase: open, Count: 2, Told: 1, Digest: at(11)}, testGroup, 11, digest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			due := tt.r.due(tt.g)
			if tt.due < 0 {
				if !due.IsZero() || tt.r.do(time.Unix(1<<40, 0), tt.g) != nothing {
					t.Errorf("got due at %v, want never", due)
				}
				return
			}
			if due.UnixNano() != at(tt.due) {
				t.Errorf("got due at %v, want minute %d", due.UTC(), tt.due)
			}
			if got := tt.r.do(due, tt.g); got != tt.do {
				t.Errorf("got %d, want %d", got, tt.do)
			}
			if got := tt.r.do(due.Add(-1), tt.g); got != nothing {
				t.Errorf("before it is due: got %d", got)
			}
			if !tt.r.expires(tt.g).After(due) {
				t.Errorf("it expires at %v, before it is due at %v", tt.r.expires(tt.g), due)
			}
		})
	}
}

func TestRecordIsKept(t *testing.T) {
	r := &record{
		Phase: open, Ref: "1700000000.000100", Severity: event.High, Count: 7, Told: 5, Alerts: 2, First: 1, Last: 2, Heard: 3, Sent: 4,
		Digest: 5, Tries: 6, Again: 7, Turn: "me", Until: 8, Ending: true, alert: shorten(alert(1, "f", event.High)),
	}
	kept, err := r.keep(testGroup)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, parse(kept), cmp.AllowUnexported(record{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzParse: another version's records, or anything else, are read or taken for none.
func FuzzParse(f *testing.F) {
	f.Add([]byte("{\"p\":4,\"s\":\"HIGH\",\"c\":3}\n{}"))
	f.Add([]byte("{\"p\":9}\n"))
	f.Add([]byte("{\"p\":2,\"s\":\"PURPLE\"}\n{}"))
	f.Add([]byte("{}"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, value []byte) {
		r := parse(state.Record{Value: value})
		if r == nil {
			return
		}
		kept, err := r.keep(testGroup)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, parse(kept), cmp.AllowUnexported(record{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		r.do(time.Now(), testGroup)
		r.join(alert(1, "f", event.High), time.Now(), "me", time.Minute)
	})
}

// TestCountsOfAnybody: figures that an agent makes up hide nothing.
func TestCountsOfAnybody(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	r := &record{Phase: open}
	for i := range 5 {
		a := alert(i, "f", event.High)
		a.Count = 1<<63 - 1
		a.FirstSeen, a.LastSeen, a.Timestamp = time.Time{}, time.Unix(1<<40, 0), time.Time{}
		before := r.Count
		r.count(a, now)
		if r.Count <= before {
			t.Fatalf("alert %d: got a count of %d after %d", i, r.Count, before)
		}
	}
	if r.First != now.UnixNano() || r.Last != now.UnixNano() {
		t.Errorf("got %v to %v of times that cannot be, want now", time.Unix(0, r.First), time.Unix(0, r.Last))
	}
}
