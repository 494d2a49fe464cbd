package main

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/edge/internal/tier"
)

// A sidecar begins before its application, and a mechanism may end: heartbeats say what is so then.
func TestFacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := tier.View{Shared: true}
		var moved []tier.Tier
		stats := process.Stats{Mechanism: process.Polling} // as before the first scan
		f := &facts{
			report: report{Tier: seen.Tier(), Mechanisms: []mechanism{
				{Sensor: "process", Name: process.Connector, State: inUse, Detail: "all"}, {Sensor: "process", Name: process.Polling, State: available},
				{Sensor: "file", Name: "inotify", State: inUse},
			}},
			looked: time.Now(), look: func() (tier.View, error) { return seen, nil }, processes: func() process.Stats { return stats },
			moved: func(to tier.View) { moved = append(moved, to.Tier()) }, log: slog.New(slog.DiscardHandler),
		}
		want := map[string]any{"process/connector": "in use: all", "process/polling": "available", "file/inotify": "in use"}
		if got := f.now(); got["tier"] != "pod-limited" || !cmp.Equal(want, got["mechanisms"]) {
			t.Errorf("got %v at the start", got)
		}
		seen.SameUID.Tried = 1 // the application has begun
		if got := f.now(); got["tier"] != "pod-limited" {
			t.Errorf("got %v before it was time to look", got["tier"])
		}
		time.Sleep(lookEvery)
		stats = process.Stats{Scans: 1, Mechanism: process.Polling, Refused: map[string]string{process.Connector: "it ended"}}
		want = map[string]any{"process/connector": "refused: it ended", "process/polling": "in use", "file/inotify": "in use"}
		for range 2 {
			got := f.now()
			if diff := cmp.Diff(want, got["mechanisms"]); diff != "" || got["tier"] != "pod-same-uid" {
				t.Errorf("got tier %v, mechanisms (-want +got):\n%s", got["tier"], diff)
			}
		}
		seen.Exe = tier.Access{Tried: 3, Refused: 2} // and another user's processes
		time.Sleep(lookEvery)
		f.now()
		time.Sleep(lookEvery)
		f.now()
		if diff := cmp.Diff([]tier.Tier{tier.SameUID, tier.SameUID}, moved); diff != "" {
			t.Errorf("tiers told (-want +got):\n%s", diff)
		}
	})
}

func TestOrdered(t *testing.T) {
	all := func() []mechanism {
		return []mechanism{{Name: process.Connector}, {Name: process.Opens}, {Name: process.Polling}}
	}
	for name, tt := range map[string]struct {
		names []string
		want  map[string]state
	}{
		"all":         {nil, map[string]state{"connector": inUse, "opens": available, "polling": available}},
		"opens alone": {[]string{"opens"}, map[string]state{"connector": refused, "opens": inUse, "polling": available}},
		"turned":      {[]string{"opens", "connector"}, map[string]state{"connector": available, "opens": inUse, "polling": available}},
		"polling":     {[]string{"polling"}, map[string]state{"connector": refused, "opens": refused, "polling": inUse}},
	} {
		got := map[string]state{}
		for _, m := range best("process", ordered(tt.names, all()...)...) {
			got[m.Name] = m.State
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
