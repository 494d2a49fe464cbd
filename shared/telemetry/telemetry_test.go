package telemetry

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	collectmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collecttrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc"
)

func begin(t *testing.T, c Config) *Telemetry {
	t.Helper()
	tel, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func get(t *testing.T, tel *Telemetry, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	tel := begin(t, Config{Service: "apss-test", Version: "1.2.3"})
	high := tel.Counter("apss.events.dropped", "{event}", "Events dropped.", attribute.String("severity", "HIGH"))
	low := tel.Counter("apss.events.dropped", "{event}", "Events dropped.", attribute.String("severity", "LOW"))
	high.Add(2)
	high.Add(1)
	low.Add(5)
	tel.Gauge("apss.spool.size", "By", "Bytes in the spool.", func() int64 { return 42 })
	seconds, err := tel.Meter().Float64Histogram("apss.flush.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(0.1, 1))
	if err != nil {
		t.Fatal(err)
	}
	seconds.Record(t.Context(), 0.5)
	status, body := get(t, tel, "/metrics")
	if status != http.StatusOK {
		t.Errorf("got status %d want 200", status)
	}
	for _, want := range []string{
		`apss_events_dropped_total{severity="HIGH"} 3`,
		`apss_events_dropped_total{severity="LOW"} 5`,
		"# HELP apss_events_dropped_total Events dropped.",
		"apss_spool_size_bytes 42",
		`apss_flush_duration_seconds_bucket{le="1"} 1`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") && !strings.HasPrefix(body, want+"\n") {
			t.Errorf("got no line %q", want)
		}
	}
	for _, want := range []string{`target_info\{.*service_name="apss-test".*service_version="1.2.3"`, `go_goroutines \d`, `process_resident_memory_bytes \d`} {
		if !regexp.MustCompile(want).MatchString(body) {
			t.Errorf("got nothing like %q", want)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
	if got := high.Load(); got != 3 {
		t.Errorf("got %d want 3", got)
	}
}

func TestTwoDoNotMix(t *testing.T) {
	a, b := begin(t, Config{}), begin(t, Config{})
	a.Counter("apss.only.a", "", "")
	if _, body := get(t, b, "/metrics"); strings.Contains(body, "apss_only_a") {
		t.Error("b shows a's counter")
	}
}

func TestInvalidInstrumentIsLogged(t *testing.T) {
	var b bytes.Buffer
	tel := begin(t, Config{Log: &b})
	tel.Counter("not a name", "", "").Add(1)
	tel.Gauge("9", "", "", func() int64 { return 1 })
	if got := strings.Count(b.String(), `"severity":"ERROR"`); got != 2 {
		t.Errorf("got %d errors want 2 in %s", got, b.String())
	}
}

func TestHealthAndReadiness(t *testing.T) {
	tel := begin(t, Config{})
	if status, body := get(t, tel, "/readyz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("without checks: got %d %q want 200 ok", status, body)
	}
	var fault error
	tel.Ready("spool", func() error { return nil })
	tel.Ready("publisher", func() error { return fault })
	if status, body := get(t, tel, "/readyz"); status != http.StatusOK || body != "spool: ok\npublisher: ok\n" {
		t.Errorf("got %d %q want 200 and a line for each check", status, body)
	}
	fault = errors.New("not connected\n since 10:00")
	if status, body := get(t, tel, "/readyz"); status != http.StatusServiceUnavailable || body != "spool: ok\npublisher: not connected since 10:00\n" {
		t.Errorf("got %d %q want 503 and the error on one line", status, body)
	}
	if status, body := get(t, tel, "/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("got %d %q want 200 ok whatever the checks say", status, body)
	}
	if status, _ := get(t, tel, "/"); status != http.StatusNotFound {
		t.Errorf("got %d want 404 for other paths", status)
	}
}

func TestEnvironmentPrevails(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=p1,service.version=9")
	tel := begin(t, Config{Service: "apss-test", Version: "1"})
	_, body := get(t, tel, "/metrics")
	if !regexp.MustCompile(`target_info\{.*k8s_pod_name="p1".*service_name="apss-test".*service_version="9"`).MatchString(body) {
		t.Error("the resource has not the environment's attributes")
	}
}

func TestStartFaults(t *testing.T) {
	t.Run("attributes", func(t *testing.T) {
		t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "novalue")
		if _, err := Start(t.Context(), Config{}); err == nil || !strings.Contains(err.Error(), "OTEL_RESOURCE_ATTRIBUTES") {
			t.Errorf("got %v want an error that names the variable", err)
		}
	})
	t.Run("protocol", func(t *testing.T) {
		t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318")
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
		if _, err := Start(t.Context(), Config{}); err == nil || !strings.Contains(err.Error(), `write "grpc"`) {
			t.Errorf("got %v want an error that says what to write", err)
		}
	})
}

func TestWithoutExporterTraceContextPasses(t *testing.T) {
	tel := begin(t, Config{})
	in := map[string]string{"traceparent": "00-ab000000000000000000000000000000-cd00000000000000-01"}
	ctx, span := tel.Tracer().Start(Extract(t.Context(), in), "work")
	defer span.End()
	if span.IsRecording() {
		t.Error("a span records for nobody")
	}
	out := map[string]string{"kept": "x"}
	Inject(ctx, out)
	if diff := cmp.Diff(map[string]string{"kept": "x", "traceparent": in["traceparent"]}, out); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	none := map[string]string{}
	Inject(t.Context(), none)
	if len(none) != 0 {
		t.Errorf("without a trace: got %v want nothing", none)
	}
	for _, bad := range []map[string]string{nil, {"traceparent": "00-xyz"}, {"traceparent": strings.Repeat("0", 55)}} {
		if got := trace.SpanContextFromContext(Extract(t.Context(), bad)); got.IsValid() {
			t.Errorf("%v: got a valid span context", bad)
		}
	}
}

// collector keeps what is exported to it.
type collector struct {
	collecttrace.UnimplementedTraceServiceServer
	mu       sync.Mutex
	spans    []string
	metrics  []string
	services []string
}

type metricsService struct {
	collectmetrics.UnimplementedMetricsServiceServer
	*collector
}

func (c *collector) from(attributes []*commonpb.KeyValue) {
	for _, a := range attributes {
		if a.Key == "service.name" {
			c.services = append(c.services, a.Value.GetStringValue())
		}
	}
}

func (c *collector) Export(_ context.Context, r *collecttrace.ExportTraceServiceRequest) (*collecttrace.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range r.ResourceSpans {
		c.from(rs.Resource.Attributes)
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, s.Name)
			}
		}
	}
	return &collecttrace.ExportTraceServiceResponse{}, nil
}

func (m metricsService) Export(_ context.Context, r *collectmetrics.ExportMetricsServiceRequest) (*collectmetrics.ExportMetricsServiceResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rm := range r.ResourceMetrics {
		m.from(rm.Resource.Attributes)
		for _, sm := range rm.ScopeMetrics {
			for _, metric := range sm.Metrics {
				m.metrics = append(m.metrics, metric.Name)
			}
		}
	}
	return &collectmetrics.ExportMetricsServiceResponse{}, nil
}

func collect(t *testing.T) (*collector, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, s := new(collector), grpc.NewServer()
	collecttrace.RegisterTraceServiceServer(s, c)
	collectmetrics.RegisterMetricsServiceServer(s, metricsService{collector: c})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, "http://" + l.Addr().String()
}

func TestExport(t *testing.T) {
	for name, c := range map[string]struct {
		variable       string
		spans, metrics []string
	}{
		"both":    {"OTEL_EXPORTER_OTLP_ENDPOINT", []string{"work", "library"}, []string{"apss.events.sent"}},
		"traces":  {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", []string{"work", "library"}, nil},
		"metrics": {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", nil, []string{"apss.events.sent"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, endpoint := collect(t)
			t.Setenv(c.variable, endpoint)
			tel := begin(t, Config{Service: "apss-test"})
			tel.Counter("apss.events.sent", "{event}", "").Add(1)
			_, span := tel.Tracer().Start(t.Context(), "work")
			span.End()
			_, span = otel.Tracer("some library").Start(t.Context(), "library")
			span.End()
			if err := tel.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			got.mu.Lock()
			defer got.mu.Unlock()
			if diff := cmp.Diff([][]string{c.spans, c.metrics}, [][]string{got.spans, got.metrics}); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			for _, s := range got.services {
				if s != "apss-test" {
					t.Errorf("got service %q want apss-test", s)
				}
			}
		})
	}
}

func TestUnreachableCollectorIsSaidOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"+l.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "50")
	var b bytes.Buffer
	tel, err := Start(t.Context(), Config{Log: &b})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, span := tel.Tracer().Start(t.Context(), "work")
		span.End()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := tel.Flush(ctx); err != nil {
			otel.Handle(err)
		}
		cancel()
	}
	_ = tel.Shutdown(t.Context())
	if got := strings.Count(b.String(), `"severity":"WARNING","message":"OpenTelemetry has trouble"`); got != 1 {
		t.Errorf("got %d lines want 1 in %s", got, b.String())
	}
}

func BenchmarkCounter(b *testing.B) {
	tel, err := Start(b.Context(), Config{Log: discard{}})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("apss", func(b *testing.B) {
		c := tel.Counter("apss.bench.a", "", "", attribute.String("severity", "HIGH"))
		b.ReportAllocs()
		for b.Loop() {
			c.Add(1)
		}
	})
	b.Run("otel", func(b *testing.B) {
		c, err := tel.Meter().Int64Counter("apss.bench.b")
		if err != nil {
			b.Fatal(err)
		}
		set := metric.WithAttributeSet(attribute.NewSet(attribute.String("severity", "HIGH")))
		b.ReportAllocs()
		for b.Loop() {
			c.Add(b.Context(), 1, set)
		}
	})
}
