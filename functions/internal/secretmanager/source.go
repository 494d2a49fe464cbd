package secretmanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/shared/secret"
)

// source is one version of one secret.
type source struct {
	name  string
	log   *slog.Logger
	start func(func(context.Context)) bool
	fetch func(context.Context) (secret.Value, error)

	mu      sync.Mutex
	last    secret.Value
	read    time.Time // when last was read
	next    time.Time // when to read again
	err     error     // of the last read, nil when it was good
	refused bool      // a receiver refused last, and no read has begun since
	forced  time.Time // when refused was set last
	flight  *flight   // the read under way, or nil
}

// flight is one read.
type flight struct {
	done   chan struct{}
	forced bool // it answers a refusal: those who ask wait for it
}

// Get returns the secret. It waits for a read only where there is no value to go on with, or where the last one was
// refused.
func (s *source) Get(ctx context.Context) (secret.Value, error) {
	for {
		v, f, err := s.look(time.Now())
		if f == nil {
			return v, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return secret.Value{}, fmt.Errorf("reading the secret %s: %w", s.name, ctx.Err())
		}
	}
}

// Refresh makes the next Get read the secret anew, at most every half minute: a receiver that refuses every call must not
// become a call to Secret Manager for each.
func (s *source) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.forced) >= refreshGap {
		s.refused, s.forced = true, now
	}
}

// look returns the value or why there is none, or the read to wait for. It begins a read when it is time for one.
func (s *source) look(now time.Time) (secret.Value, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil && (s.refused || !now.Before(s.next)) {
		s.begin()
	}
	usable := !s.last.Empty() && now.Sub(s.read) <= standing(s.err)
	waits := s.flight != nil && (!usable || s.refused || s.flight.forced)
	switch {
	case waits:
		return secret.Value{}, s.flight, nil
	case usable:
		return s.last, nil, nil
	case s.err == nil: // the manager is closed
		return secret.Value{}, nil, fmt.Errorf("reading the secret %s: the program is ending", s.name)
	default:
		return secret.Value{}, nil, s.err
	}
}

// begin starts a read. s is locked.
func (s *source) begin() {
	f := &flight{done: make(chan struct{}), forced: s.refused}
	if !s.start(func(ctx context.Context) { s.finish(ctx, f) }) {
		s.refused = false // there will be no read to wait for
		return
	}
	s.flight, s.refused = f, false
}

// finish reads the secret and keeps what came of it.
func (s *source) finish(ctx context.Context, f *flight) {
	v, err := s.fetch(ctx)
	if err != nil {
		err = fmt.Errorf("reading the secret %s: %w%s", s.name, err, advice(err))
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	s.flight = nil
	pause := lifetime
	switch {
	case err == nil:
		if !s.last.Empty() && !v.Equal(s.last) {
			s.log.InfoContext(ctx, "a secret has changed", "secret", s.name)
		}
		s.last, s.read = v, now
	case s.last.Empty() || now.Sub(s.read) > standing(err): // whoever asks gets the error
		pause = retryNone
	default:
		pause = retryStale
		s.log.WarnContext(ctx, "a secret cannot be read; its last value stands", "secret", s.name,
			"age", now.Sub(s.read).Round(time.Second).String(), "until", s.read.Add(standing(err)), "error", err.Error())
	}
	s.err = err
	s.next = now.Add(pause - pause/5 + rand.N(2*pause/5)) //nolint:gosec // spreading load needs no secrecy
}

// standing is how old a value may be that stands although reading came to err.
func standing(err error) time.Duration {
	switch code(err) {
	case codes.NotFound, codes.PermissionDenied, codes.FailedPrecondition, codes.InvalidArgument:
		return staleDenied
	default:
		return staleDown
	}
}

// advice says what to do about err. The codes are those of the service,
// https://cloud.google.com/secret-manager/docs/reference/rpc/google.cloud.secretmanager.v1#secretmanagerservice.
func advice(err error) string {
	switch code(err) {
	case codes.NotFound:
		return "; is the project, the name and the version right?"
	case codes.PermissionDenied:
		return "; grant roles/secretmanager.secretAccessor on it to the function's service account"
	case codes.FailedPrecondition:
		return "; the version is disabled or destroyed, enable it or name another one"
	default:
		return ""
	}
}

// code is the gRPC code that err carries.
func code(err error) codes.Code {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Code()
	}
	return codes.Unknown
}
