package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// receiver is a publisher that records what it confirms.
type receiver struct {
	mu       sync.Mutex
	began    time.Time
	accept   func(ctx context.Context, m envelope.Message) error // nil accepts all
	messages []delivery
}

type delivery struct {
	at     time.Duration
	kind   string
	names  []string // of events: the command line; of alerts: the rule
	labels map[string]string
	alert  *event.Alert
}

func (r *receiver) Publish(ctx context.Context, m envelope.Message) error {
	r.mu.Lock()
	accept := r.accept
	r.mu.Unlock()
	if accept != nil {
		if err := accept(ctx, m); err != nil {
			return err
		}
	}
	d := delivery{at: time.Since(r.began), kind: m.Attributes["ce-type"], labels: m.Attributes}
	if d.kind == envelope.TypeAlert {
		a, err := m.Alert()
		if err != nil {
			return err
		}
		d.names, d.alert = []string{a.RuleID}, a
	} else {
		raws, err := m.Events(nil)
		if err != nil {
			return err
		}
		for _, raw := range raws {
			e, err := event.Decode(raw)
			if err != nil {
				return err
			}
			if err := e.Validate(); err != nil {
				return err
			}
			if e.Type != event.AgentHeartbeat {
				d.names = append(d.names, e.Process.Cmdline)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, d)
	return nil
}

func (r *receiver) Close() error { return nil }

func (r *receiver) set(accept func(context.Context, envelope.Message) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accept = accept
}

func (r *receiver) got() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

// names returns all that was confirmed of one kind, sorted.
func (r *receiver) names(kind string) (all []string) {
	for _, d := range r.got() {
		if d.kind == kind {
			all = append(all, d.names...)
		}
	}
	slices.Sort(all)
	return all
}

// rig is an agent that runs, with one source that emits what the test says.
type rig struct {
	*Agent
	receiver *receiver
	end      func() error // ends Run and returns its error
}

func start(tb testing.TB, dir string, r *receiver, change ...func(*Config)) *rig {
	tb.Helper()
	lane := func(name string, count int) LaneConfig {
		return LaneConfig{
			Buffer:   buffer.Limits{Count: 1000, Bytes: 1 << 20},
			Seal:     Seal{Count: count, Bytes: 256 << 10, After: 200 * time.Millisecond},
			Spool:    spool.Config{Dir: filepath.Join(dir, name), MaxBytes: 8 << 20, SegmentBytes: 64 << 10, Fresh: 4},
			Refused:  spool.Config{Dir: filepath.Join(dir, name, "refused"), MaxBytes: 1 << 20, SegmentBytes: 64 << 10},
			InFlight: 4,
		}
	}
	r.began = time.Now()
	c := Config{
		Version: "test", Identity: identity.New("", "c", "n", "", "", ""),
		Rules:     unruled{},
		Publisher: r, Events: lane("events", 100), Alerts: lane("alerts", 1),
		Heartbeat: time.Hour, Drain: 8 * time.Second, Meter: noop.Meter{}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&c)
	}
	a, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	ended := sync.OnceValue(func() error { cancel(); return <-done })
	tb.Cleanup(func() { _ = ended() })
	return &rig{Agent: a, receiver: r, end: ended}
}

// unruled is no rules at all.
type unruled struct{}

func (unruled) Evaluate(*event.Event, func(*event.Alert))     {}
func (unruled) Run(ctx context.Context, _ func(*event.Alert)) { <-ctx.Done() }
func (unruled) Summary() map[string]any                       { return nil }

// say emits events with the command lines first, first+1, ...
func (r *rig) say(s event.Severity, first, n int) {
	for i := first; i < first+n; i++ {
		r.emit(&event.Event{Type: event.ProcessExec, Severity: s, PodNamespace: "ns",
			Process: &event.Process{PID: 7, Cmdline: fmt.Sprintf("%05d", i), Capture: event.CaptureFull}})
	}
}

func (r *rig) alert(rule string) {
	r.emitAlert(&event.Alert{Severity: event.Critical, RuleID: rule, Fingerprint: "f", Count: 1, PodNamespace: "ns"})
}

func sequence(first, n int) (s []string) {
	for i := first; i < first+n; i++ {
		s = append(s, fmt.Sprintf("%05d", i))
	}
	return s
}

var errDown = &outcome.Error{Class: outcome.Retry, Reason: "down"}

func down(context.Context, envelope.Message) error { return errDown }

func TestSealingTimes(t *testing.T) {
	for _, c := range []struct {
		name string
		say  func(*rig)
		want []string // "<when> <how many>"
	}{
		{"a low one waits 200 ms", func(r *rig) { r.say(event.Low, 0, 3) }, []string{"200ms 3"}},
		{"a high one does not wait, and takes along what has gathered", func(r *rig) {
			r.say(event.Low, 0, 3)
			time.Sleep(50 * time.Millisecond)
			r.say(event.High, 3, 1)
		}, []string{"50ms 4"}},
		{"a hundred do not wait", func(r *rig) { r.say(event.Low, 0, 230) }, []string{"0s 100", "0s 100", "200ms 30"}},
		{"256 KiB do not wait", func(r *rig) {
			for range 6 {
				r.emit(&event.Event{Type: event.ProcessExec, Process: &event.Process{Cmdline: strings.Repeat("x", 60<<10), Capture: event.CaptureFull}})
			}
		}, []string{"0s 4", "200ms 2"}},
		{"a storm of high ones makes batches", func(r *rig) {
			for i := range 40 {
				r.say(event.High, i, 1)
				time.Sleep(1300 * time.Microsecond) // never at the same time as a seal
			}
		}, []string{"0s 1", "5ms 3", "10ms 4", "15ms 4", "20ms 4", "25ms 4", "30ms 4", "35ms 3", "40ms 4", "45ms 4", "50ms 4", "55ms 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, t.TempDir(), &receiver{})
				time.Sleep(time.Second) // the first heartbeat has gone
				synctest.Wait()
				before, began := len(r.receiver.got()), time.Now()
				c.say(r)
				time.Sleep(time.Second)
				var got []string
				for _, d := range r.receiver.got()[before:] {
					got = append(got, fmt.Sprintf("%s %d", (d.at-began.Sub(r.receiver.began)).Round(time.Millisecond), len(d.names)))
				}
				slices.SortStableFunc(got, func(a, b string) int { // senders finish in any order
					return cmpDuration(a, b)
				})
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("messages (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func cmpDuration(a, b string) int {
	at := func(s string) time.Duration {
		when, _, _ := strings.Cut(s, " ")
		d, err := time.ParseDuration(when)
		if err != nil {
			panic(err)
		}
		return d
	}
	return int(at(a) - at(b))
}

func TestAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, t.TempDir(), &receiver{})
		time.Sleep(time.Second)
		r.say(event.Low, 0, 1) // waits for the high one: a high one first could leave alone
		r.say(event.High, 1, 1)
		time.Sleep(time.Second)
		r.emit(&event.Event{Type: event.ProcessExec, PodNamespace: "a", Process: &event.Process{Capture: event.CaptureFull}})
		r.emit(&event.Event{Type: event.ProcessExec, PodNamespace: "b", Process: &event.Process{Capture: event.CaptureFull}})
		time.Sleep(time.Second)
		r.alert("APSS-001")
		time.Sleep(time.Second)
		var got []map[string]string
		for _, d := range r.receiver.got()[1:] {
			for _, changing := range []string{"ce-id", "ce-time"} {
				delete(d.labels, changing)
			}
			got = append(got, d.labels)
		}
		base := func(kind string, more ...string) map[string]string {
			m := map[string]string{"ce-specversion": "1.0", "ce-type": kind, "ce-source": "//apss/c/n", "cluster": "c", "agent_id": "c/n"}
			for i := 0; i < len(more); i += 2 {
				m[more[i]] = more[i+1]
			}
			return m
		}
		want := []map[string]string{
			base(envelope.TypeEvents, "content-type", "application/x-ndjson", "content-encoding", "zstd", "severity", "HIGH", "count", "2", "namespace", "ns"),
			base(envelope.TypeEvents, "content-type", "application/x-ndjson", "content-encoding", "zstd", "severity", "INFO", "count", "2"),
			base(envelope.TypeAlert, "content-type", "application/json", "severity", "CRITICAL", "count", "1", "namespace", "ns", "rule", "APSS-001"),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
	})
}

func TestAnOutageLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, t.TempDir(), &receiver{accept: down})
		for i := range 20 {
			r.say(event.Low, i*100, 100)
			time.Sleep(time.Minute)
		}
		r.alert("A")
		time.Sleep(time.Second)
		if err := r.Checks()["publish-events"](); !errors.Is(err, errDown) {
			t.Errorf("readiness in an outage: got %v, want %v", err, errDown)
		}
		r.receiver.set(nil)
		time.Sleep(maxPause * 2)
		if diff := cmp.Diff(sequence(0, 2000), r.receiver.names(envelope.TypeEvents)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"A"}, r.receiver.names(envelope.TypeAlert)); diff != "" {
			t.Errorf("alerts (-want +got):\n%s", diff)
		}
		for name, check := range r.Checks() {
			if err := check(); err != nil {
				t.Errorf("readiness after it, %s: %v", name, err)
			}
		}
	})
}

func TestAnOutageIsSaidOnceAMinuteAndSoIsItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer // written under the handler's lock, read when nothing runs
		r := start(t, t.TempDir(), &receiver{accept: down}, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		said := func() string {
			synctest.Wait()
			return fmt.Sprint(strings.Count(log.String(), "msg=\"publishing; "), strings.Count(log.String(), "confirms again"))
		}
		after := func(accept func(context.Context, envelope.Message) error, d time.Duration, want string) {
			t.Helper()
			r.receiver.set(accept)
			r.say(event.Low, 0, 100)
			time.Sleep(d)
			if got := said(); got != want {
				t.Errorf("got %s lines about the trouble and its end, want %s:\n%s", got, want, &log)
			}
		}
		after(down, 30*time.Second, "1 0")
		after(nil, 15*time.Second, "1 1")
		after(down, 10*time.Second, "1 1") // within the minute
		after(nil, 15*time.Second, "1 1")
		after(down, 30*time.Second, "2 1")
		after(nil, 15*time.Second, "2 2")
	})
}

func TestBulkThatHangsDoesNotDelayAnAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, t.TempDir(), &receiver{accept: func(ctx context.Context, m envelope.Message) error {
			if m.Attributes["ce-type"] == envelope.TypeEvents {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}})
		r.say(event.Critical, 0, 900)
		time.Sleep(time.Second)
		r.alert("A")
		synctest.Wait()
		if diff := cmp.Diff([]string{"A"}, r.receiver.names(envelope.TypeAlert)); diff != "" {
			t.Errorf("alerts (-want +got):\n%s", diff)
		}
	})
}

func TestTheNextRunSendsWhatThisOneCouldNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := start(t, dir, &receiver{accept: down})
		r.say(event.Low, 0, 250)
		r.alert("A")
		began := time.Now()
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if got := time.Since(began); got != 8*time.Second {
			t.Errorf("draining took %v, want the 8 s it may", got)
		}
		r = start(t, dir, &receiver{})
		time.Sleep(time.Second)
		if diff := cmp.Diff(sequence(0, 250), r.receiver.names(envelope.TypeEvents)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"A"}, r.receiver.names(envelope.TypeAlert)); diff != "" {
			t.Errorf("alerts (-want +got):\n%s", diff)
		}
	})
}

func TestACleanEndSendsAllAndALastHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var beats []*event.Event
		var mu sync.Mutex
		r := start(t, t.TempDir(), &receiver{accept: func(_ context.Context, m envelope.Message) error {
			raws, err := m.Events(nil)
			for _, raw := range raws {
				if e, err := event.Decode(raw); err == nil && e.Type == event.AgentHeartbeat {
					mu.Lock()
					beats = append(beats, e)
					mu.Unlock()
				}
			}
			return err
		}}, func(c *Config) {
			c.Heartbeat = time.Minute
			c.Sources = []Source{{Name: "test", Stats: func() any { return struct{ Seen int }{3} }, Run: func(ctx context.Context, emit func(*event.Event), _ func(context.Context) error) error {
				<-ctx.Done()
				emit(&event.Event{Type: event.ProcessExec, Process: &event.Process{Cmdline: "last", Capture: event.CaptureFull}})
				return ctx.Err()
			}}}
		})
		time.Sleep(90 * time.Second)
		began := time.Now()
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if got := time.Since(began); got > 0 {
			t.Errorf("the end took %v, want no waiting", got)
		}
		if diff := cmp.Diff([]string{"last"}, r.receiver.names(envelope.TypeEvents)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if len(beats) != 3 || beats[2].Metadata["final"] != true || beats[1].Metadata["final"] != false {
			t.Fatalf("got %d heartbeats %v, want at the start, after a minute and at the end", len(beats), beats)
		}
		want := map[string]any{"test": map[string]any{"Seen": 3.0}}
		if diff := cmp.Diff(want, beats[2].Metadata["sensors"]); diff != "" {
			t.Errorf("sensors in the heartbeat (-want +got):\n%s", diff)
		}
	})
}

func TestAReceiverThatIsGoneEndsTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := start(t, dir, &receiver{accept: func(context.Context, envelope.Message) error {
			return &outcome.Error{Class: outcome.Retry, Err: publish.ErrGone}
		}})
		r.say(event.Low, 0, 3)
		time.Sleep(time.Second)
		synctest.Wait()
		if !isClosed(r.events.finished) {
			t.Error("the agent still runs")
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		r = start(t, dir, &receiver{})
		time.Sleep(time.Second)
		if diff := cmp.Diff(sequence(0, 3), r.receiver.names(envelope.TypeEvents)); diff != "" {
			t.Errorf("what the next run sends (-want +got):\n%s", diff)
		}
	})
}

func TestAMessageThatIsNeverAcceptedIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := start(t, dir, &receiver{accept: func(_ context.Context, m envelope.Message) error {
			if m.Attributes["severity"] == "MEDIUM" {
				return &outcome.Error{Class: outcome.Permanent, Reason: "no"}
			}
			return nil
		}})
		for i, s := range []event.Severity{event.Low, event.Medium, event.Low} {
			r.say(s, i*100, 100)
			time.Sleep(time.Second)
		}
		if got := len(r.receiver.names(envelope.TypeEvents)); got != 200 {
			t.Errorf("got %d events, want the 200 others", got)
		}
		if err := r.end(); err != nil {
			t.Error(err)
		}
		kept := 0
		for rec, err := range spool.Unconfirmed(filepath.Join(dir, "events", "refused")) {
			if err != nil {
				t.Error(err)
			}
			kept += rec.Events
		}
		if kept != 100 || r.events.counts.refusedItems.Load() != 100 {
			t.Errorf("set aside %d events, counted %d; want 100", kept, r.events.counts.refusedItems.Load())
		}
	})
}

// brokenDir is a folder below a file.
func brokenDir(t *testing.T) string {
	t.Helper()
	blocker := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return blocker
}

func TestABrokenSpoolIsPassedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := brokenDir(t)
		r := start(t, dir, &receiver{})
		r.say(event.Low, 0, 500)
		time.Sleep(time.Second)
		if diff := cmp.Diff(sequence(0, 500), r.receiver.names(envelope.TypeEvents)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if r.events.counts.unspooled.Load() == 0 || r.Checks()["spool-events"]() == nil {
			t.Error("a broken spool is neither counted nor seen by readiness")
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		before := r.events.counts.unspooled.Load()
		r.say(event.Low, 500, 100)
		time.Sleep(time.Second)
		if r.events.counts.unspooled.Load() != before || r.Checks()["spool-events"]() != nil {
			t.Errorf("it did not heal: %v", r.Checks()["spool-events"]())
		}
		if diff := cmp.Diff(sequence(0, 600), r.receiver.names(envelope.TypeEvents)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestNoDiskAndNoReceiverKeepsTheMostSevereAndCountsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, brokenDir(t), &receiver{accept: down})
		for i := range 10 {
			r.say(event.Low, i*1000, 1000)
			time.Sleep(time.Second)
		}
		r.say(event.Critical, 10_000, 500)
		time.Sleep(time.Second)
		dropped := r.events.buffer.Drops()
		if dropped[event.Low][buffer.Full] == 0 || dropped[event.Critical][buffer.Full] != 0 {
			t.Errorf("got %v, want drops of LOW only", dropped)
		}
		r.receiver.set(nil)
		time.Sleep(maxPause * 2)
		got := r.receiver.names(envelope.TypeEvents)
		if want := 10_500 - int(dropped.Total()); len(got) < want || len(got) > want+1 { // the heartbeat may be among the dropped
			t.Errorf("got %d events, want those not dropped: %d", len(got), want)
		}
		if diff := cmp.Diff(sequence(10_000, 500), got[len(got)-500:]); diff != "" {
			t.Errorf("the critical ones (-want +got):\n%s", diff)
		}
	})
}

func TestWhatIsLostAtTheEndIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer // read when nothing runs
		r := start(t, brokenDir(t), &receiver{accept: down}, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		r.say(event.Low, 0, 500)
		time.Sleep(time.Second)
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		lost := r.events.counts.droppedAtEnd.Load()
		if want := fmt.Sprintf("lane=events items=%d\n", lost); lost < 500 || !strings.Contains(log.String(), want) {
			t.Errorf("%d were lost; want a line of that in\n%s", lost, &log)
		}
	})
}

func TestSealedWaitsForTheSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, t.TempDir(), &receiver{accept: down})
		time.Sleep(time.Second)
		r.say(event.Low, 0, 250)
		began := time.Now()
		if err := r.events.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(began); got != 0 {
			t.Errorf("it took %v, want that the batch is sealed for it at once", got)
		}
		if got := r.events.spool.Stats().Events; got < 250 {
			t.Errorf("got %d events in the spool, want 250", got)
		}
	})
}

func TestSealedWaitsForTheReceiverWhenTheSpoolIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, brokenDir(t), &receiver{accept: down})
		time.Sleep(time.Second)
		r.say(event.Low, 0, 250)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.events.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want that it waits in vain", err)
		}
		r.receiver.set(nil)
		if err := r.events.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(r.receiver.names(envelope.TypeEvents)); got != 250 {
			t.Errorf("got %d events when sealed returned, want 250", got)
		}
	})
}

func TestASensorThatFailsIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		r := start(t, t.TempDir(), &receiver{}, func(c *Config) {
			c.Sources = []Source{{Name: "weak", Run: func(ctx context.Context, _ func(*event.Event), _ func(context.Context) error) error {
				if runs++; runs < 3 {
					return errors.New("weak")
				}
				<-ctx.Done()
				return nil
			}}}
		})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if runs != 3 {
			t.Errorf("it ran %d times, want 3", runs)
		}
	})
}

func TestTwoAgentsOnOneSpoolAreRefused(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, &receiver{})
	c := r.c
	if _, err := New(c); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
}
