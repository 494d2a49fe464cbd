// Package push answers Pub/Sub's push requests: it reads the message, hands it to a handler, and says by the status
// whether the message must come again.
//
// The answers: 204 the message is done with; 503 it must come again; 429 with Retry-After likewise, and slower; 400, 405,
// 413, 415 the request is no push (Pub/Sub sends none such); 500 the handler panicked. Pub/Sub takes 102, 200, 201, 202
// and 204 as an acknowledgement and everything else as a refusal, backs off and delivers again
// (cloud.google.com/pubsub/docs/push#receive_push).
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/instrument"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/telemetry"
)

// bodyTimeout is how long a push's body may take to come: 15 MiB at the slowest rate that is no attack.
const bodyTimeout = 15 * time.Second

// Config is what a Handler needs. All fields but Flush are required.
type Config struct {
	Name    string // of the route, for logs and metrics
	Handle  func(context.Context, envelope.Push) error
	Timeout time.Duration  // of one request, from its first byte on; less than the subscription's ack deadline
	InHand  *budget.Budget // for request bodies
	Log     *slog.Logger
	Meter   metric.Meter
	Tracer  trace.Tracer
	// Flush is called before an answer: between requests a function may have no CPU to export telemetry with.
	Flush func(context.Context)
}

// Handler answers push requests. Safe for concurrent use.
type Handler struct {
	cfg      Config
	requests metric.Int64Counter
	duration metric.Float64Histogram
	refusals throttle
}

// New returns a handler. It fails only when the meter does.
func New(c Config) (*Handler, error) {
	requests, err1 := c.Meter.Int64Counter("apss.push.requests",
		metric.WithDescription("Push requests, by the status that answered them."))
	duration, err2 := instrument.Duration(c.Meter, "apss.push.duration", "Time from a push request to its answer.")
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", c.Name, err)
	}
	return &Handler{cfg: c, requests: requests, duration: duration}, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), h.cfg.Timeout)
	defer cancel()
	a := h.answer(ctx, w, r)
	if h.cfg.Flush != nil {
		h.cfg.Flush(ctx)
	}
	attributes := metric.WithAttributeSet(attribute.NewSet(
		attribute.String("integration", h.cfg.Name), attribute.Int("status", a.status)))
	h.requests.Add(ctx, 1, attributes)
	h.duration.Record(ctx, time.Since(begin).Seconds(), attributes)
	a.write(w)
}

// answer is a status with what goes with it.
type answer struct {
	status int
	after  time.Duration
	text   string
}

func (a answer) write(w http.ResponseWriter) {
	if a.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	if a.after > 0 { // whole seconds, RFC 9110 section 10.2.3
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(a.after.Seconds()))))
	}
	if a.text == "" {
		w.WriteHeader(a.status)
		return
	}
	http.Error(w, a.text, a.status)
}

// answer handles r. What goes wrong is logged here, and only here.
func (h *Handler) answer(ctx context.Context, w http.ResponseWriter, r *http.Request) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			h.cfg.Log.ErrorContext(ctx, "handling a push panicked", "integration", h.cfg.Name, "panic", p, "stack", string(debug.Stack()))
			a = answer{status: http.StatusInternalServerError, text: "internal error"}
		}
	}()
	size := r.ContentLength
	if size < 0 || size > envelope.MaxPush { // not said, or not believed: it is read up to the limit
		size = envelope.MaxPush
	}
	if !h.cfg.InHand.Take(size) {
		return answer{http.StatusTooManyRequests, time.Second, "too much in hand, try again"}
	}
	defer h.cfg.InHand.Give(size)
	r.Body = http.MaxBytesReader(w, r.Body, envelope.MaxPush+1)
	// A body that trickles in would hold its share of the budget; Pub/Sub sends in one go. Where there is no connection to
	// set it on (a test's recorder), there is none to trickle.
	body := http.NewResponseController(w)
	_ = body.SetReadDeadline(time.Now().Add(bodyTimeout))
	p, err := envelope.ReadPush(r)
	_ = body.SetReadDeadline(time.Time{})
	if err != nil {
		status := envelope.PushStatus(err)
		h.cfg.Log.WarnContext(ctx, "a request is no push of Pub/Sub", "integration", h.cfg.Name, "status", status, "error", err.Error())
		return answer{status: status, text: err.Error()}
	}
	ctx, span := h.cfg.Tracer.Start(telemetry.Extract(ctx, p.Attributes), "push "+h.cfg.Name, trace.WithSpanKind(trace.SpanKindConsumer))
	defer span.End()
	if err := h.cfg.Handle(ctx, p); err != nil {
		a = verdict(outcome.From(err))
		if silent, ok := h.refusals.may(time.Now()); ok {
			h.cfg.Log.WarnContext(ctx, "a push must come again", "integration", h.cfg.Name, "status", a.status, "message_id", p.ID,
				"delivery_attempt", p.DeliveryAttempt, "error", err.Error(), "not_logged_before", silent)
		}
		return a
	}
	return answer{status: http.StatusNoContent}
}

// verdict maps an error of the handler to an answer. Its text stays in the log: it is the receiver's.
func verdict(e *outcome.Error) answer {
	if e.Class == outcome.Retry && e.Status == http.StatusTooManyRequests {
		return answer{http.StatusTooManyRequests, max(e.After, time.Second), "slower, try again"}
	}
	return answer{http.StatusServiceUnavailable, e.After, "not delivered, try again"}
}

// throttle lets one log line a second pass: while a receiver is down, each push would write the same.
type throttle struct {
	mu     sync.Mutex
	next   time.Time
	silent int
}

// may reports whether to log now, and how many lines were not since the last one.
func (t *throttle) may(now time.Time) (silent int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.silent++
		return 0, false
	}
	silent, t.silent, t.next = t.silent, 0, now.Add(time.Second)
	return silent, true
}
