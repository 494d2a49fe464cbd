package agent

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/edge/internal/alerting"
	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/edge/internal/suppression"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// ruled makes the rig's agent one that evaluates the pack.
func ruled(tb testing.TB) func(*Config) {
	tb.Helper()
	return func(c *Config) {
		engine, err := alerting.New(alerting.Config{Pack: true, Suppression: suppression.Config{Window: 5 * time.Minute}, Meter: noop.Meter{}})
		if err != nil {
			tb.Fatal(err)
		}
		c.Rules = engine
		c.Identity = identity.Identity{AgentID: "c/p", Cluster: "c", Pod: "p", Namespace: "ns", Workload: "Deployment/app"}
	}
}

func miner(pid int32) *event.Event {
	return &event.Event{Type: event.ProcessExec, Container: &event.Container{ID: "0123", Name: "app"},
		Process: &event.Process{PID: pid, Exe: "/opt/xmrig", Cmdline: "xmrig", Args: []string{"xmrig"}, Capture: event.CaptureFull}}
}

// What an intruder does is an alert with its place at once, before the event is; what he repeats is told at the end.
func TestAlertsLeaveFirstAndTheirCountsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		a := start(t, t.TempDir(), r, ruled(t))
		time.Sleep(time.Second)
		first := miner(1)
		a.emit(first)
		if want := []string{"APSS-002"}; first.Severity != event.Critical || !slices.Equal(first.Rules, want) {
			t.Errorf("got the event %s of %v, want CRITICAL of %v", first.Severity, first.Rules, want)
		}
		a.emit(miner(2))
		a.emit(miner(3))
		synctest.Wait()
		if diff := cmp.Diff([]string{"APSS-002"}, r.names(envelope.TypeAlert)); diff != "" {
			t.Errorf("alerts at once (-want +got):\n%s", diff)
		}
		if err := a.end(); err != nil {
			t.Fatal(err)
		}
		var alerts []*event.Alert
		for _, m := range r.got() {
			if m.kind == envelope.TypeAlert {
				alerts = append(alerts, m.alert)
			}
		}
		if len(alerts) != 2 {
			t.Fatalf("got %d alerts, want the first and the summary", len(alerts))
		}
		one, sum := alerts[0], alerts[1]
		if one.Cluster != "c" || one.PodName != "p" || one.PodNamespace != "ns" || one.Workload != "Deployment/app" ||
			one.Event == nil || one.Event.ID != first.ID || one.Event.Container.Name != "app" || !slices.Equal(one.Event.Rules, first.Rules) {
			t.Errorf("got %+v, want it with its place and its event", one)
		}
		if !sum.Metadata.Summary || sum.Count != 3 || sum.Metadata.Suppressed != 2 || sum.Fingerprint != one.Fingerprint || len(sum.EventIDs) != 2 {
			t.Errorf("got %+v, want the summary of three", sum)
		}
	})
}

// The heartbeat says what the rules can do, and is judged itself: no further event comes of it.
func TestTheHeartbeatTellsOfTheRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, t.TempDir(), &receiver{}, ruled(t))
		rules := a.heartbeat(false).Metadata["rules"].(map[string]any)
		if c := rules["coverage"].(alerting.Coverage); c.Live < 100 || rules["up_to_date"] != true {
			t.Errorf("got %v, want the pack's", rules)
		}
		time.Sleep(time.Second)
		if got := a.counts[event.AgentHeartbeat][event.Info].Load(); got != 1 {
			t.Errorf("got %d heartbeats, want the first only", got)
		}
	})
}

// BenchmarkEmitRules is BenchmarkEmit with the pack: an event that matches nothing, and a repeat of an alert.
func BenchmarkEmitRules(b *testing.B) {
	for name, e := range map[string]*event.Event{"nothing": benchEvent(1), "repeat": miner(1)} {
		b.Run(name, func(b *testing.B) {
			r := startBench(b, ruled(b))
			b.ReportAllocs()
			for b.Loop() {
				e.ID, e.Rules = "", nil
				r.emit(e)
			}
		})
	}
}
