package agent

import (
	"context"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

func benchEvent(i int) *event.Event {
	return &event.Event{
		Type: event.ProcessExec, Severity: event.Low, PodNamespace: "default", Workload: "Deployment/my-app",
		Container: &event.Container{ID: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Name: "app", Image: "example/app:1"},
		Process: &event.Process{
			PID: int32(i), PPID: 1, Exe: "/usr/bin/curl", Cmdline: "curl -fsS https://example.com/health", Args: []string{"curl", "-fsS", "https://example.com/health"},
			Cwd: "/home/app", UID: 1000, User: "app", LoginUID: event.UnknownID, StartTime: time.Unix(int64(i), 0), Capture: event.CaptureFull,
			Parent: &event.Ancestor{PID: 1, Exe: "/bin/sh", Cmdline: "sh -c loop"},
		},
	}
}

// BenchmarkEmit is what a sensor waits for.
func BenchmarkEmit(b *testing.B) {
	r := startBench(b)
	e := benchEvent(1)
	for b.Loop() {
		e.ID = ""
		r.emit(e)
	}
	drops := r.events.buffer.Drops()
	b.ReportMetric(float64(drops.Total())/float64(b.N), "dropped/event")
}

// BenchmarkEmitToConfirmed takes events through buffer, seal and spool to a receiver that confirms at once.
func BenchmarkEmitToConfirmed(b *testing.B) {
	r := startBench(b)
	e := benchEvent(1)
	n := 0
	for b.Loop() {
		e.ID = ""
		r.emit(e)
		if n++; n%10_000 == 0 {
			if err := r.events.wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := r.events.wait(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(r.events.counts.sealedBytes.Load())/float64(r.events.counts.sealedItems.Load()), "B/event")
	if drops := r.events.buffer.Drops(); drops.Total() > 0 {
		b.Fatalf("%d events were dropped", drops.Total())
	}
}

// BenchmarkSeal makes a message of 100 events.
func BenchmarkSeal(b *testing.B) {
	buf := buffer.New(buffer.Limits{Count: 1000, Bytes: 1 << 20})
	p := newEnvelopes(envelope.Source{AgentID: "c/n", Cluster: "c"}, Seal{Count: 100, Bytes: 256 << 10})
	var lines [100][]byte
	for i := range lines {
		e := benchEvent(i)
		e.ID = event.NewID()
		lines[i] = e.AppendJSON(nil)
	}
	size := 0
	for b.Loop() {
		for _, line := range lines {
			buf.Put(event.Low, "default", line)
		}
		payload, _ := p.pack(buf, time.Now())
		size = len(payload)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
	b.ReportMetric(float64(size)/100, "B/event")
}

func startBench(b *testing.B, change ...func(*Config)) *rig {
	b.Helper()
	return start(b, b.TempDir(), &receiver{}, append(change, func(c *Config) {
		c.Publisher = confirming{}
		c.Events.Buffer = buffer.Limits{Count: 100_000, Bytes: 64 << 20}
		c.Events.Spool.MaxBytes, c.Events.Spool.SegmentBytes, c.Events.Spool.Fresh = 256<<20, 4<<20, 8
	})...)
}

// confirming confirms what it does not read.
type confirming struct{}

func (confirming) Publish(context.Context, envelope.Message) error { return nil }
func (confirming) Close() error                                    { return nil }
