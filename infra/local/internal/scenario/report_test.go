package scenario

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

// TestTally: whatever can go wrong in a run is found.
func TestTally(t *testing.T) {
	start := time.Unix(0, 0)
	until := start.Add(time.Minute)
	deed := func(path string, published, delivered, dead int) sighting {
		return sighting{id: "id-" + path, path: path, published: published, delivered: delivered, dead: dead, publishedAt: start, reason: "422"}
	}
	tests := []struct {
		name   string
		events []sighting
		want   []Row // of the three groups; their names and deeds are filled in
		faults []string
	}{
		{
			"as it should be",
			[]sighting{deed("/a", 1, 1, 0), deed("/b", 2, 3, 0), deed("/poison", 1, 0, 1), deed("/other", 1, 1, 0)},
			[]Row{{Sensed: 2, Sealed: 1, Published: 2, Once: 1, Twice: 1}, {Sensed: 1, Published: 1, Dead: 1}, {Published: 1, Once: 1}},
			nil,
		},
		{
			"a deed that nothing tells of",
			[]sighting{deed("/a", 1, 1, 0), deed("/poison", 1, 0, 1)},
			[]Row{{Sensed: 1, Sealed: 1, Published: 1, Once: 1, Lost: 1}, {Sensed: 1, Published: 1, Dead: 1}, {}},
			[]string{"no event tells of this deed (files): /b"},
		},
		{
			"an event that arrived nowhere",
			[]sighting{deed("/a", 1, 0, 0), deed("/b", 1, 1, 0), deed("/poison", 1, 0, 1)},
			[]Row{{Sensed: 2, Sealed: 1, Published: 2, Once: 1, InFlight: 1}, {Sensed: 1, Published: 1, Dead: 1}, {}},
			[]string{"id-/a () was published and arrived nowhere"},
		},
		{
			"also one that is no deed's",
			[]sighting{deed("/a", 1, 1, 0), deed("/b", 1, 1, 0), deed("/poison", 1, 0, 1), deed("/other", 1, 0, 0)},
			[]Row{{Sensed: 2, Sealed: 1, Published: 2, Once: 2}, {Sensed: 1, Published: 1, Dead: 1}, {Published: 1, InFlight: 1}},
			[]string{"id-/other () was published and arrived nowhere"},
		},
		{
			"an event from nowhere",
			[]sighting{deed("/a", 0, 1, 0), deed("/b", 1, 1, 0), deed("/poison", 1, 0, 1)},
			[]Row{{Sensed: 2, Sealed: 1, Published: 1, Once: 2}, {Sensed: 1, Published: 1, Dead: 1}, {}},
			[]string{"id-/a () arrived and was never seen", "id-/a was in the spool", "published 2 is not delivered 2 + dead-lettered 1"},
		},
		{
			"a dead letter that should not be one",
			[]sighting{deed("/a", 1, 0, 1), deed("/b", 1, 1, 0), deed("/poison", 1, 0, 1)},
			[]Row{{Sensed: 2, Sealed: 1, Published: 2, Once: 1, Dead: 1}, {Sensed: 1, Published: 1, Dead: 1}, {}},
			[]string{"id-/a () is a dead letter: 422"},
		},
		{
			"poison that was delivered",
			[]sighting{deed("/a", 1, 1, 0), deed("/b", 1, 1, 0), deed("/poison", 1, 1, 0)},
			[]Row{{Sensed: 2, Sealed: 1, Published: 2, Once: 2}, {Sensed: 1, Published: 1, Once: 1}, {}},
			[]string{"id-/poison () was delivered: it should be a dead letter"},
		},
		{
			"what was sealed is gone",
			[]sighting{deed("/b", 1, 1, 0), deed("/poison", 1, 0, 1), {id: "again", path: "/a", published: 1, delivered: 1, publishedAt: start}},
			[]Row{{Sensed: 2, Published: 2, Once: 2}, {Sensed: 1, Published: 1, Dead: 1}, {}},
			[]string{"id-/a was in the spool of the killed agent and was never published"},
		},
		{
			"delivered and a dead letter",
			[]sighting{deed("/a", 1, 1, 1), deed("/b", 1, 1, 0), deed("/poison", 1, 0, 1)},
			[]Row{{Sensed: 2, Sealed: 1, Published: 2, Once: 2, Dead: 1}, {Sensed: 1, Published: 1, Dead: 1}, {}},
			[]string{"id-/a () was delivered and is a dead letter too"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			groups := []group{
				{name: "files", deeds: []string{"/a", "/b"}, key: pathKey([]string{"/a", "/b"})},
				{name: "poison", deeds: []string{"/poison"}, key: pathKey([]string{"/poison"}), dead: true},
			}
			late := deed("/late", 1, 0, 0)
			late.publishedAt = until.Add(1)
			table, result := tally(groups, append(tt.events, late), map[string]bool{"id-/a": true}, until)
			tt.want[0].Name, tt.want[0].Done = "files", 2
			tt.want[1].Name, tt.want[1].Done = "poison", 1
			tt.want[2].Name = "everything else on this machine"
			if diff := cmp.Diff(tt.want, table); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
			if len(result.Faults) != len(tt.faults) || result.OK != (len(tt.faults) == 0) {
				t.Fatalf("got ok %v and the faults %q, want %q", result.OK, result.Faults, tt.faults)
			}
			for i, want := range tt.faults {
				if !strings.Contains(result.Faults[i], want) {
					t.Errorf("got the fault %q, want %q in it", result.Faults[i], want)
				}
			}
		})
	}
}

func TestUntold(t *testing.T) {
	told := []sighting{
		{typ: event.FileModify, delivered: 1, diff: true}, {typ: event.FileModify, delivered: 1, writers: 1},
		{typ: event.ProcessExec, delivered: 1, ancestors: 2},
	}
	if got := untold(told); len(got) != 0 {
		t.Errorf("got %q, want nothing", got)
	}
	for i := range told {
		lost := slices.Clone(told)
		lost[i].delivered = 0
		if got := untold(lost); len(got) != 1 {
			t.Errorf("without event %d: got %q, want one fault", i, got)
		}
	}
}
