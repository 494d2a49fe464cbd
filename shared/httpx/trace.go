package httpx

import (
	"context"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/apss-sensor/apss/shared/outcome"
)

// startSpan starts the span of an exchange where ctx has a span, by that span's provider: no global state, and next to
// no cost where nothing is traced. Names are those of OpenTelemetry's semantic conventions for HTTP client spans; the
// URL, which they want too, is a secret.
func startSpan(ctx context.Context, req *http.Request) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	tracer := parent.TracerProvider().Tracer("github.com/apss-sensor/apss/shared/httpx")
	return tracer.Start(ctx, method(req), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", method(req)),
		attribute.String("server.address", req.URL.Hostname()),
	))
}

func endSpan(span trace.Span, status int, err *outcome.Error) {
	if span == nil {
		return
	}
	if status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	switch {
	case err != nil:
		span.SetStatus(codes.Error, err.Reason)
	case status >= 400:
		span.SetAttributes(attribute.String("error.type", strconv.Itoa(status)))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
