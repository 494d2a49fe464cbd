package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"
)

func lines(t *testing.T, b *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range bytes.Lines(b.Bytes()) {
		m := map[string]any{}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, m)
	}
	return all
}

// TestHandlerContract runs the standard library's suite, which wants slog's own names.
func TestHandlerContract(t *testing.T) {
	var b bytes.Buffer
	err := slogtest.TestHandler(newCloudHandler(&b, slog.LevelDebug, "p"), func() []map[string]any {
		all := lines(t, &b)
		for _, m := range all {
			for to, from := range map[string]string{slog.LevelKey: "severity", slog.MessageKey: "message"} {
				if v, ok := m[from]; ok {
					m[to] = v
				}
			}
		}
		return all
	})
	if err != nil {
		t.Error(err)
	}
}

func spanContext(t *testing.T, flags trace.TraceFlags) context.Context {
	t.Helper()
	return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0xab}, SpanID: trace.SpanID{0xcd}, TraceFlags: flags,
	}))
}

func TestCloudFields(t *testing.T) {
	const id, span = "ab000000000000000000000000000000", "cd00000000000000"
	for _, c := range []struct {
		name, project string
		log           func(context.Context, *slog.Logger)
		flags         trace.TraceFlags
		want          map[string]any
	}{
		{"plain", "p", func(_ context.Context, l *slog.Logger) { l.Info("hello", "n", 1, "err", errors.New("no")) }, 0,
			map[string]any{"severity": "INFO", "message": "hello", "n": 1.0, "err": "no"}},
		{"span", "p", func(ctx context.Context, l *slog.Logger) { l.WarnContext(ctx, "hello", "n", 1) }, trace.FlagsSampled,
			map[string]any{"severity": "WARNING", "message": "hello", "n": 1.0, "logging.googleapis.com/trace": "projects/p/traces/" + id,
				"logging.googleapis.com/spanId": span, "logging.googleapis.com/trace_sampled": true}},
		{"span without project", "", func(ctx context.Context, l *slog.Logger) { l.DebugContext(ctx, "hello") }, 0,
			map[string]any{"severity": "DEBUG", "message": "hello", "logging.googleapis.com/trace": id,
				"logging.googleapis.com/spanId": span, "logging.googleapis.com/trace_sampled": false}},
		{"groups", "p", func(ctx context.Context, l *slog.Logger) {
			l = l.With("a", 1).WithGroup("g").With("b", 2)
			_ = l.With("b", 3).WithGroup("other")
			l.WithGroup("h").InfoContext(ctx, "hello", "c", 3, "severity", "x", "time", "y")
		}, 0,
			map[string]any{"severity": "INFO", "message": "hello", "a": 1.0, "logging.googleapis.com/trace": "projects/p/traces/" + id,
				"logging.googleapis.com/spanId": span, "logging.googleapis.com/trace_sampled": false,
				"g": map[string]any{"b": 2.0, "h": map[string]any{"c": 3.0, "severity": "x", "time": "y"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			c.log(spanContext(t, c.flags), slog.New(newCloudHandler(&b, slog.LevelDebug, c.project)))
			got := lines(t, &b)[0]
			at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["time"]))
			if err != nil || at.Location() != time.UTC {
				t.Errorf("got time %v, %v want RFC 3339 in UTC", got["time"], err)
			}
			delete(got, "time")
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

func TestErrorsSayWhere(t *testing.T) {
	var b bytes.Buffer
	l := slog.New(newCloudHandler(&b, slog.LevelInfo, "p")).WithGroup("g")
	l.Error("bad")
	l.Warn("not so bad")
	got := lines(t, &b)
	where, _ := got[0]["logging.googleapis.com/sourceLocation"].(map[string]any)
	file, _ := where["file"].(string)
	function, _ := where["function"].(string)
	if line, ok := where["line"].(string); filepath.Base(file) != "log_test.go" || !ok || line == "" || !strings.HasSuffix(function, "TestErrorsSayWhere") {
		t.Errorf("got %v want file, line as a string, and function of the call", where)
	}
	if _, ok := got[1]["logging.googleapis.com/sourceLocation"]; ok {
		t.Error("a warning has a source location")
	}
}

func TestSeverity(t *testing.T) {
	for level, want := range map[slog.Level]string{-8: "DEBUG", -4: "DEBUG", -1: "DEBUG", 0: "INFO", 1: "INFO", 2: "NOTICE", 4: "WARNING", 7: "WARNING", 8: "ERROR", 11: "ERROR", 12: "CRITICAL"} {
		if got := severity(level); got != want {
			t.Errorf("%d: got %s want %s", level, got, want)
		}
	}
}

func TestLimit(t *testing.T) {
	var b bytes.Buffer
	h := Limit(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}), time.Minute)
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	say := func(h slog.Handler, after time.Duration, level slog.Level, text string) {
		r := slog.NewRecord(start.Add(after), level, text, 0)
		r.AddAttrs(slog.Duration("after", after))
		if !h.Enabled(t.Context(), level) {
			return
		}
		if err := h.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	say(h, 0, slog.LevelWarn, "full")
	say(h, time.Second, slog.LevelWarn, "full")
	say(h.WithGroup("g").WithAttrs([]slog.Attr{slog.Int("a", 1)}), 2*time.Second, slog.LevelWarn, "full")
	say(h, 3*time.Second, slog.LevelError, "full")
	say(h, 4*time.Second, slog.LevelWarn, "other")
	say(h, 5*time.Second, slog.LevelDebug, "off")
	say(h, time.Minute-1, slog.LevelWarn, "full")
	say(h.WithAttrs([]slog.Attr{slog.Int("a", 1)}), time.Minute, slog.LevelWarn, "full")
	say(h, 61*time.Second, slog.LevelWarn, "full")
	say(h, 10*time.Minute, slog.LevelWarn, "full")
	say(h, 11*time.Minute, slog.LevelWarn, "full")
	want := `level=WARN msg=full after=0s
level=ERROR msg=full after=3s
level=WARN msg=other after=4s
level=WARN msg=full a=1 after=1m0s suppressed=3
level=WARN msg=full after=10m0s suppressed=1
level=WARN msg=full after=11m0s
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestLimitIsBounded(t *testing.T) {
	var b bytes.Buffer
	h := Limit(slog.NewTextHandler(&b, nil), time.Minute).(*limiter)
	now := time.Now()
	say := func(after time.Duration, text string) {
		if err := h.Handle(t.Context(), slog.NewRecord(now.Add(after), slog.LevelInfo, text, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 * maxMessages {
		say(0, fmt.Sprint("text ", i))
		say(0, fmt.Sprint("text ", i))
	}
	if got := len(h.turns.said); got > maxMessages+1 {
		t.Errorf("got %d texts in memory want at most %d and the shared one", got, maxMessages)
	}
	if got := bytes.Count(b.Bytes(), []byte("\n")); got > maxMessages+1 {
		t.Errorf("got %d lines of a flood of different texts want at most %d", got, maxMessages+1)
	}
	b.Reset()
	for i := range maxMessages { // a minute later each text is new, and the shared turn tells of what was forgotten
		say(time.Minute, fmt.Sprint("new text ", i))
	}
	if got := bytes.Count(b.Bytes(), []byte("\n")); got < maxMessages-1 {
		t.Errorf("got %d lines after the flood want %d", got, maxMessages)
	}
	for _, tail := range []string{"a", "b"} {
		say(2*time.Minute, strings.Repeat("x", maxText)+tail)
	}
	if strings.Contains(b.String(), "xb") {
		t.Error("texts that differ beyond what is kept of them are told apart")
	}
}

func TestLimitCountsWhatItForgot(t *testing.T) {
	turns := &turns{every: time.Minute, said: make(map[message]*said)}
	now := time.Now()
	passed, told := 0, 0
	for minute := range 4 {
		for i := range 3 * maxMessages {
			for range 2 {
				if pass, held := turns.take(slog.LevelInfo, fmt.Sprint(minute, i), now.Add(time.Duration(minute)*time.Minute)); pass {
					passed++
					told += held
				}
			}
		}
	}
	left := 0
	for _, s := range turns.said {
		left += s.held
	}
	if got, want := passed+told+left, 4*3*maxMessages*2; got != want {
		t.Errorf("got %d passed + %d told + %d still to tell = %d want %d", passed, told, left, got, want)
	}
}

func BenchmarkLog(b *testing.B) {
	for name, ctx := range map[string]context.Context{"plain": context.Background(), "span": trace.ContextWithSpanContext(context.Background(),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))} {
		b.Run(name, func(b *testing.B) {
			l := slog.New(newCloudHandler(discard{}, slog.LevelInfo, "p"))
			b.ReportAllocs()
			for b.Loop() {
				l.InfoContext(ctx, "batch delivered", "count", 100, "integration", "sweet")
			}
		})
	}
}

// discard is not io.Discard, for which slog may skip the work.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkLimit(b *testing.B) {
	l := slog.New(Limit(newCloudHandler(discard{}, slog.LevelInfo, "p"), time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		l.Warn("the spool is full")
	}
}
