package buffer

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

// drain takes everything, count and bytes at a time, as "SEVERITY tag data".
func drain(b *Buffer, count, bytes int) (batches [][]string) {
	for b.Fill().Count > 0 {
		var batch []string
		b.Take(count, bytes, func(i Item) {
			batch = append(batch, fmt.Sprintf("%s %s %s", i.Severity, i.Tag, i.Data))
		})
		batches = append(batches, batch)
	}
	return batches
}

func TestTakeOrdersBySeverityThenArrival(t *testing.T) {
	b := New(Limits{Count: 10, Bytes: 1 << 10})
	for i, s := range []event.Severity{event.Low, event.Critical, event.Low, event.High, event.Critical, event.Info} {
		b.Put(s, "ns", fmt.Appendf(nil, "%d", i))
	}
	want := [][]string{
		{"CRITICAL ns 1", "CRITICAL ns 4"}, {"HIGH ns 3", "LOW ns 0"}, {"LOW ns 2", "INFO ns 5"},
	}
	if diff := cmp.Diff(want, drain(b, 2, 1<<10)); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

func TestTakeLimits(t *testing.T) {
	for _, c := range []struct {
		name         string
		count, bytes int
		want         [][]string
	}{
		{"count", 2, 100, [][]string{{"INFO  aaaa", "INFO  bbbb"}, {"INFO  cccc"}}},
		{"bytes", 9, 11, [][]string{{"INFO  aaaa", "INFO  bbbb"}, {"INFO  cccc"}}},
		{"one is always given", 0, 0, [][]string{{"INFO  aaaa"}, {"INFO  bbbb"}, {"INFO  cccc"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New(Limits{Count: 10, Bytes: 1 << 10})
			for _, data := range []string{"aaaa", "bbbb", "cccc"} {
				b.Put(event.Info, "", []byte(data))
			}
			if diff := cmp.Diff(c.want, drain(b, c.count, c.bytes)); diff != "" {
				t.Errorf("batches (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFullGivesWay(t *testing.T) {
	const C, H, M, L, I = event.Critical, event.High, event.Medium, event.Low, event.Info
	for _, c := range []struct {
		name   string
		limits Limits
		puts   []event.Severity // the data is the index
		want   string           // data that stays, in order of leaving
		drops  map[event.Severity]uint64
	}{
		{"lowest first", Limits{3, 1 << 10}, []event.Severity{M, L, I, C}, "3 0 1", map[event.Severity]uint64{I: 1}},
		{"oldest first", Limits{3, 1 << 10}, []event.Severity{L, L, L, L, L}, "2 3 4", map[event.Severity]uint64{L: 2}},
		{"never a higher one", Limits{2, 1 << 10}, []event.Severity{H, C, L, I, M}, "1 0",
			map[event.Severity]uint64{L: 1, I: 1, M: 1}},
		{"by bytes", Limits{100, 2 * (header + 1)}, []event.Severity{I, C, H}, "1 2", map[event.Severity]uint64{I: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New(c.limits)
			for i, s := range c.puts {
				b.Put(s, "", fmt.Appendf(nil, "%d", i))
			}
			var got []string
			b.Take(100, 1<<10, func(i Item) { got = append(got, string(i.Data)) })
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("stayed: got %q, want %q", got, c.want)
			}
			drops := b.Drops()
			for s := range drops {
				if got, want := drops[s][Full], c.drops[event.Severity(s)]; got != want {
					t.Errorf("%s dropped: got %d, want %d", event.Severity(s), got, want)
				}
			}
		})
	}
}

func TestOversizeIsDroppedAndDrivesNothingOut(t *testing.T) {
	b := New(Limits{Count: 10, Bytes: 4 << 20})
	b.Put(event.Info, "", []byte("small"))
	b.Put(event.Critical, "", make([]byte, MaxItem))
	if got := b.Drops()[event.Critical][Oversize]; got != 1 {
		t.Errorf("oversize drops: got %d, want 1", got)
	}
	if got := b.Fill().Count; got != 1 {
		t.Errorf("count: got %d, want 1: the small one stays", got)
	}
}

func TestMarkIsPassedByWhatLeaves(t *testing.T) {
	b := New(Limits{Count: 2, Bytes: 1 << 10})
	if !b.Passed(b.Mark()) {
		t.Error("an empty buffer's mark is not passed")
	}
	b.Put(event.Info, "", []byte("a"))
	b.Put(event.High, "", []byte("b"))
	m := b.Mark()
	b.Put(event.High, "", []byte("c")) // drives a out
	if b.Passed(m) {
		t.Error("the mark is passed while b waits")
	}
	b.Take(1, 100, func(Item) {})
	if !b.Passed(m) {
		t.Error("the mark is not passed, though a was dropped, b taken and c came after it")
	}
}

// TestModel holds the buffer against plain slices through random work: sizes from empty to more than a block.
func TestModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	limits := Limits{Count: 300, Bytes: 600 << 10}
	b := New(limits)
	var model [severities][]string
	count, bytes := 0, 0
	var dropped uint64
	for step := range 20_000 {
		if rnd.IntN(3) > 0 {
			s := rnd.IntN(severities)
			n := rnd.IntN(2000)
			if rnd.IntN(100) == 0 {
				n = rnd.IntN(2 * blockSize)
			}
			data := strings.Repeat(string(rune('a'+step%26)), n)
			b.Put(event.Severity(s), "t", []byte(data))
			size := header + 1 + n
			fits := true
			for fits && (count+1 > limits.Count || bytes+size > limits.Bytes) {
				low := 0
				for low < severities && len(model[low]) == 0 {
					low++
				}
				dropped++
				if low > s {
					fits = false
					break
				}
				count--
				bytes -= header + 1 + len(model[low][0])
				model[low] = model[low][1:]
			}
			if fits {
				model[s] = append(model[s], data)
				count++
				bytes += size
			}
		} else {
			left := rnd.IntN(4)
			b.Take(left, 1<<30, func(i Item) {
				s := int(i.Severity)
				for high := s + 1; high < severities; high++ {
					if len(model[high]) > 0 {
						t.Fatalf("step %d: took %s before %s", step, i.Severity, event.Severity(high))
					}
				}
				if string(i.Data) != model[s][0] || string(i.Tag) != "t" {
					t.Fatalf("step %d: took %d bytes %.10q, want %d bytes %.10q", step, len(i.Data), i.Data, len(model[s][0]), model[s][0])
				}
				count--
				bytes -= header + 1 + len(i.Data)
				model[s] = model[s][1:]
			})
		}
		if got := b.Fill(); got.Count != count || got.Bytes != bytes {
			t.Fatalf("step %d: fill: got %+v, want %d items, %d bytes", step, got, count, bytes)
		}
	}
	if got := b.Drops().Total(); got != dropped || got == 0 {
		t.Errorf("drops: got %d, want %d and more than none", got, dropped)
	}
}

func TestPutAndTakeDoNotAllocate(t *testing.T) {
	b := New(Limits{Count: 1000, Bytes: 8 << 20})
	data := make([]byte, 700)
	round := func() {
		for range 200 {
			b.Put(event.Info, "default", data)
		}
		for b.Fill().Count > 0 {
			b.Take(100, 1<<20, func(Item) {})
		}
	}
	round()
	// The list of blocks itself is reallocated once in a while: less than one for 200 events.
	if got := testing.AllocsPerRun(100, round); got > 2 {
		t.Errorf("allocations of 200 events: got %v, want at most 2", got)
	}
}

func BenchmarkPut(b *testing.B) {
	buf := New(Limits{Count: 100_000, Bytes: 64 << 20})
	data := make([]byte, 700)
	for b.Loop() {
		buf.Put(event.Info, "default", data)
	}
}

// BenchmarkFull reports the memory of a buffer with 100,000 events of 700 bytes, and what a collection costs then.
func BenchmarkFull(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	buf := New(Limits{Count: 100_000, Bytes: 128 << 20})
	data := make([]byte, 700)
	for range 100_000 {
		buf.Put(event.Info, "default", data)
	}
	for b.Loop() {
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
	b.ReportMetric(float64(after.HeapObjects-before.HeapObjects), "objects")
	runtime.KeepAlive(buf)
}

// BenchmarkFullAsStructs is the alternative that was not taken: the events as they were emitted.
func BenchmarkFullAsStructs(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	events := make([]*event.Event, 0, 100_000)
	for i := range 100_000 {
		events = append(events, &event.Event{
			ID: event.NewID(),
			Process: &event.Process{
				PID: int32(i), Exe: fmt.Sprintf("/usr/bin/tool-%d", i), Cmdline: fmt.Sprintf("tool-%d --flag value", i),
				Args: []string{fmt.Sprintf("tool-%d", i), "--flag", "value"}, Cwd: strings.Clone("/home/app"),
				Parent: &event.Ancestor{PID: 1, Exe: fmt.Sprintf("/usr/bin/parent-%d", i), Cmdline: fmt.Sprintf("parent-%d", i)},
			},
			Container: &event.Container{ID: fmt.Sprintf("%064x", i)},
		})
	}
	for b.Loop() {
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
	b.ReportMetric(float64(after.HeapObjects-before.HeapObjects), "objects")
	runtime.KeepAlive(events)
}
