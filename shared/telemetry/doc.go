// Package telemetry is what an operator sees of a program: logs as Cloud Logging reads them, OpenTelemetry traces and
// metrics, and /metrics, /healthz, /readyz.
//
// Instruments are named as OpenTelemetry does, with a unit of UCUM: "apss.events.dropped" in "{event}" is
// apss_events_dropped_total at /metrics, "apss.flush.duration" in "s" is apss_flush_duration_seconds. The environment
// variables of OpenTelemetry (OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_*) are
// honoured; of the OTLP protocols only gRPC is built in.
//
// Global state: Start sets OpenTelemetry's global providers, propagator and error handler, because libraries find
// them there only. This project's own packages take theirs from a context or from Telemetry.
package telemetry
