package suppression

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// match makes the alert of an event that happened some seconds after noon.
func match(fingerprint string, second int, s event.Severity) *event.Alert {
	a := eventtest.Alert()
	at := noon.Add(time.Duration(second) * time.Second)
	a.ID, a.Severity, a.Fingerprint, a.Count, a.Timestamp, a.FirstSeen, a.LastSeen = event.NewID(), s, fingerprint, 1, at, at, at
	a.EventIDs = []string{fmt.Sprintf("%s-%d", fingerprint, second)}
	a.Metadata.Summary, a.Metadata.Suppressed = false, 0
	return a
}

// line is an alert for comparison.
func line(a *event.Alert) string {
	seconds := func(t time.Time) int { return int(t.Sub(noon).Seconds()) }
	if !a.Metadata.Summary {
		return fmt.Sprintf("%s %s", a.Fingerprint, a.Severity)
	}
	return fmt.Sprintf("%s %s count %d suppressed %d from %d to %d: %s", a.Fingerprint, a.Severity, a.Count, a.Metadata.Suppressed,
		seconds(a.FirstSeen), seconds(a.LastSeen), strings.Join(a.EventIDs, " "))
}

// A story is steps at seconds after noon; each is an alert of a fingerprint, or what Due says then.
type step struct {
	at          int
	fingerprint string // "": Due
	severity    event.Severity
	want        []string
}

func TestWindows(t *testing.T) {
	const h, c = event.High, event.Critical
	for name, story := range map[string][]step{
		"one alert makes no summary": {
			{0, "a", h, []string{"a HIGH"}}, {300, "", 0, nil}, {301, "a", h, []string{"a HIGH"}},
		},
		"repeats are told when the window closes, and go on in the next": {
			{0, "a", h, []string{"a HIGH"}}, {1, "a", h, nil}, {2, "b", h, []string{"b HIGH"}}, {299, "a", h, nil},
			{300, "", 0, []string{"a HIGH count 3 suppressed 2 from 0 to 299: a-1 a-299"}},
			{301, "a", h, nil}, {302, "", 0, nil},
			{600, "", 0, []string{"a HIGH count 1 suppressed 1 from 301 to 301: a-301"}},
			{900, "", 0, nil}, {901, "a", h, []string{"a HIGH"}},
		},
		"a repeat after the window's end does not wait for Due": {
			{0, "a", h, []string{"a HIGH"}}, {1, "a", h, nil},
			{400, "a", h, []string{"a HIGH count 2 suppressed 1 from 0 to 1: a-1"}},
			{700, "", 0, []string{"a HIGH count 1 suppressed 1 from 400 to 400: a-400"}},
		},
		"a more severe one passes, and then holds back its like": {
			{0, "a", h, []string{"a HIGH"}}, {1, "a", c, []string{"a CRITICAL"}}, {2, "a", c, nil}, {3, "a", h, nil},
			{300, "", 0, []string{"a CRITICAL count 4 suppressed 2 from 0 to 3: a-2 a-3"}},
			{301, "a", c, nil},
		},
		"only passed ones make no summary": {
			{0, "a", h, []string{"a HIGH"}}, {1, "a", c, []string{"a CRITICAL"}}, {300, "", 0, nil},
		},
		"the window that opened first gives way, and says what it held": {
			{0, "a", h, []string{"a HIGH"}}, {1, "b", h, []string{"b HIGH"}}, {2, "a", h, nil},
			{3, "c", h, []string{"c HIGH"}}, // three are allowed
			{4, "d", h, []string{"a HIGH count 2 suppressed 1 from 0 to 2: a-2", "d HIGH"}},
			{5, "e", h, []string{"e HIGH"}},
		},
		"an event from before is counted in its time": {
			{10, "a", h, []string{"a HIGH"}}, {5, "a", h, nil}, {20, "a", h, nil},
			{310, "", 0, []string{"a HIGH count 3 suppressed 2 from 5 to 20: a-5 a-20"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{Window: 5 * time.Minute, MaxFingerprints: 3})
			now := noon
			for i, st := range story {
				if at := noon.Add(time.Duration(st.at) * time.Second); at.After(now) {
					now = at
				}
				var out []*event.Alert
				if st.fingerprint == "" {
					out, _ = s.Due(now, nil)
				} else {
					out = s.Add(now, match(st.fingerprint, st.at, st.severity), nil)
				}
				var got []string
				for _, a := range out {
					got = append(got, line(a))
					if err := a.Validate(); err != nil {
						t.Errorf("step %d: %v", i, err)
					}
				}
				if diff := cmp.Diff(st.want, got); diff != "" {
					t.Errorf("step %d, second %d (-want +got):\n%s", i, st.at, diff)
				}
			}
		})
	}
}

func TestDueSaysWhenNext(t *testing.T) {
	s := New(Config{Window: time.Minute})
	if _, next := s.Due(noon, nil); !next.IsZero() {
		t.Errorf("without a window: got %v, want no time", next)
	}
	s.Add(noon, match("a", 0, event.Low), nil)
	s.Add(noon.Add(10*time.Second), match("b", 10, event.Low), nil)
	for _, step := range []struct{ at, want time.Duration }{{0, time.Minute}, {time.Minute, 70 * time.Second}} {
		if _, next := s.Due(noon.Add(step.at), nil); next.Sub(noon) != step.want {
			t.Errorf("at %v: got %v, want %v", step.at, next.Sub(noon), step.want)
		}
	}
}

func TestCloseTellsAllAndHoldsNothingBackLater(t *testing.T) {
	s := New(Config{Window: time.Minute})
	for range 3 {
		s.Add(noon, match("a", 0, event.Low), nil)
	}
	s.Add(noon, match("b", 0, event.Low), nil)
	var got []string
	for _, a := range s.Close(nil) {
		got = append(got, line(a))
	}
	for range 2 {
		for _, a := range s.Add(noon, match("a", 1, event.Low), nil) {
			got = append(got, line(a))
		}
	}
	if diff := cmp.Diff([]string{"a LOW count 3 suppressed 2 from 0 to 0: a-0 a-0", "a LOW", "a LOW"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, want := s.Stats(), (Stats{Passed: 4, Suppressed: 2, Summaries: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestNoWindowHoldsNothingBack(t *testing.T) {
	s := New(Config{})
	for i := range 3 {
		if got := s.Add(noon, match("a", i, event.Low), nil); len(got) != 1 {
			t.Errorf("alert %d: got %d alerts, want it alone", i, len(got))
		}
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	s := New(Config{Window: time.Minute})
	long := func(i int) *event.Alert {
		a := match("a", i, event.Low)
		for len(a.EventIDs) < 100 {
			a.EventIDs = slices.Insert(a.EventIDs, 0, "x")
		}
		e := eventtest.FileModify()
		e.Process = eventtest.Exec().Process
		e.Metadata = map[string]any{"x": strings.Repeat("x", 1<<10)}
		e.File.Diff = strings.Repeat("x", 1<<10)
		a.Event = e
		return a
	}
	for i := range 50 {
		s.Add(noon, long(i), nil)
	}
	a := s.Close(nil)[0]
	if len(a.EventIDs) != MaxEventIDs || a.EventIDs[MaxEventIDs-1] != "a-49" {
		t.Errorf("got %d ids, the last %q; want the newest %d", len(a.EventIDs), a.EventIDs[len(a.EventIDs)-1], MaxEventIDs)
	}
	if n := len(a.Event.AppendJSON(nil)); n > 1<<10+512 {
		t.Errorf("the summary's event has %d bytes, want an outline", n)
	}
	if err := a.Validate(); err != nil {
		t.Error(err)
	}
	if e := long(0).Event; e.Process.Args == nil || e.File.Diff == "" {
		t.Error("the outline changed the event that others may still read")
	}
}

// Whatever happens in whatever order, every match is told once, in an alert or in a summary's count.
func TestNoCountIsLost(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		s := New(Config{Window: 20 * time.Second, MaxFingerprints: 8})
		told, matches := 0, 2000
		tell := func(out []*event.Alert) {
			for _, a := range out {
				if a.Metadata.Summary {
					told += a.Metadata.Suppressed
				} else {
					told += a.Count
				}
			}
		}
		now := noon
		for i := range matches {
			now = now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
			tell(s.Add(now, match(fmt.Sprint(rng.IntN(20)), i, event.Severity(rng.IntN(5))), nil))
			if rng.IntN(4) == 0 {
				out, _ := s.Due(now, nil)
				tell(out)
			}
			if open := s.Stats().Open; open > 8 {
				t.Fatalf("got %d windows, want at most 8", open)
			}
		}
		tell(s.Close(nil))
		if told != matches {
			t.Errorf("seed %d: got %d matches told, want %d", seed, told, matches)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := New(Config{Window: time.Hour, MaxFingerprints: 10})
	var mu sync.Mutex
	told := 0
	tell := func(out []*event.Alert) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range out {
			told += max(a.Metadata.Suppressed, 1)
		}
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 500 {
				tell(s.Add(noon, match(fmt.Sprint(i%25), i, event.Low), nil))
				out, _ := s.Due(noon, nil)
				tell(out)
			}
		})
	}
	all.Wait()
	tell(s.Close(nil))
	if told != 2000 {
		t.Errorf("got %d matches told, want 2000", told)
	}
}

// BenchmarkAdd is a repeat that is held back, among full windows.
func BenchmarkAdd(b *testing.B) {
	s := New(Config{Window: time.Hour})
	alerts := make([]*event.Alert, MaxFingerprints)
	for i := range alerts {
		alerts[i] = match(fmt.Sprint(i), i, event.Low)
		s.Add(noon, alerts[i], nil)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		a := *alerts[i%len(alerts)]
		s.Add(noon, &a, nil)
		i++
	}
}
