package telemetry

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strconv"

	"go.opentelemetry.io/otel/trace"
)

// cloudHandler writes JSON lines with the fields that Cloud Logging's agents take out of them
// (docs.cloud.google.com/logging/docs/structured-logging): severity, message, time, the trace of the context, and from
// ERROR on where in the source the record was made. Those stand at the top, also for a logger with groups.
type cloudHandler struct {
	top    slog.Handler                      // before the first group
	inner  slog.Handler                      // top with what groups made of it
	groups []func(slog.Handler) slog.Handler // what groups made of it
	traces string                            // what stands before a trace's id
}

func newCloudHandler(w io.Writer, level slog.Level, project string) *cloudHandler {
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: cloudField})
	traces := ""
	if project != "" {
		traces = "projects/" + project + "/traces/"
	}
	return &cloudHandler{top: h, inner: h, traces: traces}
}

// cloudField renames slog's own fields.
func cloudField(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok {
			return slog.String("severity", severity(level))
		}
	case slog.MessageKey:
		a.Key = "message"
	case slog.TimeKey:
		if a.Value.Kind() == slog.KindTime {
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
	}
	return a
}

// severity names a level as google.logging.type.LogSeverity does.
func severity(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DEBUG"
	case l < slog.LevelInfo+2:
		return "INFO"
	case l < slog.LevelWarn:
		return "NOTICE"
	case l < slog.LevelError:
		return "WARNING"
	case l < slog.LevelError+4:
		return "ERROR"
	}
	return "CRITICAL"
}

// Enabled implements [slog.Handler].
func (h *cloudHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.inner.Enabled(ctx, l)
}

// Handle implements [slog.Handler].
func (h *cloudHandler) Handle(ctx context.Context, r slog.Record) error {
	var fields []slog.Attr
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		fields = append(fields,
			slog.String("logging.googleapis.com/trace", h.traces+span.TraceID().String()),
			slog.String("logging.googleapis.com/spanId", span.SpanID().String()),
			slog.Bool("logging.googleapis.com/trace_sampled", span.IsSampled()))
	}
	if r.Level >= slog.LevelError && r.PC != 0 {
		frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
		fields = append(fields, slog.Group("logging.googleapis.com/sourceLocation",
			slog.String("file", frame.File), slog.String("line", strconv.Itoa(frame.Line)), slog.String("function", frame.Function)))
	}
	if fields == nil {
		return h.inner.Handle(ctx, r)
	}
	out := h.top.WithAttrs(fields)
	for _, apply := range h.groups {
		out = apply(out)
	}
	return out.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h *cloudHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(h.groups) == 0 {
		top := h.top.WithAttrs(attrs)
		return &cloudHandler{top: top, inner: top, traces: h.traces}
	}
	return h.within(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (h *cloudHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.within(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (h *cloudHandler) within(apply func(slog.Handler) slog.Handler) slog.Handler {
	return &cloudHandler{h.top, apply(h.inner), append(slices.Clip(h.groups), apply), h.traces}
}
