package telemetry

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type check struct {
	name string
	run  func() error
}

// Ready adds a check to /readyz: nil is ready, an error's text is shown. Checks run one after the other for each
// request and by several at once, so they only look at what is known already.
func (t *Telemetry) Ready(name string, run func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.checks = append(t.checks, check{name, run})
}

// Handler serves /metrics, /healthz and /readyz. Healthz answers 200 as long as the process serves at all; readyz 200
// or 503, with a line for each check.
func (t *Telemetry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(Limit(t.logger.Handler(), time.Minute), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		DisableCompression:  true, // a compressor holds a megabyte for good, for an answer of a few kilobytes in the cluster
		MaxRequestsInFlight: 4,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", t.readyz)
	return mux
}

func (t *Telemetry) readyz(w http.ResponseWriter, _ *http.Request) {
	t.mu.Lock()
	checks := slices.Clone(t.checks)
	t.mu.Unlock()
	status := http.StatusOK
	var lines strings.Builder
	for _, c := range checks {
		text := "ok"
		if err := c.run(); err != nil {
			status = http.StatusServiceUnavailable
			text = strings.Join(strings.Fields(err.Error()), " ")
		}
		fmt.Fprintf(&lines, "%s: %s\n", c.name, text)
	}
	if len(checks) == 0 {
		lines.WriteString("ok\n")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprint(w, lines.String())
}
