package program

import (
	"math"
	"runtime/debug"
	"testing"
)

// TestLimitMemory: what the environment says goes first.
func TestLimitMemory(t *testing.T) {
	const instance = 512 << 20 // that functions are deployed with
	for _, tt := range []struct {
		name, percent, limit string
		wantPercent          int
		limited              bool
	}{
		{"neither is set", "", "", 400, true},
		{"GOGC", "100", "", 100, true},
		{"GOMEMLIMIT", "", "off", 400, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("GOGC", tt.percent)
			t.Setenv("GOMEMLIMIT", tt.limit)
			percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64) // as the runtime starts
			p := &Program{settings: settings{InHand: 64 << 20}}
			p.LimitMemory()
			got, bytes := debug.SetGCPercent(percent), debug.SetMemoryLimit(limit)
			if got != tt.wantPercent {
				t.Errorf("got a GC percent of %d, want %d", got, tt.wantPercent)
			}
			if limited := bytes < instance; limited != tt.limited || bytes < p.settings.InHand {
				t.Errorf("got a memory limit of %d, want one: %t", bytes, tt.limited)
			}
		})
	}
}
