package rules_test

import (
	"testing"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/detect/rules"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// BenchmarkPack matches the events of a busy node, of one family each: what the pack costs an agent.
func BenchmarkPack(b *testing.B) {
	pack, _ := rules.Pack()
	set, _ := detect.Compile(pack, detect.Options{})
	byType := map[event.Type][]*event.Event{}
	for _, e := range eventtest.Many(20_000, 1) {
		byType[e.Type] = append(byType[e.Type], e)
	}
	for _, t := range []event.Type{event.ProcessExec, event.NetworkConnect, event.FileModify} {
		b.Run(string(t), func(b *testing.B) {
			b.ReportAllocs()
			m, events := set.NewMatcher(), byType[t]
			var matches []detect.Match
			found, i := 0, 0
			for b.Loop() {
				matches = m.Match(events[i%len(events)], matches[:0])
				found += len(matches)
				i++
			}
			b.ReportMetric(float64(found)/float64(i), "matches/op")
		})
	}
}

// BenchmarkLoad is what starting with the pack costs.
func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		pack, _ := rules.Pack()
		detect.Compile(pack, detect.Options{})
	}
}
