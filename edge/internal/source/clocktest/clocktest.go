// Package clocktest sets the wall clock of single times, as settimeofday(2) and NTP do with that of a machine: tests show
// with it that no order and no interval is taken from the wall clock.
package clocktest

import (
	"testing"
	"time"
	"unsafe"
)

// Set returns at as time.Now would have told it on a clock that was set by whole seconds before: another wall clock
// reading beside the same monotonic one. The test ends when at has no monotonic reading, or when Go keeps times in another
// way than it does since 1.9.
func Set(tb testing.TB, at time.Time, by time.Duration) time.Time {
	tb.Helper()
	const hasMonotonic, secondsAt = 1 << 63, 30 // time/time.go
	set := at
	wall := (*uint64)(unsafe.Pointer(&set))
	if *wall&hasMonotonic == 0 {
		tb.Fatalf("%v has no monotonic reading", at)
	}
	*wall += uint64(int64(by/time.Second) << secondsAt)
	if d := set.Round(0).Sub(at.Round(0)); d != by || set.Sub(at) != 0 {
		tb.Fatalf("the wall clock of %v moved by %v and its monotonic one by %v, want %v and 0", at, d, set.Sub(at), by)
	}
	return set
}
