package scenario

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// group is a number of deeds of one kind.
type group struct {
	name  string
	deeds []string                 // what was done: keys
	key   func(s *sighting) string // the deed that an event is about, "" for none of this group
	dead  bool                     // its events must end in the dead letters, and nowhere else
}

// Row is a group's line in the table. Deeds are counted in Done, Sensed and Lost; events in the rest.
type Row struct {
	Name      string `json:"name"`
	Done      int    `json:"done"`
	Sensed    int    `json:"sensed"` // deeds that at least one event is about
	Sealed    int    `json:"sealed_at_kill"`
	Published int    `json:"published"`
	Once      int    `json:"delivered_once"`
	Twice     int    `json:"delivered_twice"` // or more often
	Dead      int    `json:"dead_lettered"`
	InFlight  int    `json:"in_flight"`
	Lost      int    `json:"lost"` // deeds without an event
}

// Result is what a run came to.
type Result struct {
	OK        bool           `json:"ok"`
	Seconds   float64        `json:"seconds"`
	Latencies []Latency      `json:"latencies"`
	Alerts    []AlertRow     `json:"alerts"`
	Receivers []ReceiverRow  `json:"receivers"`
	Table     []Row          `json:"table"`
	Published int            `json:"published"` // all events of this machine, by id
	Delivered int            `json:"delivered"`
	Dead      int            `json:"dead_lettered"`
	InFlight  int            `json:"in_flight"`
	WhileDown int            `json:"sensed_while_down"`
	Faults    []string       `json:"faults,omitempty"`
	Timeline  []TimelineLine `json:"timeline,omitempty"`
}

// ReceiverRow is what became of all alerts at a receiver; for people in events that alerts stand for.
type ReceiverRow struct {
	Name      string `json:"name"`
	Published int64  `json:"published"`
	Delivered int64  `json:"delivered"`
	Dead      int64  `json:"dead_lettered"`
	Waiting   int64  `json:"waiting"`
	Twice     int64  `json:"twice"`
	Messages  int    `json:"messages,omitzero"`
}

// Latency is how long a deed took to the receiver.
type Latency struct {
	Deed         string  `json:"deed"`
	Type         string  `json:"type"`
	Severity     string  `json:"severity"`
	Milliseconds float64 `json:"ms"`
}

// TimelineLine is a step of the story.
type TimelineLine struct {
	At   float64 `json:"at"` // seconds
	Text string  `json:"text"`
}

// tally sorts the events into the groups, and what belongs to none into a row of its own. Every rule that a run must
// keep is checked here and nowhere else. Events first seen after until are not waited for and not counted.
func tally(groups []group, events []sighting, sealed map[string]bool, until time.Time) (table []Row, r Result) {
	fault := func(format string, args ...any) { r.Faults = append(r.Faults, fmt.Sprintf(format, args...)) }
	table = make([]Row, len(groups)+1)
	sensed := make([]map[string]bool, len(groups))
	for i, g := range groups {
		table[i].Name, table[i].Done = g.name, len(g.deeds)
		sensed[i] = make(map[string]bool)
	}
	rest := &table[len(groups)]
	rest.Name = "everything else on this machine"
	for i := range events {
		s := &events[i]
		if s.published > 0 && s.publishedAt.After(until) && !s.ended() {
			continue
		}
		row, dead := rest, false
		for g := range groups {
			if key := groups[g].key(s); key != "" {
				row, dead = &table[g], groups[g].dead
				sensed[g][key] = true
				break
			}
		}
		row.count(s, sealed[s.id])
		r.count(s)
		switch {
		case s.published == 0:
			fault("%s %s (%s) arrived and was never seen on the topic", s.typ, s.id, s.about)
		case !s.ended():
			fault("%s %s (%s) was published and arrived nowhere", s.typ, s.id, s.about)
		case s.delivered > 0 && s.dead > 0:
			fault("%s %s (%s) was delivered and is a dead letter too", s.typ, s.id, s.about)
		case dead && s.dead == 0:
			fault("%s %s (%s) was delivered: it should be a dead letter", s.typ, s.id, s.about)
		case !dead && s.dead > 0:
			fault("%s %s (%s) is a dead letter: %s", s.typ, s.id, s.about, s.reason)
		case dead && s.reason == "":
			fault("%s %s (%s) is a dead letter without a reason", s.typ, s.id, s.about)
		}
	}
	for i, g := range groups {
		table[i].Sensed = len(sensed[i])
		for _, deed := range g.deeds {
			if !sensed[i][deed] {
				table[i].Lost++
				fault("no event tells of this deed (%s): %s", g.name, deed)
			}
		}
	}
	published := make(map[string]bool, len(events))
	for i := range events {
		published[events[i].id] = events[i].published > 0
	}
	for _, id := range slices.Sorted(maps.Keys(sealed)) {
		if !published[id] {
			fault("%s was in the spool of the killed agent and was never published", id)
		}
	}
	if want := r.Delivered + r.Dead + r.InFlight; r.Published != want {
		fault("published %d is not delivered %d + dead-lettered %d + in flight %d", r.Published, r.Delivered, r.Dead, r.InFlight)
	}
	r.OK = len(r.Faults) == 0
	return table, r
}

// untold says what no event that arrived tells, though a deed of the scenario has it to tell.
func untold(events []sighting) (faults []string) {
	for _, want := range []struct {
		what string
		told func(*sighting) bool
	}{
		{"what changed in a file (a diff)", func(s *sighting) bool { return s.diff }},
		{"who may have written a file (writers)", func(s *sighting) bool { return s.writers > 0 }},
		{"who started a program (its parent and further ancestors)", func(s *sighting) bool { return s.typ == event.ProcessExec && s.ancestors > 1 }},
	} {
		if !slices.ContainsFunc(events, func(s sighting) bool { return s.delivered > 0 && want.told(&s) }) {
			faults = append(faults, "no event that arrived tells "+want.what)
		}
	}
	return faults
}

func (r *Row) count(s *sighting, sealed bool) {
	add := func(field *int, on bool) {
		if on {
			*field++
		}
	}
	add(&r.Sealed, sealed)
	add(&r.Published, s.published > 0)
	add(&r.Once, s.delivered == 1)
	add(&r.Twice, s.delivered > 1)
	add(&r.Dead, s.dead > 0)
	add(&r.InFlight, s.published > 0 && !s.ended())
}

// count counts an event that was both delivered and dead-lettered as delivered: tally makes a fault of it.
func (r *Result) count(s *sighting) {
	if s.published > 0 {
		r.Published++
	}
	switch {
	case s.delivered > 0:
		r.Delivered++
	case s.dead > 0:
		r.Dead++
	default:
		r.InFlight++
	}
	if s.whileDown {
		r.WhileDown++
	}
}

// tableLines lays the table out.
func tableLines(table []Row) []string {
	name := 0
	for _, r := range table {
		name = max(name, len(r.Name))
	}
	lines := make([]string, 0, 2+len(table))
	add := func(cells ...any) {
		lines = append(lines, fmt.Sprintf("%-*s %6v %6v %8v %9v %9v %9v %6v %6v %5v", append([]any{name}, cells...)...))
	}
	add("", "done", "sensed", "sealed", "published", "delivered", "delivered", "dead", "in", "lost")
	add("", "", "", "at kill", "", "once", "twice", "letter", "flight", "")
	for _, r := range table {
		done, sensed, lost := fmt.Sprint(r.Done), fmt.Sprint(r.Sensed), fmt.Sprint(r.Lost)
		if r.Done == 0 {
			done, sensed, lost = "-", "-", "-"
		}
		add(r.Name, done, sensed, r.Sealed, r.Published, r.Once, r.Twice, r.Dead, r.InFlight, lost)
	}
	return lines
}

// pathKey is the key of groups whose deeds are files.
func pathKey(paths []string) func(*sighting) string {
	sorted := slices.Sorted(slices.Values(paths))
	return func(s *sighting) string {
		if _, found := slices.BinarySearch(sorted, s.path); found {
			return s.path
		}
		return ""
	}
}
