package push

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

func newHandler(t *testing.T, log io.Writer, inHand int64, handle func(context.Context, envelope.Push) error) *Handler {
	t.Helper()
	h, err := New(Config{
		Name: "test", Handle: handle, Timeout: time.Second, InHand: budget.New(inHand),
		Log: slog.New(slog.NewJSONHandler(log, nil)), Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wrapped(data string) string {
	return fmt.Sprintf(`{"message":{"data":%q,"attributes":{"ce-type":"apss.events.v1"},"messageId":"m1","publishTime":"2026-11-22T10:00:00Z"},`+
		`"subscription":"projects/p/subscriptions/s","deliveryAttempt":3}`, base64.StdEncoding.EncodeToString([]byte(data)))
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		status int
		after  string
	}{
		{"delivered", nil, 204, ""},
		{"retry", &outcome.Error{Class: outcome.Retry, Status: 502}, 503, ""},
		{"no answer", &outcome.Error{Class: outcome.Retry, Reason: "no answer"}, 503, ""},
		{"retry later", &outcome.Error{Class: outcome.Retry, Status: 503, After: 1500 * time.Millisecond}, 503, "2"},
		{"slow down", &outcome.Error{Class: outcome.Retry, Status: 429, After: 7 * time.Second}, 429, "7"},
		{"slow down, nobody knows how long", &outcome.Error{Class: outcome.Retry, Status: 429}, 429, "1"},
		{"auth", &outcome.Error{Class: outcome.Auth, Status: 401, After: time.Minute}, 503, "60"},
		{"not for a handler to return", &outcome.Error{Class: outcome.Permanent, Status: 410}, 503, ""},
		{"unclassified", io.ErrUnexpectedEOF, 503, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got envelope.Push
			h := newHandler(t, io.Discard, 64<<20, func(_ context.Context, p envelope.Push) error { got = p; return tt.err })
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/events/test", strings.NewReader(wrapped("hello"))))
			if w.Code != tt.status || w.Header().Get("Retry-After") != tt.after {
				t.Errorf("got %d, Retry-After %q, want %d, %q", w.Code, w.Header().Get("Retry-After"), tt.status, tt.after)
			}
			want := envelope.Push{
				Message:      envelope.Message{Data: []byte("hello"), Attributes: map[string]string{"ce-type": "apss.events.v1"}},
				ID:           "m1",
				Subscription: "projects/p/subscriptions/s", DeliveryAttempt: 3,
				PublishTime: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("push (-want +got):\n%s", diff)
			}
			if n := h.cfg.InHand.Used(); n != 0 {
				t.Errorf("%d bytes are still taken", n)
			}
		})
	}
}

func TestNoPush(t *testing.T) {
	post := func(body io.Reader) *http.Request { return httptest.NewRequest(http.MethodPost, "/events/test", body) }
	form := post(strings.NewReader("a=b"))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	tests := []struct {
		name    string
		request *http.Request
		status  int
	}{
		{"a GET", httptest.NewRequest(http.MethodGet, "/events/test", nil), 405},
		{"empty", post(nil), 400},
		{"no JSON", post(strings.NewReader("hello")), 400},
		{"no message", post(strings.NewReader(`{}`)), 400},
		{"bad base64", post(strings.NewReader(`{"message":{"data":"%"}}`)), 400},
		{"a form", form, 415},
		{"too large", post(bytes.NewReader(make([]byte, envelope.MaxPush+1))), 413},
		{"too large, length unknown", post(io.MultiReader(bytes.NewReader(make([]byte, envelope.MaxPush+1)))), 413},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			h := newHandler(t, &log, 64<<20, func(context.Context, envelope.Push) error {
				t.Error("the handler was called")
				return nil
			})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, tt.request)
			if w.Code != tt.status {
				t.Errorf("got %d, want %d", w.Code, tt.status)
			}
			if allow := w.Header().Get("Allow"); (allow == "POST") != (tt.status == 405) {
				t.Errorf("got Allow %q", allow)
			}
			if log.Len() == 0 {
				t.Error("nothing was logged")
			}
		})
	}
}

func TestTooMuchInHand(t *testing.T) {
	h := newHandler(t, io.Discard, 10, func(context.Context, envelope.Push) error { t.Error("the handler was called"); return nil })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/events/test", strings.NewReader(wrapped("hello"))))
	if w.Code != 429 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d, Retry-After %q, want 429, 1", w.Code, w.Header().Get("Retry-After"))
	}
}

func TestPanic(t *testing.T) {
	var log bytes.Buffer
	h := newHandler(t, &log, 64<<20, func(context.Context, envelope.Push) error { panic("oh") })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/events/test", strings.NewReader(wrapped("hello"))))
	if w.Code != 500 || strings.Contains(w.Body.String(), "oh") {
		t.Errorf("got %d %q, want 500 without the cause", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), `"panic":"oh"`) {
		t.Errorf("the log does not tell: %s", &log)
	}
	if n := h.cfg.InHand.Used(); n != 0 {
		t.Errorf("%d bytes are still taken", n)
	}
}

func TestTimeout(t *testing.T) {
	h := newHandler(t, io.Discard, 64<<20, func(ctx context.Context, _ envelope.Push) error {
		if left, ok := ctx.Deadline(); !ok || time.Until(left) > time.Second {
			t.Error("the handler has no deadline within the timeout")
		}
		return nil
	})
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/events/test", strings.NewReader(wrapped("hello"))))
}

func TestThrottle(t *testing.T) {
	var th throttle
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	for _, step := range []struct {
		ms     int
		silent int
		ok     bool
	}{{0, 0, true}, {1, 0, false}, {999, 0, false}, {1000, 2, true}, {1001, 0, false}, {5000, 1, true}} {
		if silent, ok := th.may(at(step.ms)); silent != step.silent || ok != step.ok {
			t.Errorf("at %d ms: got %d, %t, want %d, %t", step.ms, silent, ok, step.silent, step.ok)
		}
	}
}
