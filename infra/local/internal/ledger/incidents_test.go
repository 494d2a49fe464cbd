package ledger

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIncidents(t *testing.T) {
	for name, tt := range map[string]struct {
		notes func(*Incidents)
		want  IncidentTotals
	}{
		"none": {func(*Incidents) {}, IncidentTotals{}},
		"told once, and its repeats wait": {func(i *Incidents) {
			i.Published("a", 1)
			i.Told("a", "m", 1)
			i.Published("a", 3)
		}, IncidentTotals{Incidents: 1, Published: 4, Told: 1, Waiting: 3}},
		"an update tells them": {func(i *Incidents) {
			i.Published("a", 1)
			i.Published("a", 3)
			i.Told("a", "m", 1)
			i.Told("a", "m", 4)
			i.Told("a", "m", 4)
		}, IncidentTotals{Incidents: 1, Published: 4, Told: 4}},
		"one is lost": {func(i *Incidents) {
			i.Published("a", 1)
			i.Published("b", 1)
			i.Told("a", "m", 1)
		}, IncidentTotals{Incidents: 2, Published: 2, Told: 1, Waiting: 1, Untold: 1}},
		"one is dead": {func(i *Incidents) {
			i.Published("a", 1)
			i.Dead("a", 1)
		}, IncidentTotals{Incidents: 1, Published: 1, Dead: 1}},
		"another's surplus does not make up for it": {func(i *Incidents) {
			i.Published("a", 1)
			i.Published("b", 1)
			i.Told("a", "m", 1)
			i.Told("a", "n", 1)
		}, IncidentTotals{Incidents: 2, Published: 2, Told: 2, Waiting: 1, Untold: 1, Over: 1, Doubled: 1}},
		"a count that begins anew": {func(i *Incidents) {
			i.Published("a", 5)
			i.Told("a", "m", 3)
			i.Told("a", "m", 1)
			i.Told("a", "m", 2)
		}, IncidentTotals{Incidents: 1, Published: 5, Told: 5}},
		"a digest of two": {func(i *Incidents) {
			for _, f := range []string{"a", "b", "c"} {
				i.Published(f, 1)
			}
			i.Told("a", "m", 1)
			i.Listed(2, 2)
		}, IncidentTotals{Incidents: 3, Published: 3, Told: 3}},
		"the same digest twice": {func(i *Incidents) {
			i.Published("a", 1)
			i.Published("b", 1)
			i.Listed(2, 2)
			i.Listed(2, 2)
		}, IncidentTotals{Incidents: 2, Published: 2, Told: 4, Over: 2}},
		"never published": {func(i *Incidents) { i.Told("a", "m", 1) }, IncidentTotals{Told: 1, Over: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var i Incidents
			tt.notes(&i)
			if diff := cmp.Diff(tt.want, i.Totals()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestIncidentsAreBounded(t *testing.T) {
	var i Incidents
	for n := range maxIncidents + 10 {
		i.Published(fmt.Sprint(n), 1)
	}
	if got := i.Totals(); got.Incidents != maxIncidents || got.Overflow != 10 {
		t.Errorf("got %+v, want %d incidents and an overflow of 10", got, maxIncidents)
	}
}
