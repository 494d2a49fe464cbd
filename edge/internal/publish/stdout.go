package publish

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Stdout writes NDJSON, one event or alert a line: for a person, and for pipes.
type Stdout struct {
	mu     sync.Mutex
	w      io.Writer
	closed bool
}

// NewStdout returns a publisher that writes to w; w is not closed. A message is confirmed when w took all of it. The
// program must ignore SIGPIPE, or dies of it where a broken pipe ought to be [ErrGone].
func NewStdout(w io.Writer) *Stdout { return &Stdout{w: w} }

// Publish writes m's events, or its alert, with one write: lines of two messages do not mix.
func (p *Stdout) Publish(ctx context.Context, m envelope.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var lines []byte
	switch typeOf(m) {
	case envelope.TypeEvents:
		events, err := m.Events(nil)
		for _, e := range events {
			lines = append(append(lines, e...), '\n')
		}
		if err != nil && len(events) == 0 {
			return &outcome.Error{Class: outcome.Permanent, Reason: "a message that cannot be opened", Err: err}
		}
	case envelope.TypeAlert:
		lines = append(append(lines, m.Data...), '\n')
	default:
		return unknownType(m)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return &outcome.Error{Class: outcome.Retry, Reason: "writing", Err: ErrClosed}
	}
	_, err := p.w.Write(lines)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		err = errors.Join(ErrGone, err)
	}
	if err != nil {
		return &outcome.Error{Class: outcome.Retry, Reason: "writing", Err: err}
	}
	return nil
}

// Close ends the publisher.
func (p *Stdout) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}
