package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// A limit tells so many message texts apart, by so many bytes of each; those beyond share one turn.
const (
	maxMessages = 1024
	maxText     = 256
)

// Limit returns a handler that lets a message pass to h once in every, and says with it how many like it were held
// back in between, as the attribute "suppressed". Messages are alike when level and text are; attributes do not count.
// What is held back after the last one that passed is told when the message comes again.
func Limit(h slog.Handler, every time.Duration) slog.Handler {
	return &limiter{h, &turns{every: every, said: make(map[message]*said)}}
}

type limiter struct {
	slog.Handler
	turns *turns
}

// Handle implements [slog.Handler].
func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	now := r.Time
	if now.IsZero() {
		now = time.Now()
	}
	pass, held := l.turns.take(r.Level, r.Message, now)
	if !pass {
		return nil
	}
	if held > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", held))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limiter{l.Handler.WithAttrs(attrs), l.turns}
}

// WithGroup implements [slog.Handler].
func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{l.Handler.WithGroup(name), l.turns}
}

type message struct {
	level slog.Level
	text  string
}

type said struct {
	at   time.Time
	held int
}

type turns struct {
	every time.Duration

	mu    sync.Mutex
	said  map[message]*said
	swept time.Time // when forget ran last
}

// take reports whether a message may pass at now, and if so how many were held back since the last one.
func (t *turns) take(level slog.Level, text string, now time.Time) (pass bool, held int) {
	if len(text) > maxText {
		text = strings.Clone(text[:maxText])
	}
	m := message{level, text}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.said[m]
	if s == nil && len(t.said) >= maxMessages {
		if now.Sub(t.swept) >= t.every {
			t.swept = now
			t.forget(now)
		}
		if len(t.said) >= maxMessages {
			m = message{}
			s = t.said[m]
		}
	}
	if s == nil {
		s = new(said)
		t.said[m] = s
	} else if now.Sub(s.at) < t.every {
		s.held++
		return false, 0
	}
	held = s.held
	*s = said{at: now}
	return true, held
}

// forget drops the texts whose turn has come. What was held back of them goes to the shared turn.
func (t *turns) forget(now time.Time) {
	rest := &said{}
	if s := t.said[message{}]; s != nil {
		rest = s
	}
	for m, s := range t.said {
		if s != rest && now.Sub(s.at) >= t.every {
			rest.held += s.held
			delete(t.said, m)
		}
	}
	t.said[message{}] = rest
}
