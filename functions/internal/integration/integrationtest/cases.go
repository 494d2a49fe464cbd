package integrationtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// statuses: each status of the IANA registry, and some that are in none.
func (b bench) statuses(t *testing.T) {
	codes := []int{299, 306, 399, 418, 419, 430, 450, 460, 499, 509, 520, 522, 524, 529, 530, 598, 599}
	for code := 200; code < 600; code++ {
		if http.StatusText(code) != "" {
			codes = append(codes, code)
		}
	}
	for _, code := range codes {
		// The receiver quotes what it was sent, credentials included.
		echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			for name, values := range r.Header {
				fmt.Fprintf(w, "%s: %s\n", name, values)
			}
			_, _ = io.WriteString(w, r.URL.String()+"\x1b[31m\r\n"+Secret) //nolint:gosec // hostile on purpose: a receiver that echoes
		})
		e := b.against(t.Context(), t, echo)
		got := outcome.OK
		if e != nil {
			got = e.Class
		}
		if want := b.class(code); got != want {
			t.Errorf("status %d: got %v, want %v", code, got, want)
		}
		if e != nil && e.Status != code {
			t.Errorf("status %d: the outcome says status %d", code, e.Status)
		}
		if e != nil && strings.ContainsAny(e.Reason, "\n\r\x1b") {
			t.Errorf("status %d: the reason is not one line of text: %q", code, e.Reason)
		}
	}
}

func (b bench) retryAfter(t *testing.T) {
	inAnHour := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	tests := []struct {
		name, value string
		least, most time.Duration
	}{
		{"missing", "", 0, 0},
		{"seconds", "7", 7 * time.Second, 7 * time.Second},
		{"zero", "0", 0, 0},
		{"date", inAnHour, 59 * time.Minute, time.Hour},
		{"past date", "Fri, 31 Dec 1999 23:59:59 GMT", 0, 0},
		{"negative", "-5", 0, 0},
		{"garbage", "soon", 0, 0},
		{"overflow", "99999999999999999999", 0, 1 << 62},
	}
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%d %s", status, tt.name), func(t *testing.T) {
				e := b.against(t.Context(), t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					if tt.value != "" {
						w.Header().Set("Retry-After", tt.value)
					}
					w.WriteHeader(status)
				}))
				want(t, e, outcome.Retry)
				if e != nil && (e.After < tt.least || e.After > tt.most) {
					t.Errorf("got After %v, want %v to %v", e.After, tt.least, tt.most)
				}
			})
		}
	}
}

// connections: a receiver that is not there, or that goes away in the middle. Whether it took the events is unknown.
func (b bench) connections(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		// Port 1 is nobody's (tcpmux, RFC 1078); one that was just closed is soon another test's.
		want(t, b.at(t.Context(), t, "http://127.0.0.1:1"), outcome.Retry)
	})
	for name, reply := range map[string]string{
		"cut before the answer":   "",
		"cut inside the status":   "HTTP/1.1 2",
		"cut inside the headers":  "HTTP/1.1 200 OK\r\nContent-Le",
		"cut inside the body":     "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"rej",
		"cut inside a chunk":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"rej",
		"no HTTP":                 "SSH-2.0-OpenSSH_9.9\r\n",
		"headers without an end":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 4<<20),
		"two different lengths":   "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"negative content length": "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			want(t, b.against(t.Context(), t, hijack(t, reply)), outcome.Retry)
		})
	}
}

// hijack reads the request whole, writes reply and closes the connection.
func hijack(t *testing.T, reply string) http.Handler {
	t.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, reply)
		_ = conn.Close()
	})
}

// hang: the receiver takes the request and says nothing, or begins to answer and stops. The caller's deadline ends it.
func (b bench) hang(t *testing.T) {
	for name, begin := range map[string]func(http.ResponseWriter){
		"before the answer": func(http.ResponseWriter) {},
		"inside the body": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"re`)
			_ = http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			url, stop := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				begin(w)
				<-release
			}))
			defer stop()
			defer close(release)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			want(t, b.at(ctx, t, url), outcome.Retry)
		})
	}
}

// redirects are not followed: the credential would go where the redirect says, a POST would become a GET.
func (b bench) redirects(t *testing.T) {
	var elsewhere atomic.Int32
	other, stop := serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer stop()
	for _, status := range []int{301, 302, 303, 307, 308} {
		var calls atomic.Int32
		e := b.against(t.Context(), t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			http.Redirect(w, r, other+"/?key="+Secret, status)
		}))
		want(t, e, b.class(status))
		if n := calls.Load(); n != 1 {
			t.Errorf("status %d: got %d calls, want 1", status, n)
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// answers: bodies that no receiver should send with 200. The call must end, and come to what the status alone says.
func (b bench) answers(t *testing.T) {
	for name, body := range map[string]string{
		"empty":         "",
		"empty object":  "{}",
		"no JSON":       "<html>welcome</html>",
		"cut JSON":      `{"rejected":[{"id":`,
		"null":          "null",
		"number":        "17",
		"deep":          strings.Repeat("[", 1<<16),
		"long":          strings.Repeat("x", 8<<20),
		"control bytes": "\x00\x1b[2J\xff\xfe",
	} {
		t.Run(name, func(t *testing.T) {
			want(t, b.against(t.Context(), t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, body)
			})), b.Vague)
		})
	}
	t.Run("endless", func(t *testing.T) {
		done := make(chan struct{})
		e := b.against(t.Context(), t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			defer close(done)
			for chunk := strings.Repeat("x", 1<<16); ; {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
		}))
		want(t, e, b.Vague)
		<-done
	})
}

// cancelled: with a context that is over, nothing is sent.
func (b bench) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var calls atomic.Int32
	e := b.against(ctx, t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	want(t, e, outcome.Retry)
	if e != nil && !errors.Is(e, context.Canceled) {
		t.Errorf("got %v, want it to be context.Canceled", e)
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("got %d calls, want none", n)
	}
}

// concurrent: callers at the same time, of one integration and about the same alert.
func (b bench) concurrent(t *testing.T) {
	var calls atomic.Int32
	accept := b.accept()
	url, stop := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		accept(w, r)
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer stop()
	subject := b.New(t, url, slog.New(slog.DiscardHandler))
	var wg sync.WaitGroup
	const callers = 16
	for range callers {
		wg.Go(func() {
			if err := b.do(t.Context(), subject); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n < callers {
		t.Errorf("got %d calls, want at least %d", n, callers)
	}
}

// payload: what arrives is what was sent, whatever is in it.
func (s Subject) payload(t *testing.T) {
	hostile := []string{
		"\x00\x01\x1b[2J", "\u2028\u2029", `"}],"events":[{"id":"forged"}`, "</script><script>", "${jndi:ldap://x}",
		"\r\nX-Injected: 1\r\n\r\n", strings.Repeat("A", 1<<20), "\xff\xfe invalid", "😀", "';--", "%00%0a",
	}
	tests := map[string][]event.Raw{"one": Events(1), "ten thousand": Events(10_000)}
	strange := make([]event.Raw, 0, len(hostile))
	for _, h := range hostile {
		e := event.Event{ID: event.NewID(), AgentID: h, Type: event.IntegrationTest, Timestamp: time.Unix(0, 0),
			Process: &event.Process{Cmdline: h, Args: []string{h}}, Metadata: map[string]any{h: h}}
		strange = append(strange, e.AppendJSON(nil))
	}
	tests["hostile"] = strange
	for name, events := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			var fault error
			url, stop := serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					fault = err
					return
				}
				if r.Header.Get("X-Injected") != "" {
					fault = errors.New("a header was injected")
				}
				ids, err := s.IDs(body)
				if err != nil {
					fault = err
				}
				got = append(got, ids...)
			}))
			defer stop()
			sink := s.New(t, url, slog.New(slog.DiscardHandler)).(integration.EventSink)
			if err := sink.SendEvents(t.Context(), events); err != nil {
				t.Fatal(err)
			}
			if fault != nil {
				t.Fatal(fault)
			}
			want := make([]string, len(events))
			for i, e := range events {
				want[i], _ = e.ID()
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the ids that arrived (-want +got):\n%s", diff)
			}
		})
	}
}
