package main

import (
	"context"
	"runtime/debug"
	"time"
)

// settled is when the start is over, whose garbage the runtime would keep for minutes.
const settled = 10 * time.Second

// giveBack returns what only the start needed to the kernel, unless ctx ends before. Later the runtime does it by and by.
func giveBack(ctx context.Context) {
	timer := time.NewTimer(settled)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		debug.FreeOSMemory()
	}
}
