package alerting

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/apss-sensor/apss/edge/internal/tier"
	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/event"
)

func TestCoverage(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.yml": rule("live", "bash", "low"),
		"b.yml": "title: Exe\nid: blind\nlogsource: {category: process_creation}\ndetection: {s: {Image: /x}, condition: s}\n",
		"c.yml": "title: Exe or line\nid: degraded\nlogsource: {category: process_creation}\ndetection: {a: {Image: /x}, b: {CommandLine: x}, condition: a or b}\n",
		"d.yml": "title: Hash\nid: dark\nlogsource: {category: process_creation}\ndetection: {s: {Hashes: x}, condition: s}\n",
		"e.yml": "title: Pods\nid: admission\nlogsource: {category: admission}\ndetection: {s: {pod_name: x}, condition: s}\n",
		"f.yml": "title: Many\nid: many\ncorrelation: {type: event_count, rules: [blind], group-by: [process.user], timespan: 1h, condition: {gte: 2}}\n",
	})
	for at, want := range map[tier.Tier]Coverage{
		tier.Node: {Live: 4, Blind: 2, DegradedRules: map[string]string{}, BlindRules: map[string]string{
			"dark": "filled by no sensor: Hashes", "admission": "not seen here: admission_pod, admission_exec",
		}},
		tier.Limited: {
			Live: 1, Degraded: 1, Blind: 4,
			BlindRules: map[string]string{
				"dark": "filled by no sensor: Hashes", "admission": "not seen here: admission_pod, admission_exec",
				"blind": "not readable here: process.exe", "many": "not readable here: process.exe",
			},
			DegradedRules: map[string]string{"degraded": "not readable here: process.exe"},
		},
	} {
		r := start(t, Config{Dirs: []string{dir}, Sights: []detect.Sight{at.Sight()}})
		if diff := cmp.Diff(want, r.Coverage()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", at, diff)
		}
	}
	// What is seen of some processes and not of others makes no rule live, and none blind.
	want := Coverage{
		Live: 1, Degraded: 3, Blind: 2,
		BlindRules: map[string]string{"dark": "filled by no sensor: Hashes", "admission": "not seen here: admission_pod, admission_exec"},
		DegradedRules: map[string]string{
			"blind": "not readable here: process.exe", "many": "not readable here: process.exe", "degraded": "not readable here: process.exe",
		},
	}
	r := start(t, Config{Dirs: []string{dir}, Sights: []detect.Sight{tier.SameUID.Sight(), tier.Limited.Sight()}})
	if diff := cmp.Diff(want, r.Coverage()); diff != "" {
		t.Errorf("two sights (-want +got):\n%s", diff)
	}
}

func TestThePackAtEveryTier(t *testing.T) {
	for _, at := range []tier.Tier{tier.Node, tier.PodFull, tier.SameUID, tier.Limited} {
		c := start(t, Config{Pack: true, Sights: []detect.Sight{at.Sight()}}).Coverage()
		if got := c.Live + c.Degraded + c.Blind; got < 100 {
			t.Errorf("%s: got %d rules, want the pack", at, got)
		}
		if at == tier.Node && c.Live < 100 {
			t.Errorf("%s: got %+v, want nearly all live", at, c)
		}
		if listed := len(c.BlindRules) + len(c.DegradedRules); listed > MaxWhy || listed+c.Unlisted != c.Blind+c.Degraded {
			t.Errorf("%s: got %d listed and %d unlisted of %d", at, listed, c.Unlisted, c.Blind+c.Degraded)
		}
	}
}

func TestCoverageIsBounded(t *testing.T) {
	var text strings.Builder
	for i := range 2 * MaxWhy {
		fmt.Fprintf(&text, "---\ntitle: Dark %d\nid: dark-%d\nlogsource: {category: process_creation}\ndetection: {s: {Hashes: x}, condition: s}\n", i, i)
	}
	c := start(t, Config{Dirs: []string{folder(t, map[string]string{"a.yml": text.String()})}}).Coverage()
	if c.Blind != 2*MaxWhy || len(c.BlindRules) != MaxWhy || c.Unlisted != MaxWhy {
		t.Errorf("got %d blind, %d of them listed, %d not", c.Blind, len(c.BlindRules), c.Unlisted)
	}
}

func TestCountersAreBounded(t *testing.T) {
	r := start(t, Config{})
	for i := range 2 * maxCounted {
		r.counters.of(fmt.Sprint(i)).Add(1)
	}
	r.counters.of("0").Add(1)
	got := map[string]int64{}
	r.counters.each(func(id string, n int64) { got[id] = n })
	if len(got) != maxCounted+1 || got["0"] != 2 || got["other"] != maxCounted {
		t.Errorf("got %d counters, %d of the first, %d together; want %d, 2, %d", len(got), got["0"], got["other"], maxCounted+1, maxCounted)
	}
}

func TestMetrics(t *testing.T) {
	reader := sdk.NewManualReader()
	dir := folder(t, map[string]string{"a.yml": rule("T-1", "bash", "low")})
	r := start(t, Config{Dirs: []string{dir}, Suppression: fiveMinutes(), Meter: sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("")})
	r.evaluate(exec("/bin/bash"), exec("/bin/bash"), exec("/bin/bash"), exec("/bin/ls"))
	put(t, dir, "b.yml", bad)
	r.Reload()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	add := func(name string, points []metricdata.DataPoint[int64]) {
		for _, p := range points {
			for _, kv := range p.Attributes.ToSlice() {
				name += " " + kv.Value.AsString()
			}
			if p.Value != 0 {
				got[name] = p.Value
			}
			name, _, _ = strings.Cut(name, " ")
		}
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			add(m.Name, data.DataPoints)
		case metricdata.Gauge[int64]:
			add(m.Name, data.DataPoints)
		case metricdata.Histogram[float64]:
			got[m.Name] = int64(data.DataPoints[0].Count)
		}
	}
	want := map[string]int64{
		"apss.agent.rules live": 1, "apss.agent.rules.problems": 1, "apss.agent.rules.loads taken": 1, "apss.agent.rules.loads refused": 1,
		"apss.agent.rules.matches T-1": 3, "apss.agent.alerts.suppressed": 2, "apss.agent.alerts.windows": 1, "apss.agent.rules.duration": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A heartbeat with it must be an event like any other.
func TestSummaryEncodes(t *testing.T) {
	r := start(t, Config{Pack: true, Sights: []detect.Sight{tier.Limited.Sight()}})
	e := &event.Event{Metadata: map[string]any{"rules": r.Summary()}}
	data := e.AppendJSON(nil)
	if _, err := event.Decode(data); err != nil || strings.Contains(string(data), `"!`) {
		t.Errorf("got %s, %v", data, err)
	}
	if len(data) > 16<<10 {
		t.Errorf("got %d bytes, want a small heartbeat", len(data))
	}
}
