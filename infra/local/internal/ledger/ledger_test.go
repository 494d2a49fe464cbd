package ledger

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

func TestTotals(t *testing.T) {
	tests := []struct {
		steps string // p, d or x for published, delivered, dead-lettered, of the event named after it
		want  Totals
	}{
		{"", Totals{}},
		{"p1", Totals{Published: 1, InFlight: 1}},
		{"p1 d1", Totals{Published: 1, Delivered: 1}},
		{"d1", Totals{Delivered: 1, Unpublished: 1}},
		{"d1 p1", Totals{Published: 1, Delivered: 1}},
		{"p1 p1 d1 d1 d1", Totals{Published: 1, Delivered: 1, PublishedTwice: 1, DeliveredTwice: 1}},
		{"p1 x1", Totals{Published: 1, Dead: 1}},
		{"p1 x1 x1 d1", Totals{Published: 1, Dead: 1, Delivered: 1, Both: 1}},
		{"p1 p2 p3 d1 x2", Totals{Published: 3, Delivered: 1, Dead: 1, InFlight: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.steps, func(t *testing.T) {
			l := New(100)
			for _, step := range strings.Fields(tt.steps) {
				switch id := step[1:]; step[0] {
				case 'p':
					l.Published(id, time.Now())
				case 'd':
					l.Delivered(id, time.Now())
				case 'x':
					l.Dead(id)
				}
			}
			got := l.Totals()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if want := got.Unpublished == 0; got.Balanced() != want {
				t.Errorf("got balanced %v, want %v", got.Balanced(), want)
			}
		})
	}
}

func TestTimesAreTheFirst(t *testing.T) {
	l := New(10)
	first := time.Unix(1, 0)
	for i := range 3 {
		at := first.Add(time.Duration(i) * time.Second)
		l.Published("a", at)
		l.Delivered("a", at)
	}
	want := Entry{Published: 3, Delivered: 3, PublishedAt: first, DeliveredAt: first}
	if diff := cmp.Diff(want, l.Get("a")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := l.Get("b"); got != (Entry{}) {
		t.Errorf("got %+v of an unknown event", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const capacity, n = 1_000, 10_000
	l := New(capacity)
	l.Published("stuck", time.Now())
	for i := range n {
		id := fmt.Sprintf("e%d", i)
		l.Published(id, time.Now())
		l.Delivered(id, time.Now())
	}
	if got := len(l.now) + len(l.old); got > capacity+1 {
		t.Errorf("got %d entries, want about %d at most", got, capacity)
	}
	if got := l.Get("stuck"); got.Published != 1 {
		t.Errorf("got %+v, want what is in flight to be kept", got)
	}
	if got := l.Get(fmt.Sprintf("e%d", n-capacity/2)); got.Delivered != 1 {
		t.Errorf("got %+v, want the newest half to be kept", got)
	}
	want := Totals{Published: n + 1, Delivered: n, InFlight: 1}
	if diff := cmp.Diff(want, l.Totals()); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
}

func BenchmarkEvent(b *testing.B) {
	l := New(500_000)
	now := time.Now()
	ids := make([]string, 1_000_000)
	for i := range ids {
		ids[i] = event.NewID()
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		id := ids[i%len(ids)]
		l.Published(id, now)
		l.Delivered(id, now)
		i++
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB-heap")
	runtime.KeepAlive(l)
}
