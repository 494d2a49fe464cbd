package detect

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

// differ compiles generated rules, filters and exceptions and compares the engine with the naive evaluator over generated events. It returns how
// many matches there were.
func differ(t *testing.T, s *source, rules, events int) int {
	t.Helper()
	file := s.rules(rules)
	parsed, errs := Parse("generated.yml", []byte(file))
	for _, err := range errs {
		t.Fatalf("a generated rule does not parse: %v\n%s", err, file)
	}
	set, errs := Compile(parsed, Options{})
	for _, err := range errs {
		t.Fatalf("a generated rule does not compile: %v\n%s", err, file)
	}
	slow, fast := newNaive(parsed), set.NewMatcher()
	matches := 0
	for range events {
		e := s.event()
		// Through JSON and back: both see the same bytes, where JSON replaces what is not UTF-8.
		e, err := event.Decode(e.AppendJSON(nil))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range fast.Match(e, nil) {
			got = append(got, m.Rule.ID)
		}
		if diff := cmp.Diff(slow.match(e), got); diff != "" {
			t.Fatalf("engine and naive evaluator differ (-naive +engine):\n%s\nevent: %s\nrules:\n%s", diff, e.AppendJSON(nil), file)
		}
		matches += len(got)
	}
	return matches
}

func TestDifferential(t *testing.T) {
	matches, rules := 0, 0
	for round := range 60 {
		random := rand.New(rand.NewPCG(7, uint64(round)))
		s := &source{state: random.Uint64()}
		n := []int{1, 5, 40}[round%3]
		matches += differ(t, s, n, 200)
		rules += n
	}
	if share := float64(matches) / float64(rules*200); share < 0.01 || share > 0.6 {
		t.Errorf("generated rules match %.3f of generated events: too one-sided to show a difference", share)
	}
}

func FuzzDifferential(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		seed := make([]byte, 200)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		differ(t, &source{data: data}, 6, 12)
	})
}
