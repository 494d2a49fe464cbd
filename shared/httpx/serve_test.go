package httpx

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// start serves h until the returned function is called, which gives what Serve returned.
func start(t *testing.T, s Server) (url string, stop context.CancelFunc, result <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(cancel)
	return "http://" + l.Addr().String(), cancel, done
}

func TestServeDrains(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	url, stop, result := start(t, Server{Grace: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		if err := r.Context().Err(); err != nil {
			t.Errorf("the drain ended the request's context: %v", err)
		}
		_, _ = io.WriteString(w, "done")
	})})
	type reply struct {
		body   string
		closed bool
		err    error
	}
	replies := make(chan reply, 1)
	go func() {
		r, err := http.Get(url)
		if err != nil {
			replies <- reply{err: err}
			return
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		replies <- reply{string(b), r.Close, err}
	}()
	<-entered
	stop()
	for { // until the listener is closed
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			break
		}
		c.Close()
	}
	select {
	case err := <-result:
		t.Fatalf("Serve returned %v while a request ran", err)
	default:
	}
	close(release)
	if got := <-replies; got.err != nil || got.body != "done" || !got.closed {
		t.Errorf("got %+v want the whole answer and the connection closed", got)
	}
	if err := <-result; err != nil {
		t.Errorf("got %v want a clean drain", err)
	}
}

func TestServeCutsWhatOutlivesGrace(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan struct{})
	url, stop, result := start(t, Server{Grace: 20 * time.Millisecond, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(ended)
	})})
	failed := make(chan error, 1)
	go func() {
		r, err := http.Get(url)
		if err == nil {
			r.Body.Close()
		}
		failed <- err
	}()
	<-entered
	stop()
	if err := <-result; err == nil || !strings.Contains(err.Error(), "1 requests still ran after 20ms and were cut") {
		t.Errorf("got %v want an error that says how many were cut", err)
	}
	<-ended
	if err := <-failed; err == nil {
		t.Error("the client got an answer from a request that was cut")
	}
}

func TestServeIgnoresConnectionsWithoutRequest(t *testing.T) {
	url, stop, result := start(t, Server{Grace: 20 * time.Millisecond, Handler: http.NotFoundHandler()})
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop()
	if err := <-result; err != nil {
		t.Errorf("got %v want nil: no request was lost", err)
	}
}

func TestServeSaysWhyTheListenerFailed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(t.Context(), l, http.NotFoundHandler(), 0); err == nil || !strings.Contains(err.Error(), "serving on 127.0.0.1:") {
		t.Errorf("got %v want an error that names the address", err)
	}
}

func TestServeEndsSlowClients(t *testing.T) {
	const short = 20 * time.Millisecond
	for name, c := range map[string]struct {
		limit      Server // what is not in it is generous: a client that stalls before it sends is none of these
		send, want string
	}{
		"header":     {Server{HeaderTimeout: short}, "GET / HTTP/1.1\r\nHost: x\r\n", ""},
		"body":       {Server{ReadTimeout: short, HeaderTimeout: time.Minute}, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", "408"},
		"idle":       {Server{IdleTimeout: short}, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200"},
		"big header": {Server{MaxHeaderBytes: 1 << 10}, "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 6<<10) + "\r\n\r\n", "431"},
	} {
		s := c.limit
		s.Log = slog.New(slog.DiscardHandler)
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				w.WriteHeader(http.StatusRequestTimeout)
			}
		})
		url, stop, result := start(t, s)
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.send)
		got, _ := io.ReadAll(conn) // returns because the server closes the connection
		conn.Close()
		if status, _, _ := strings.Cut(strings.TrimPrefix(string(got), "HTTP/1.1 "), " "); status != c.want {
			t.Errorf("%s: got %q want status %q", name, got, c.want)
		}
		stop()
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
}

func TestServeEndsClientsThatDoNotRead(t *testing.T) {
	url, stop, result := start(t, Server{Grace: time.Minute, WriteTimeout: 20 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for err := error(nil); err == nil; {
			_, err = w.Write(make([]byte, 1<<20))
		}
	})})
	for deadline := time.Now().Add(30 * time.Second); ; { // where the server stalls it writes nothing in its time
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil { // only its header
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v want the server to have closed the connection", err)
		}
		break
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestServeLogs(t *testing.T) {
	var b bytes.Buffer
	url, stop, result := start(t, Server{
		Log: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/panic":
				panic("oh no")
			case "/abort":
				panic(http.ErrAbortHandler)
			case "/twice":
				w.WriteHeader(http.StatusOK)
				w.WriteHeader(http.StatusOK)
			}
		}),
	})
	for path, fails := range map[string]bool{"/panic": true, "/abort": true, "/twice": false} {
		r, err := http.Post(url+path, "", nil)
		if err == nil {
			r.Body.Close()
		}
		if (err != nil) != fails {
			t.Errorf("%s: got %v want an error: %v", path, err, fails)
		}
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
	got := b.String()
	if strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, `panic="oh no"`) || !strings.Contains(got, "serve_test.go") {
		t.Errorf("got %q want one error with the panic and its stack", got)
	}
	if !strings.Contains(got, `level=DEBUG msg="http: superfluous`) {
		t.Errorf("got %q want net/http's complaint at level debug", got)
	}
}
