package program

import (
	"os"
	"runtime/debug"
)

// LimitMemory sets the collector's limits unless the environment did; for a process that does nothing else. The heap of a
// function that is not flooded is small beside its instance's 512 MiB: collecting a quarter as often costs some MiB and saves
// a tenth of the time. The limit is soft: what may be in hand, as bytes and as values, what is remembered, and room to work;
// half of the instance by default.
func (p *Program) LimitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(2*p.settings.InHand + stateBytes + 64<<20)
	}
}
