// Package telemetry is what an operator sees of a program: logs as Cloud Logging reads them, OpenTelemetry traces and
// metrics, and /metrics, /healthz, /readyz.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel/metric"
)

// Config says what to start.
type Config struct {
	Service string // "apss-agent"
	Version string
	Project string     // Google Cloud project, for trace links in logs; may be empty
	Level   slog.Level // of the log
	Log     io.Writer  // os.Stderr unless given
}

// Telemetry is started once, by main. Safe for concurrent use.
type Telemetry struct{}

// Start sets up logs, metrics (always, read at /metrics) and, where OTEL_EXPORTER_OTLP_ENDPOINT is set, export of
// traces and metrics by OTLP over gRPC.
func Start(ctx context.Context, c Config) (*Telemetry, error) { panic("unwritten") }

// Logger returns the program's logger.
func (t *Telemetry) Logger() *slog.Logger { panic("unwritten") }

// Meter returns the program's meter.
func (t *Telemetry) Meter() metric.Meter { panic("unwritten") }

// Ready adds a check to /readyz: nil is ready, an error's text is shown.
func (t *Telemetry) Ready(name string, check func() error) { panic("unwritten") }

// Handler serves /metrics, /healthz and /readyz.
func (t *Telemetry) Handler() http.Handler { panic("unwritten") }

// Flush exports what is in hand; Shutdown also ends the exporters.
func (t *Telemetry) Flush(ctx context.Context) error { panic("unwritten") }

// Shutdown flushes and ends the exporters.
func (t *Telemetry) Shutdown(ctx context.Context) error { panic("unwritten") }

// Inject writes ctx's trace context into a message's attributes (traceparent); Extract reads it.
func Inject(ctx context.Context, attributes map[string]string) { panic("unwritten") }

// Extract returns ctx with the remote span of attributes.
func Extract(ctx context.Context, attributes map[string]string) context.Context { panic("unwritten") }
