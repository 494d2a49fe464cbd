package measure

import (
	"os"
	"testing"
	"time"
)

func TestParseUsage(t *testing.T) {
	const stat = "42 (a ) R (b) S 1 42 42 0 -1 4194560 5 0 0 0 150 25 0 0 20 0 1 0 100 1000 200 18446744073709551615\n"
	const status = "Name:\ta\nVmPeak:\t  9999 kB\nVmRSS:\t   2048 kB\nThreads:\t1\n"
	got, err := parseUsage([]byte(stat), []byte(status))
	if want := (usage{cpu: 1750 * time.Millisecond, resident: 2 << 20}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range [][2]string{{"", status}, {"42 (a) S 1", status}, {stat, "Name:\ta\n"}, {stat, "VmRSS:\tx kB\n"},
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
