package health

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/apss-sensor/apss/shared/outcome"
)

// TestReport is the answer of POST /health/<integration>/test.
type TestReport struct {
	Integration string       `json:"integration"`
	OK          bool         `json:"ok"`
	Results     []TestResult `json:"results"` // one for each topic that the integration takes
}

// TestResult is what one marked message came to.
type TestResult struct {
	Topic     string  `json:"topic"`
	OK        bool    `json:"ok"`
	LatencyMS float64 `json:"latency_ms"`
	HTTP      int     `json:"http_status,omitempty"` // of the receiver, where it is known
	Answer    string  `json:"answer,omitempty"`      // what the receiver said
	Error     string  `json:"error,omitempty"`
}

// Register serves
//
//	GET  /health                      the [Report]; ?check=now asks every receiver first
//	POST /health/<integration>/test   the [TestReport], 502 when a message was not accepted
//
// A failing integration is no failure of GET /health: it answers 200, and the report says more than a status can.
func (h *Health) Register(mux *http.ServeMux) {
	mux.Handle("GET /health", h.admit(h.serveReport))
	mux.Handle("POST /health/{integration}/test", h.admit(h.serveTest))
}

// admit lets those in who show the token.
func (h *Health) admit(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case h.cfg.Token == nil && h.cfg.Open:
			next(w, r)
			return
		case h.cfg.Token == nil:
			refuse(w, http.StatusForbidden, "there is no APSS_ADMIN_TOKEN: set it, a reference to a secret, and show it here")
			return
		}
		token, err := h.cfg.Token.Get(r.Context())
		if err != nil {
			h.cfg.Log.ErrorContext(r.Context(), "the admin token cannot be read; nobody is let in to /health", "error", err.Error())
			refuse(w, http.StatusServiceUnavailable, "the admin token cannot be read; the log says why")
			return
		}
		shown, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got, want := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(token.Reveal()))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="apss"`)
			refuse(w, http.StatusUnauthorized, "show the token of APSS_ADMIN_TOKEN: Authorization: Bearer <token>")
			return
		}
		next(w, r)
	})
}

func (h *Health) serveReport(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Query().Get("check") {
	case "":
	case "now":
		if err := h.Check(r.Context()); err != nil {
			h.cfg.Log.WarnContext(r.Context(), "not every check could be kept", "error", err.Error())
		}
	default:
		refuse(w, http.StatusBadRequest, "check is now, or is not there")
		return
	}
	if err := h.Collect(r.Context()); err != nil {
		h.cfg.Log.WarnContext(r.Context(), "figures could not be kept", "error", err.Error())
	}
	report, err := h.Report(r.Context())
	if err != nil {
		h.cfg.Log.ErrorContext(r.Context(), "how everything is cannot be said", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "the state cannot be read; the log says why")
		return
	}
	answer(w, http.StatusOK, report)
}

func (h *Health) serveTest(w http.ResponseWriter, r *http.Request) {
	in, err := h.find(r.PathValue("integration"))
	switch {
	case err != nil:
		refuse(w, http.StatusNotFound, err.Error())
		return
	case !in.Enabled:
		refuse(w, http.StatusConflict, fmt.Sprintf("the integration %s is disabled; enable it in the document", in.Name))
		return
	}
	if _, under := h.testing.LoadOrStore(in.Name, true); under { // a person's patience must not become the receiver's load
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusTooManyRequests, fmt.Sprintf("a test of %s is under way", in.Name))
		return
	}
	defer h.testing.Delete(in.Name)
	report := h.test(r.Context(), in)
	h.cfg.Log.InfoContext(r.Context(), "an integration was tested", "integration", in.Name, "ok", report.OK)
	status := http.StatusOK
	if !report.OK {
		status = http.StatusBadGateway
	}
	answer(w, status, report)
}

// test sends a marked message each way to an integration.
func (h *Health) test(ctx context.Context, in Instance) TestReport {
	report := TestReport{Integration: in.Name, OK: true, Results: make([]TestResult, len(in.Ways))}
	var wg sync.WaitGroup
	for i, way := range in.Ways {
		wg.Go(func() {
			result := TestResult{Topic: way.Topic, OK: true}
			err := guard(func() error {
				receipt, err := way.Test(ctx)
				result.LatencyMS, result.HTTP, result.Answer = milliseconds(receipt.Latency), receipt.Status, clip(receipt.Answer)
				return err
			})
			if e := outcome.From(err); e != nil {
				result.OK, result.Error = false, clip(e.Error())
			}
			report.Results[i] = result
		})
	}
	wg.Wait()
	for _, result := range report.Results {
		report.OK = report.OK && result.OK
	}
	return report
}

// refuse says what is wrong, in the form of every other answer.
func refuse(w http.ResponseWriter, status int, why string) {
	answer(w, status, map[string]string{"error": why})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the caller went away
}
