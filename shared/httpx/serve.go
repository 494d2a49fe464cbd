package httpx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Server serves with timeouts and drains. Zero timeouts take the defaults named beside them.
type Server struct {
	Handler http.Handler
	// Grace is how long requests that run when the context ends may go on. 0 cuts them at once.
	Grace time.Duration

	HeaderTimeout time.Duration // to read a request's header: 5 s
	ReadTimeout   time.Duration // to read a whole request: 30 s
	WriteTimeout  time.Duration // from the end of the header to the end of the answer: 30 s
	// IdleTimeout is longer than clients keep idle connections (90 s in Go), so that they and not we close one, and no
	// request meets a closing connection: 120 s.
	IdleTimeout    time.Duration
	MaxHeaderBytes int // 64 KiB

	// Log gets a handler's panic as an error, and at level debug what net/http finds wrong with clients, which anyone
	// who reaches the port can cause. Without it net/http prints both to standard error.
	Log *slog.Logger
}

// Serve serves h on l with timeouts until ctx ends, then drains for at most grace. It returns nil after a clean drain.
func Serve(ctx context.Context, l net.Listener, h http.Handler, grace time.Duration) error {
	return Server{Handler: h, Grace: grace}.Serve(ctx, l)
}

// Serve serves on l until ctx ends or l fails, then drains: connections without a request are closed, requests that
// run go on for at most Grace with their contexts alive. It returns nil when all of them ended by themselves. The
// others are cut, their contexts cancelled, and the error says how many; a handler that ignores its context outlives
// Serve. L is closed in any case.
func (s Server) Serve(ctx context.Context, l net.Listener) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running atomic.Int64
	server := &http.Server{
		Handler:           s.guard(&running),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: cmp.Or(s.HeaderTimeout, 5*time.Second),
		ReadTimeout:       cmp.Or(s.ReadTimeout, 30*time.Second),
		WriteTimeout:      cmp.Or(s.WriteTimeout, 30*time.Second),
		IdleTimeout:       cmp.Or(s.IdleTimeout, 120*time.Second),
		MaxHeaderBytes:    cmp.Or(s.MaxHeaderBytes, 64<<10),
	}
	if s.Log != nil {
		server.ErrorLog = slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)
	}
	var failed error
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed = fmt.Errorf("serving on %s: %w", l.Addr(), err)
		}
	}()
	select {
	case <-ctx.Done():
	case <-served:
	}
	grace, cancel := context.WithTimeout(base, s.Grace)
	defer cancel()
	err := server.Shutdown(grace)
	<-served
	if err == nil {
		return failed
	}
	left := running.Load()
	// Connections first: a handler that returns because its context ended would otherwise send a 200.
	_ = server.Close()
	cut()
	if left > 0 {
		failed = errors.Join(failed, fmt.Errorf("draining: %d requests still ran after %s and were cut", left, s.Grace))
	}
	return failed
}

// guard counts the requests that run and logs panics.
func (s Server) guard(running *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		if s.Log != nil {
			defer func() {
				if p := recover(); p != nil {
					if p != http.ErrAbortHandler { //nolint:errorlint // net/http compares likewise: the value is a signal
						s.Log.ErrorContext(r.Context(), "a handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
					}
					panic(http.ErrAbortHandler) // closes the connection: the client must not take what came so far for whole
				}
			}()
		}
		s.Handler.ServeHTTP(w, r)
	})
}
