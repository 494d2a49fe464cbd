package httpx

import (
	"context"
	"sync"

	"github.com/apss-sensor/apss/shared/secret"
)

// Heard is the last answer to a request that was made in its context. Safe for concurrent use.
type Heard struct {
	mu   sync.Mutex
	last *Response
	hide []secret.Value
}

type heardKey struct{}

// Listen returns a context in which the last answer is kept, for who wants to know what a receiver said to a call whose
// result is only whether it failed.
func Listen(ctx context.Context) (context.Context, *Heard) {
	h := new(Heard)
	return context.WithValue(ctx, heardKey{}, h), h
}

// Hide keeps secrets, which a request in ctx may have in its body, out of what is shown of its answer.
func Hide(ctx context.Context, secrets ...secret.Value) {
	if h, ok := ctx.Value(heardKey{}).(*Heard); ok {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hide = append(h.hide, secrets...)
	}
}

// Last returns the status, 0 when nothing was answered, and what of the body may be shown: see [Response.Excerpt].
func (h *Heard) Last() (status int, excerpt string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		return 0, ""
	}
	return h.last.Status, h.last.Excerpt(h.last.Body, h.hide...)
}

func (r *Response) note(ctx context.Context) {
	if h, ok := ctx.Value(heardKey{}).(*Heard); ok {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.last = r
	}
}
