package alerting

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/apss-sensor/apss/edge/internal/suppression"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// BenchmarkEvaluate is what the rules cost an event, with the pack and without: one that matches nothing, one that
// matches and is held back as a repeat, one that makes an alert, and the events of a busy node.
func BenchmarkEvaluate(b *testing.B) {
	for _, pack := range []bool{true, false} {
		with := map[bool]string{true: "pack", false: "none"}[pack]
		run := func(name string, s suppression.Config, next func(i int) *event.Event) {
			b.Run(with+"/"+name, func(b *testing.B) {
				r := start(b, Config{Pack: pack, Suppression: s})
				alerts := 0
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					e := next(i)
					e.Rules = nil
					r.Evaluate(e, func(*event.Alert) { alerts++ })
					i++
				}
				b.ReportMetric(float64(alerts)/float64(i), "alerts/op")
			})
		}
		for name, e := range quiet() {
			run("nothing-"+name, fiveMinutes(), func(int) *event.Event { return e })
		}
		miner := exec("/opt/xmrig")
		run("repeat", fiveMinutes(), func(int) *event.Event { return miner })
		run("alert", everyAlert(), func(int) *event.Event { return miner })
		many := eventtest.Many(20_000, 1)
		run("busy-node", fiveMinutes(), func(i int) *event.Event { return many[i%len(many)] })
	}
}

// BenchmarkParallel is the same from all processors at once.
func BenchmarkParallel(b *testing.B) {
	r := start(b, Config{Pack: true, Suppression: fiveMinutes()})
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		e := quiet()["program"]
		for pb.Next() {
			r.Evaluate(e, r.take)
		}
	})
}

// BenchmarkLoad is what starting with the pack costs, and what of it stays in memory.
func BenchmarkLoad(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	var r *rig
	for b.Loop() {
		r = start(b, Config{Pack: true})
	}
	b.ReportMetric((heap()-before)/(1<<20), "MiB")
	runtime.KeepAlive(r)
}

// BenchmarkUnchanged is a look at a folder of 200 rules that has not changed.
func BenchmarkUnchanged(b *testing.B) {
	files := map[string]string{}
	for i := range 200 {
		files[fmt.Sprintf("%d.yml", i)] = rule(fmt.Sprintf("T-%d", i), "bash", "low")
	}
	r := start(b, Config{Dirs: []string{folder(b, files)}})
	b.ReportAllocs()
	for b.Loop() {
		r.Reload()
	}
}

// BenchmarkFull is what a full table of repeats keeps in memory.
func BenchmarkFull(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	var r *rig
	before := heap()
	for b.Loop() {
		r = start(b, Config{Pack: true, Suppression: fiveMinutes()})
		before = heap()
		for range 1 + suppression.MaxEventIDs {
			for i := range suppression.MaxFingerprints {
				e := exec("/tmp/" + fmt.Sprint(i))
				r.Evaluate(e, func(*event.Alert) {})
			}
		}
	}
	b.ReportMetric((heap()-before)/(1<<20), "MiB")
	runtime.KeepAlive(r)
}
