package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// scope names the instruments and spans of this project.
const scope = "github.com/apss-sensor/apss"

// Config says what to start.
type Config struct {
	Service string // "apss-agent"
	Version string
	Project string     // Google Cloud project, for trace links in logs; may be empty
	Level   slog.Level // of the log
	Log     io.Writer  // os.Stderr unless given
}

// Telemetry is started once, by main. Safe for concurrent use.
type Telemetry struct {
	logger   *slog.Logger
	registry *prometheus.Registry
	meter    metric.Meter
	tracer   trace.Tracer
	flush    []func(context.Context) error
	shutdown []func(context.Context) error

	mu     sync.Mutex
	checks []check
	points map[string][]point // of each instrument
}

// Start sets up logs, metrics (always, read at /metrics) and, where OTEL_EXPORTER_OTLP_ENDPOINT is set, export of
// traces and metrics by OTLP over gRPC. OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or _METRICS_ENDPOINT alone export the one.
// A collector that cannot be reached is no error here; it is logged once a minute.
func Start(ctx context.Context, c Config) (*Telemetry, error) {
	if c.Log == nil {
		c.Log = os.Stderr
	}
	t := &Telemetry{
		logger:   slog.New(newCloudHandler(c.Log, c.Level, c.Project)),
		registry: prometheus.NewRegistry(),
		points:   make(map[string][]point),
	}
	limited := slog.New(Limit(t.logger.Handler(), time.Minute))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		limited.Warn("OpenTelemetry has trouble", "error", err)
	}))
	otel.SetTextMapPropagator(propagation.TraceContext{})

	// The environment comes last, so that it prevails.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", c.Service), attribute.String("service.version", c.Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("reading OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if err := t.startMetrics(ctx, about); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	if err := t.startTraces(ctx, about); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

func (t *Telemetry) startMetrics(ctx context.Context, about *resource.Resource) error {
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	pull, err := exporter.New(exporter.WithRegisterer(t.registry), exporter.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("starting the metrics: %w", err)
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(about), sdkmetric.WithReader(pull)}
	switch wanted, err := exported("METRICS"); {
	case err != nil:
		return err
	case wanted:
		push, err := otlpmetricgrpc.New(ctx)
		if err != nil {
			return fmt.Errorf("starting the export of metrics: %w", err)
		}
		options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(push)))
	}
	provider := sdkmetric.NewMeterProvider(options...)
	t.flush = append(t.flush, provider.ForceFlush)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	t.meter = provider.Meter(scope)
	otel.SetMeterProvider(provider)
	return nil
}

func (t *Telemetry) startTraces(ctx context.Context, about *resource.Resource) error {
	wanted, err := exported("TRACES")
	if err != nil {
		return err
	}
	if !wanted {
		// Still passes on the trace context that others sent.
		provider := noop.NewTracerProvider()
		t.tracer = provider.Tracer(scope)
		otel.SetTracerProvider(provider)
		return nil
	}
	push, err := otlptracegrpc.New(ctx)
	if err != nil {
		return fmt.Errorf("starting the export of traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithBatcher(push))
	t.flush = append(t.flush, provider.ForceFlush)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	t.tracer = provider.Tracer(scope)
	otel.SetTracerProvider(provider)
	return nil
}

// exported reports whether the environment asks for the export of a signal, TRACES or METRICS.
// The variables are those of opentelemetry.io/docs/specs/otel/protocol/exporter.
func exported(signal string) (bool, error) {
	get := func(name string) string {
		if v := os.Getenv("OTEL_EXPORTER_OTLP_" + signal + "_" + name); v != "" {
			return v
		}
		return os.Getenv("OTEL_EXPORTER_OTLP_" + name)
	}
	if get("ENDPOINT") == "" {
		return false, nil
	}
	if p := get("PROTOCOL"); p != "" && p != "grpc" {
		return false, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: %q is not built in; write \"grpc\" and the endpoint's gRPC port (4317)", p)
	}
	return true, nil
}

// Logger returns the program's logger.
func (t *Telemetry) Logger() *slog.Logger { return t.logger }

// Meter returns the program's meter.
func (t *Telemetry) Meter() metric.Meter { return t.meter }

// Tracer returns the program's tracer. Without an exporter its spans record nothing.
func (t *Telemetry) Tracer() trace.Tracer { return t.tracer }

// Flush exports what is in hand; Shutdown also ends the exporters.
func (t *Telemetry) Flush(ctx context.Context) error { return all(ctx, "flushing", t.flush) }

// ending is how long Shutdown waits for a collector, which may be what has failed.
const ending = 2 * time.Second

// Shutdown flushes and ends the exporters, also when ctx has ended. Nothing can be read at /metrics afterwards.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ending)
	defer cancel()
	return all(ctx, "ending", t.shutdown)
}

func all(ctx context.Context, what string, calls []func(context.Context) error) error {
	var errs []error
	for _, call := range calls {
		if err := call(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s telemetry: %w", what, err))
		}
	}
	return errors.Join(errs...)
}

// Inject writes ctx's trace context into a message's attributes (traceparent); Extract reads it.
func Inject(ctx context.Context, attributes map[string]string) {
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(attributes))
}

// Extract returns ctx with the remote span of attributes.
func Extract(ctx context.Context, attributes map[string]string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(attributes))
}
