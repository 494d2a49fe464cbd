package detect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// deed is an event of a correlation's story: who ran what, how many seconds after the start.
type deed struct {
	second    int
	user, exe string
}

const steps = `
title: a
id: a
logsource: {category: process_creation}
detection: {s: {Image: /a}, condition: s}
---
title: b
id: b
name: bee
logsource: {category: process_creation}
detection: {s: {Image: /b}, condition: s}
---
title: c
id: c
logsource: {category: process_creation}
detection: {s: {Image: ['/c', /ab]}, condition: s}
---
title: ab
id: ab
logsource: {category: process_creation}
detection: {s: {Image: [/ab, /a]}, condition: s}
---
`

func correlating(id, body string) string {
	return "title: " + id + "\nid: " + id + "\nlevel: high\ncorrelation:\n" + indent(body)
}

// tell runs a story and returns what correlated: id, group, count and the events' numbers.
func tell(set *Set, o CorrelatorOptions, story []deed) ([]string, *Correlator) {
	m, c := set.NewMatcher(), set.NewCorrelator(o)
	start := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	var out []string
	for i, d := range story {
		e := exec(d.exe, d.exe+" "+d.user)
		e.ID, e.Process.User = fmt.Sprint(i), d.user
		e.Timestamp = start.Add(time.Duration(d.second) * time.Second)
		for _, x := range c.Add(e.Timestamp, e, m.Match(e, nil), nil) {
			out = append(out, fmt.Sprintf("%s %v %d %v %v", x.Rule.ID, x.Group, x.Count, x.EventIDs, x.Last.Sub(x.First)))
		}
	}
	return out, c
}

func TestCorrelator(t *testing.T) {
	tests := []struct {
		name, rules string
		story       []deed
		want        []string
	}{
		{
			"event_count counts by group, and a match uses its events up",
			correlating("x", "type: event_count\nrules: [a]\ngroup-by: [User]\ntimespan: 10s\ncondition: {gte: 2}"),
			[]deed{{0, "u", "/a"}, {1, "v", "/a"}, {2, "u", "/a"}, {3, "u", "/a"}, {4, "u", "/b"}, {5, "u", "/a"}},
			[]string{"x [u] 2 [0 2] 2s", "x [u] 2 [3 5] 2s"},
		},
		{
			"windows slide",
			correlating("x", "type: event_count\nrules: [a]\ngroup-by: [User]\ntimespan: 10s\ncondition: {gt: 2}"),
			[]deed{{0, "u", "/a"}, {8, "u", "/a"}, {11, "u", "/a"}, {18, "u", "/a"}},
			[]string{"x [u] 3 [1 2 3] 10s"},
		},
		{
			"no group-by is one group",
			correlating("x", "type: event_count\nrules: [a, bee]\ntimespan: 1m\ncondition: {eq: 3}"),
			[]deed{{0, "u", "/a"}, {1, "v", "/b"}, {2, "w", "/a"}},
			[]string{"x [] 3 [0 1 2] 2s"},
		},
		{
			"an event of two rules counts once",
			correlating("x", "type: event_count\nrules: [c, ab]\ntimespan: 1m\ncondition: {gte: 2}"),
			[]deed{{0, "u", "/ab"}, {1, "v", "/ab"}},
			[]string{"x [] 2 [0 1] 1s"},
		},
		{
			"value_count counts distinct values",
			correlating("x", "type: value_count\nrules: [a]\ntimespan: 10s\ncondition: {field: User, gte: 3}"),
			[]deed{{0, "u", "/a"}, {1, "v", "/a"}, {2, "u", "/a"}, {11, "w", "/a"}, {12, "x", "/a"}, {12, "", "/a"}},
			[]string{"x [] 3 [1 2 3] 10s"},
		},
		{
			"value_count of several fields",
			correlating("x", "type: value_count\nrules: [a, b]\ntimespan: 10s\ncondition: {field: [User, Image], gte: 3}"),
			[]deed{{0, "u", "/a"}, {1, "u", "/b"}, {2, "u", "/a"}, {3, "v", "/a"}},
			[]string{"x [] 3 [1 2 3] 2s"},
		},
		{
			"a range",
			correlating("x", "type: event_count\nrules: [a]\ntimespan: 1m\ncondition: {gt: 1, lte: 2}"),
			[]deed{{0, "u", "/a"}, {1, "u", "/a"}},
			[]string{"x [] 2 [0 1] 1s"},
		},
		{
			"neq and lt",
			correlating("x", "type: event_count\nrules: [a]\ntimespan: 1m\ncondition: {neq: 1, lt: 3}"),
			[]deed{{0, "u", "/a"}, {1, "u", "/a"}},
			[]string{"x [] 2 [0 1] 1s"},
		},
		{
			"temporal in any order",
			correlating("x", "type: temporal\nrules: [a, bee, c]\ngroup-by: [User]\ntimespan: 10s"),
			[]deed{{0, "u", "/c"}, {1, "v", "/a"}, {2, "u", "/b"}, {3, "u", "/b"}, {4, "u", "/a"}},
			[]string{"x [u] 3 [0 3 4] 4s"},
		},
		{
			"temporal within the timespan",
			correlating("x", "type: temporal\nrules: [a, b]\ngroup-by: [User]\ntimespan: 10s"),
			[]deed{{0, "u", "/a"}, {11, "u", "/b"}, {21, "u", "/a"}},
			[]string{"x [u] 2 [1 2] 10s"},
		},
		{
			"temporal with a condition",
			correlating("x", "type: temporal\nrules: [a, b, c]\ntimespan: 10s\ncondition: {gte: 2}"),
			[]deed{{0, "u", "/a"}, {1, "u", "/a"}, {2, "u", "/c"}},
			[]string{"x [] 2 [1 2] 1s"},
		},
		{
			"one event may be two rules of temporal",
			correlating("x", "type: temporal\nrules: [c, ab]\ntimespan: 10s"),
			[]deed{{0, "u", "/ab"}},
			[]string{"x [] 2 [0 0] 0s"},
		},
		{
			"temporal_ordered minds order and takes the latest start",
			correlating("x", "type: temporal_ordered\nrules: [a, b, c]\ngroup-by: [User]\ntimespan: 10s"),
			[]deed{{0, "u", "/c"}, {1, "u", "/b"}, {2, "u", "/a"}, {5, "u", "/a"}, {6, "u", "/b"}, {7, "v", "/c"}, {15, "u", "/c"}, {16, "u", "/c"}},
			[]string{"x [u] 3 [3 4 6] 10s"},
		},
		{
			"temporal_ordered within the timespan",
			correlating("x", "type: temporal_ordered\nrules: [a, b, c]\ntimespan: 10s"),
			[]deed{{0, "u", "/a"}, {6, "u", "/b"}, {11, "u", "/c"}},
			nil,
		},
		{
			"one event is not two steps of an order",
			correlating("x", "type: temporal_ordered\nrules: [ab, c]\ntimespan: 10s"),
			[]deed{{0, "u", "/ab"}, {1, "u", "/ab"}},
			[]string{"x [] 2 [0 1] 1s"},
		},
		{
			"chains, in whatever order they are written",
			correlating("y", "type: temporal_ordered\nrules: [x, b]\ngroup-by: [User]\ntimespan: 1m") + "---\n" +
				correlating("x", "type: event_count\nrules: [a]\ngroup-by: [User]\ntimespan: 10s\ncondition: {gte: 2}"),
			[]deed{{0, "u", "/b"}, {1, "u", "/a"}, {2, "u", "/a"}, {3, "u", "/b"}},
			[]string{"x [u] 2 [1 2] 1s", "y [u] 2 [2 3] 1s"},
		},
		{
			"aliases",
			correlating("x", "type: temporal\nrules: [a, bee]\ngroup-by: [who]\ntimespan: 10s\naliases: {who: {a: User, bee: process.args.1}}"),
			[]deed{{0, "u", "/a"}, {1, "v", "/b"}, {2, "u", "/b"}},
			[]string{"x [u] 2 [0 2] 2s"},
		},
		{
			"an event that is late counts as the newest",
			correlating("x", "type: event_count\nrules: [a]\ntimespan: 10s\ncondition: {gte: 3}"),
			[]deed{{20, "u", "/a"}, {0, "u", "/a"}, {21, "u", "/a"}},
			[]string{"x [] 3 [0 1 2] 1s"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, _ := tell(compile(t, Options{}, steps+test.rules), CorrelatorOptions{}, test.story)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCorrelatorIsBounded(t *testing.T) {
	set := compile(t, Options{}, steps+correlating("x", "type: event_count\nrules: [a]\ngroup-by: [User]\ntimespan: 1h\ncondition: {gte: 100}")+
		"---\n"+correlating("y", "type: value_count\nrules: [a]\ntimespan: 1h\ncondition: {field: User, gte: 500}"))
	var story []deed
	for i := range 3000 {
		story = append(story, deed{i / 100, fmt.Sprint("u", i%50*i%400, strings.Repeat("x", i%300)), "/a"})
	}
	o := CorrelatorOptions{MaxGroups: 20, MaxEntries: 100}
	_, c := tell(set, o, story)
	s := c.Stats()
	if s.Groups > o.MaxGroups || s.Entries > o.MaxEntries || s.Evicted == 0 {
		t.Errorf("got %+v want at most %+v and some evicted", s, o)
	}
	held := 0
	for _, g := range c.groups {
		held += len(g.entries)
	}
	if held != s.Entries {
		t.Errorf("%d entries are held but %d counted", held, s.Entries)
	}

	// What nothing can match any more is forgotten and does not count as lost.
	_, c = tell(set, CorrelatorOptions{MaxGroups: 3}, []deed{{0, "u", "/a"}, {1, "v", "/a"}, {8000, "w", "/a"}, {16000, "x", "/a"}})
	if s := c.Stats(); s.Evicted != 0 || s.Groups > 2 {
		t.Errorf("got %+v want at most 2 groups, none evicted", s)
	}
}

func TestCorrelatorSkipsWhatHasNoGroup(t *testing.T) {
	set := compile(t, Options{}, steps+correlating("x", "type: event_count\nrules: [a]\ngroup-by: [CurrentDirectory]\ntimespan: 1h\ncondition: {gte: 1}"))
	got, c := tell(set, CorrelatorOptions{}, []deed{{0, "u", "/a"}})
	if len(got) != 0 || c.Stats().Ungrouped != 1 {
		t.Errorf("got %v and %+v want nothing but one ungrouped", got, c.Stats())
	}
}

func TestSilent(t *testing.T) {
	x := "type: event_count\nrules: [a, other]\ntimespan: 1h\ncondition: {gte: 9}"
	other := rule("other", "s: {Image: /a}\ncondition: s")
	for name, test := range map[string]struct {
		correlations string
		want         map[string]bool
	}{
		"a rule of the same file": {correlating("x", x), map[string]bool{"a": true, "ab": false, "other": false}},
		"generate":                {correlating("x", x+"\ngenerate: true"), map[string]bool{"a": false, "ab": false, "other": false}},
		"one of two generates":    {correlating("x", x) + "---\n" + correlating("y", x+"\ngenerate: true"), map[string]bool{"a": false, "ab": false, "other": false}},
	} {
		here, errs := Parse("here.yml", []byte(steps+test.correlations))
		there, more := Parse("there.yml", []byte(other))
		set, evenMore := Compile(append(here, there...), Options{})
		for _, err := range append(append(errs, more...), evenMore...) {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, m := range set.NewMatcher().Match(exec("/a", ""), nil) {
			got[m.Rule.ID] = m.Silent
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestNoCorrelations(t *testing.T) {
	set := compile(t, Options{}, rule("r", "s: {Image: /a}\ncondition: s"))
	c := set.NewCorrelator(CorrelatorOptions{})
	e := exec("/a", "")
	if got := c.Add(time.Time{}, e, set.NewMatcher().Match(e, nil), nil); len(got) != 0 || c.Stats() != (CorrelatorStats{}) {
		t.Errorf("got %v and %+v", got, c.Stats())
	}
}
