package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// The start touches most of the program and makes garbage once; what it takes is given back when it is over. The program
// is given back again and again, in half a millisecond each time: what a burst of work touched is not needed after it.
const (
	giveBackFirst = 10 * time.Second
	giveBackEvery = 30 * time.Second
)

// giveBack returns memory that is not needed now to the kernel until ctx ends.
func giveBack(ctx context.Context) {
	timer := time.NewTimer(giveBackFirst)
	defer timer.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if first {
			debug.FreeOSMemory() // later the runtime does it by and by
		}
		_ = unmapProgram()
		timer.Reset(giveBackEvery)
	}
}

// unmapProgram takes the program's code and constants out of our page tables (madvise(2), MADV_DONTNEED): 22 MiB after the
// start, of which some 7 are used. What is needed comes back from the page cache, 16 pages with each fault. Only a program
// that is not relocated is the same as its file; of another one nothing is taken.
func unmapProgram() error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, s := range info.Settings {
		if s.Key == "-buildmode" && s.Value != "exe" {
			return nil
		}
	}
	path, err := os.Executable()
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for _, m := range programMaps(maps, path) {
		// Not the runtime's memory: nothing is written there, and it stays mapped.
		if _, _, failed := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); failed != 0 {
			return failed
		}
	}
	return nil
}

// span is a range of addresses.
type span struct{ from, to uintptr }

// programMaps returns the mappings of path that are private and cannot be written, of a maps file (proc_pid_maps(5)).
func programMaps(maps []byte, path string) (spans []span) {
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		var from, to, offset, inode uint64
		var mode, device, name string
		n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %x %s %d %s", &from, &to, &mode, &offset, &device, &inode, &name)
		if n == 7 && name == path && (mode == "r-xp" || mode == "r--p") && to > from && uint64(uintptr(to)) == to {
			spans = append(spans, span{uintptr(from), uintptr(to)})
		}
	}
	return spans
}
