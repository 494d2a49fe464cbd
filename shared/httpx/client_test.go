package httpx

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/outcome"
)

// raw serves connections with bytes of its own.
func raw(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String()
}

// answer reads a request and writes text.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

// closedPort: nobody listens at tcpmux. A port that was closed just now may be another test's by the next moment.
const closedPort = "http://127.0.0.1:1"

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

func post(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestTrouble(t *testing.T) {
	hang := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-hang
		case "/hang-in-body":
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			<-hang
		case "/headers":
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1024))
			}
		}
	})
	plain := httptest.NewServer(handler)
	secure := httptest.NewTLSServer(handler)
	secure.Config.ErrorLog = quiet()
	t.Cleanup(func() { close(hang); plain.Close(); secure.Close() })
	_, securePort, _ := net.SplitHostPort(secure.Listener.Addr().String())

	for _, c := range []struct {
		name, url, want string
		class           outcome.Class
		timeout         time.Duration
	}{
		{name: "hang", url: plain.URL + "/hang", timeout: 30 * time.Millisecond, want: "no whole answer within 30ms"},
		{name: "hang in the body", url: plain.URL + "/hang-in-body", timeout: 50 * time.Millisecond, want: "no whole answer within 50ms"},
		{name: "huge header", url: plain.URL + "/headers", want: "no valid HTTP answer"},
		{name: "closed port", url: closedPort, want: "connection refused"},
		{name: "no such host", url: "http://apss.invalid", want: "apss.invalid: "},
		{name: "unknown authority", url: secure.URL, want: "certificate not accepted: its authority is unknown"},
		{name: "no TLS", url: "https://" + plain.Listener.Addr().String(), want: "no TLS on this port"},
		{name: "TLS unasked", url: "http://127.0.0.1:" + securePort + "/hang-not", want: ""},
		// Net/http has an error of its own, without a type, for a connection closed while it was idle; so this is
		// "connection closed before an answer" or "no valid HTTP answer".
		{name: "closed at once", url: raw(t, func(net.Conn) {}), want: " answer"},
		{name: "closed after the request", url: raw(t, answer("")), want: "connection closed before an answer"},
		{name: "garbage", url: raw(t, answer("\x00\x01garbage\r\n\r\n")), want: "no valid HTTP answer"},
		{name: "cut by length", url: raw(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")), want: "answer cut short"},
		{name: "cut chunk", url: raw(t, answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")), want: "answer cut short"},

		{name: "no URL", url: "", class: outcome.Permanent, want: "does not start with https://"},
		{name: "scheme", url: "ftp://host/x", class: outcome.Permanent, want: "does not start with https://"},
		{name: "no host", url: "http:///x", class: outcome.Permanent, want: "names no host"},
		{name: "port", url: "http://host:99999/x", class: outcome.Permanent, want: "port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.class == outcome.OK {
				c.class = outcome.Retry
			}
			if c.name == "TLS unasked" { // Go's TLS server answers plain HTTP with a 400
				r, err := newClient(t, Options{}).Do(t.Context(), post(t, c.url))
				if err != nil || r.Status != http.StatusBadRequest {
					t.Errorf("got %v, %v want a 400", r, err)
				}
				return
			}
			r, err := newClient(t, Options{Timeout: c.timeout}).Do(t.Context(), post(t, c.url))
			e, ok := errors.AsType[*outcome.Error](err)
			if !ok {
				t.Fatalf("got %v, %v want an outcome", r, err)
			}
			if e.Class != c.class || e.Status != 0 || !strings.Contains(e.Reason, c.want) {
				t.Errorf("got %v %d %q want %v 0 with %q", e.Class, e.Status, e.Reason, c.class, c.want)
			}
		})
	}
}

func TestUnsendable(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(*http.Request)
		want string
	}{
		"method":       {func(r *http.Request) { r.Method = "PO ST" }, "method"},
		"no URL":       {func(r *http.Request) { r.URL = nil }, "no URL"},
		"header name":  {func(r *http.Request) { r.Header["a b"] = nil }, "header"},
		"header value": {func(r *http.Request) { r.Header.Set("X-Key", "s3cr3t\n") }, "X-Key has a control character"},
	} {
		req := post(t, "http://host.invalid/p4th")
		body := &closable{Reader: strings.NewReader("x")}
		req.Body = body
		c.harm(req)
		_, err := newClient(t, Options{}).Do(t.Context(), req)
		e := outcome.From(err)
		if e == nil || e.Class != outcome.Permanent || !strings.Contains(e.Reason, c.want) || strings.Contains(e.Reason, "s3cr3t") {
			t.Errorf("%s: got %v want permanent with %q", name, err, c.want)
		}
		if !body.closed {
			t.Errorf("%s: the body was not closed", name)
		}
	}
}

type closable struct {
	io.Reader
	closed bool
}

func (c *closable) Close() error { c.closed = true; return nil }

func TestWhyNamesTheKind(t *testing.T) {
	for want, err := range map[string]error{
		"no such host":                   &net.OpError{Err: &net.DNSError{IsNotFound: true, Name: "h"}},
		"the name server did not answer": &net.OpError{Err: &net.DNSError{IsTimeout: true, Name: "h"}},
		"proxy: no such host":            &net.OpError{Op: "proxyconnect", Err: &net.DNSError{IsNotFound: true}},
		"connecting timed out":           &net.OpError{Op: "dial", Err: context.DeadlineExceeded},
	} {
		if got := why(&url.Error{URL: "http://h/p4th", Err: err}); got != want {
			t.Errorf("got %q want %q", got, want)
		}
	}
}

func TestCallerGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel(); <-hang }))
	defer s.Close()
	defer close(hang)
	_, err := newClient(t, Options{}).Do(ctx, post(t, s.URL))
	if e := outcome.From(err); !errors.Is(err, context.Canceled) || e.Class != outcome.Retry || !strings.Contains(e.Reason, "given up by the caller") {
		t.Errorf("got %v want a retry that wraps context.Canceled", err)
	}
}

func TestAnswers(t *testing.T) {
	var redirected atomic.Bool
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/target", http.StatusTemporaryRedirect)
		case "/odd-redirect":
			w.Header().Set("Location", "http://[::bad")
			w.WriteHeader(http.StatusFound)
		case "/target":
			redirected.Store(true)
		case "/exact":
			_, _ = io.WriteString(w, strings.Repeat("x", 100))
		case "/more":
			_, _ = io.WriteString(w, strings.Repeat("x", 101))
		case "/huge":
			for range 100 {
				_, _ = io.WriteString(w, strings.Repeat("x", 64<<10))
			}
		}
	}))
	defer s.Close()
	c := newClient(t, Options{MaxResponse: 100})
	for _, tc := range []struct {
		path      string
		status    int
		length    int
		truncated bool
	}{
		{"/", 200, 0, false}, {"/redirect", 307, 0, false}, {"/odd-redirect", 302, 0, false},
		{"/exact", 200, 100, false}, {"/more", 200, 100, true}, {"/huge", 200, 100, true},
	} {
		r, err := c.Do(t.Context(), post(t, s.URL+tc.path))
		if err != nil {
			t.Errorf("%s: %v", tc.path, err)
			continue
		}
		if r.Status != tc.status || len(r.Body) != tc.length || r.Truncated != tc.truncated || r.Elapsed <= 0 {
			t.Errorf("%s: got %v want status %d, %d bytes, truncated %v", tc.path, r, tc.status, tc.length, tc.truncated)
		}
	}
	if redirected.Load() {
		t.Error("a redirect was followed")
	}

	req := post(t, strings.Replace(s.URL, "http://", "http://user:pass@", 1))
	before := req.Header.Clone()
	if _, err := c.Do(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if got.Get("User-Agent") != "apss" || got.Get("Authorization") != "Basic dXNlcjpwYXNz" {
		t.Errorf("got headers %v want our user agent and the URL's credentials", got)
	}
	if len(req.Header) != len(before) {
		t.Errorf("the caller's request was changed: %v", req.Header)
	}
	req.Header.Set("User-Agent", "other")
	req.Header.Set("Authorization", "Bearer x")
	if _, err := c.Do(t.Context(), req); err != nil || got.Get("User-Agent") != "other" || got.Get("Authorization") != "Bearer x" {
		t.Errorf("got headers %v, %v want the caller's", got, err)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	authorities := x509.NewCertPool()
	authorities.AddCert(s.Certificate())
	c := newClient(t, Options{TLS: &tls.Config{RootCAs: authorities}})
	r, err := c.Do(t.Context(), post(t, s.URL))
	if err != nil || string(r.Body) != "HTTP/1.1" {
		t.Errorf("got %v, %v want an answer by HTTP/1.1", r, err)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			_, _ = io.WriteString(w, strings.Repeat("x", 200))
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Config.ErrorLog = quiet()
	s.Start()
	defer s.Close()
	c := newClient(t, Options{MaxResponse: 100})
	for _, path := range []string{"/", "/long", "/", "/long"} {
		if _, err := c.Do(t.Context(), post(t, s.URL+path)); err != nil {
			t.Fatal(err)
		}
	}
	if got := opened.Load(); got != 1 {
		t.Errorf("got %d connections want 1", got)
	}
}

func TestClientsShareNothing(t *testing.T) {
	a, b := New(Options{}), New(Options{})
	if a.transport == b.transport || http.RoundTripper(a.transport) == http.DefaultTransport {
		t.Error("clients share a transport")
	}
}

func BenchmarkDo(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"accepted":100}`)
	}))
	defer s.Close()
	c := New(Options{})
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		req, _ := http.NewRequest(http.MethodPost, s.URL+"/api/v1/events/batch", strings.NewReader("body"))
		if _, err := c.Do(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}
