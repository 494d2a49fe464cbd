package measure

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestParseHolding(t *testing.T) {
	const text = `# HELP go_goroutines Number of goroutines that currently exist.
# TYPE go_goroutines gauge
go_goroutines 31
go_memstats_heap_inuse_bytes 1.048576e+06
go_memstats_next_gc_bytes 524288
process_cpu_seconds_total 1.5
process_open_fds 40
process_resident_memory_bytes 2.097152e+06
apss_agent_events_total{severity="LOW",type="a } b"} 3
apss_agent_events_total{severity="HIGH",type="x"} 4
`
	got, err := parseHolding(text)
	if want := (holding{resident: 2 << 20, heap: 1 << 20, goal: 1 << 19, fds: 40, goroutines: 31, cpuSeconds: 1.5, events: 7}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", strings.Replace(text, " 31", " many", 1), strings.Replace(text, "process_open_fds", "other", 1)} {
		if got, err := parseHolding(bad); err == nil {
			t.Errorf("parseHolding(%q): got %+v, want an error", bad, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name   string
		change func(i int, h *holding)
		want   string
	}{
		{"steady", func(int, *holding) {}, ""},
		{"one high sample", func(i int, h *holding) {
			if i == 8 {
				*h = holding{resident: 900 * mib, fds: 900, goroutines: 900}
			}
		}, ""},
		{"settles", func(i int, h *holding) {
			if i < 3 {
				h.resident = 5 * mib
			}
		}, ""},
		{"leaks memory", func(i int, h *holding) { h.resident += float64(i) * 3 * mib }, "bytes resident"},
		{"leaks heap", func(i int, h *holding) { h.heap += float64(i*i) * mib }, "bytes of heap"},
		{"leaks goroutines", func(i int, h *holding) { h.goroutines += float64(i) * 3 }, "45 goroutines in the last third, 27 before"},
		{"leaks files", func(i int, h *holding) { h.fds += float64(i) * 3 }, "open files"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := make([]holding, 9)
			for i := range all {
				all[i] = holding{resident: 20 * mib, heap: 10 * mib, fds: 24, goroutines: 24}
				tt.change(i, &all[i])
			}
			err := verdict(all, time.Minute, io.Discard)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
