package measure

import (
	"math"
	"os"
	"testing"
	"time"
)

func TestParseUsage(t *testing.T) {
	const stat = "42 (a ) R (b) S 1 42 42 0 -1 4194560 5 0 0 0 150 25 0 0 20 0 1 0 100 1000 200 18446744073709551615\n"
	const status = "Name:\ta\nVmPeak:\t  9999 kB\nVmRSS:\t   2048 kB\nRssAnon:\t 1024 kB\nRssFile:\t 512 kB\nThreads:\t1\n"
	got, err := parseUsage([]byte(stat), []byte(status))
	if want := (usage{cpu: 1750 * time.Millisecond, resident: 2 << 20, anon: 1 << 20, file: 1 << 19}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range [][2]string{{"", status}, {"42 (a) S 1", status}, {stat, "Name:\ta\n"}, {stat, "VmRSS:\tx kB\n"}, {stat, "VmRSS:\t1 kB\n"},
		{"42 (a) S 1 42 42 0 -1 4194560 5 0 0 0 x 25 0", status}} {
		if got, err := parseUsage([]byte(bad[0]), []byte(bad[1])); err == nil {
			t.Errorf("parseUsage(%q, %q): got %+v, want an error", bad[0], bad[1], got)
		}
	}
	if got, err := readUsage(os.Getpid()); err != nil || got.resident <= 0 {
		t.Errorf("this process: got %+v, %v", got, err)
	}
}

func TestParseForks(t *testing.T) {
	if got, err := parseForks([]byte("cpu 1 2 3\nctxt 9\nprocesses 4711\nprocs_running 2\n")); err != nil || got != 4711 {
		t.Errorf("got %d, %v; want 4711", got, err)
	}
	for _, bad := range []string{"", "processes x\n", "cpu 1\n"} {
		if got, err := parseForks([]byte(bad)); err == nil {
			t.Errorf("parseForks(%q): got %d, want an error", bad, got)
		}
	}
	if got, err := readForks(); err != nil || got <= 0 {
		t.Errorf("this machine: got %d, %v", got, err)
	}
}

func TestLine(t *testing.T) {
	for _, tt := range []struct{ x, y, want []float64 }{
		{[]float64{0, 10, 50}, []float64{0.5, 1, 3}, []float64{0.5, 0.05}},
		{[]float64{1, 1, 2, 2}, []float64{1, 3, 4, 4}, []float64{0, 2}},
		{[]float64{5, 5}, []float64{1, 3}, []float64{2, 0}}, // no line: the mean
	} {
		at0, rise := line(tt.x, tt.y)
		if math.Abs(at0-tt.want[0]) > 1e-9 || math.Abs(rise-tt.want[1]) > 1e-9 {
			t.Errorf("line(%v, %v): got %v, %v; want %v", tt.x, tt.y, at0, rise, tt.want)
		}
	}
}
