package httpx

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func TestSpan(t *testing.T) {
	var traceparent string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		traceparent = r.Header.Get("Traceparent")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	ctx, parent := provider.Tracer("test").Start(t.Context(), "parent")
	c := newClient(t, Options{})
	if _, err := c.Do(ctx, post(t, s.URL+"/p4th?q=s3cret")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := newClient(t, Options{}).Do(ctx, post(t, s.URL+"/p4th?q=s3cret")); err == nil {
		t.Fatal("got no error from a closed server")
	}

	spans := recorder.Ended()
	if len(spans) != 2 {
		t.Fatalf("got %d spans want 2", len(spans))
	}
	if got, want := traceparent, "00-"+parent.SpanContext().TraceID().String()+"-"+spans[0].SpanContext().SpanID().String()+"-01"; got != want {
		t.Errorf("got traceparent %q want %q", got, want)
	}
	want := []string{
		"POST client http.request.method=POST server.address=127.0.0.1 http.response.status_code=429 error.type=429 ",
		"POST client http.request.method=POST server.address=127.0.0.1 POST " + strings.TrimPrefix(s.URL, "http://") + ": connection refused",
	}
	var got []string
	for _, span := range spans {
		text := span.Name() + " " + span.SpanKind().String() + " "
		for _, a := range span.Attributes() {
			text += string(a.Key) + "=" + a.Value.String() + " "
		}
		got = append(got, text+span.Status().Description)
		if span.Status().Code != codes.Error || span.Parent().SpanID() != parent.SpanContext().SpanID() {
			t.Errorf("got status %v, parent %v want an error below the caller's span", span.Status(), span.Parent())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

func TestTraceContextOfOthersIsPassedOn(t *testing.T) {
	var traceparent string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { traceparent = r.Header.Get("Traceparent") }))
	defer s.Close()
	remote := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, Remote: true})
	c := newClient(t, Options{})
	if _, err := c.Do(trace.ContextWithSpanContext(t.Context(), remote), post(t, s.URL)); err != nil {
		t.Fatal(err)
	}
	if want := "00-01000000000000000000000000000000-0200000000000000-00"; traceparent != want {
		t.Errorf("got %q want %q", traceparent, want)
	}
	if _, err := c.Do(t.Context(), post(t, s.URL)); err != nil || traceparent != "" {
		t.Errorf("without a trace: got %q, %v want none", traceparent, err)
	}
}
