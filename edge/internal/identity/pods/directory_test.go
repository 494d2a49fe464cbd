package pods_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
	"github.com/apss-sensor/apss/edge/internal/identity/pods"
)

// object is what the API would make of p.
func object(tb testing.TB, p *corev1.Pod) *pods.Pod {
	tb.Helper()
	raw, err := p.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	o := new(pods.Pod)
	if err := o.Unmarshal(raw); err != nil {
		tb.Fatal(err)
	}
	return o
}

// node has n pods of 3 containers.
func node(tb testing.TB, n int) []any {
	tb.Helper()
	var list []any
	for i := range n {
		list = append(list, object(tb, app(fmt.Sprintf("app-%d", i), id(3*i), id(3*i+1), id(3*i+2))))
	}
	return list
}

func TestBounds(t *testing.T) {
	d, store := pods.NewStored(slog.New(slog.DiscardHandler))
	many := app("many")
	for i := range 100 {
		many.Status.ContainerStatuses = append(many.Status.ContainerStatuses, corev1.ContainerStatus{Name: "c", ContainerID: "containerd://" + id(100_000+i)})
	}
	store.Replace(append([]any{object(t, many)}, node(t, 1100)...), "1")
	if got, want := d.Status(), (pods.Status{State: pods.StateWatching, Pods: 1024, Containers: 64 + 3*1023, Refused: 36 + 77}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	store.Replace(nil, "2")
	store.Replace(node(t, 1024), "3")
	store.Replace(nil, "4")
	if got := d.Status().Gone; got > 4096 {
		t.Errorf("got %d that are gone, want 4096 at most", got)
	}
	if err := store.Add("no pod"); err == nil {
		t.Error("a string was taken for a pod")
	}
}

// Look-ups see whole states while the store changes.
func TestConcurrentUse(t *testing.T) {
	d, store := pods.NewStored(slog.New(slog.DiscardHandler))
	list := node(t, 20)
	store.Replace(list, "1")
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 500 {
			store.Update(object(t, app("web", id(1000+i))))
			d.Seen(cgroup.Container{ID: id(5000 + i), PodUID: "uid-web"})
		}
	})
	all.Go(func() {
		for range 5000 {
			if c := d.Lookup(id(7)); c == nil || c.Workload != "Deployment/app-2" {
				t.Errorf("got %+v", c)
				return
			}
		}
	})
	all.Wait()
}

func TestLookupDoesNotAllocate(t *testing.T) {
	d, store := pods.NewStored(slog.New(slog.DiscardHandler))
	store.Replace(node(t, 110), "1")
	known, unknown := id(100), id(10_000)
	if got := testing.AllocsPerRun(100, func() { d.Lookup(known); d.Lookup(unknown) }); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

func BenchmarkLookup(b *testing.B) {
	d, store := pods.NewStored(slog.New(slog.DiscardHandler))
	store.Replace(node(b, 110), "1")
	known := id(100)
	b.ReportAllocs()
	for b.Loop() {
		d.Lookup(known)
	}
}

// A pod of a full node restarts again and again: what one change costs.
func BenchmarkUpdate(b *testing.B) {
	_, store := pods.NewStored(slog.New(slog.DiscardHandler))
	store.Replace(node(b, 110), "1")
	states := []*pods.Pod{object(b, app("web", id(1000))), object(b, app("web", id(1001)))}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		store.Update(states[n%2])
		n++
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	p := app("web", id(1), id(2), id(3))
	p.Annotations["more"] = strings.Repeat("x", 10_000)
	raw, err := p.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var o pods.Pod
		if err := o.Unmarshal(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory reports what a directory of 110 pods with 3 containers each holds.
func BenchmarkMemory(b *testing.B) {
	var held []*pods.Directory
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		d, store := pods.NewStored(slog.New(slog.DiscardHandler))
		store.Replace(node(b, 110), "1")
		held = append(held, d)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(held)), "heap-bytes")
	runtime.KeepAlive(held)
}
