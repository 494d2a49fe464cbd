package notify

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// call makes one call to the receiver, when its turn has come and the breaker lets it: it reports whether it was made, and
// what came of it, nil when the message with the id was accepted.
func (n *Notify) call(ctx context.Context, k kind, s event.Severity, id string, f func(context.Context) error) (made bool, result *outcome.Error) {
	var said *outcome.Error // of all that was sent: email may be accepted for some of its recipients
	if err := n.gate.enter(ctx, s); err != nil {
		return false, &outcome.Error{Class: outcome.Retry, Reason: "no time left for a call", Err: err}
	}
	defer n.gate.leave()
	begin := time.Now()
	pass, stop := n.breaker.Begin(begin)
	if stop != nil {
		return false, stop
	}
	ctx, span := n.cfg.Tracer.Start(ctx, "notify "+n.cfg.Name, trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	defer func() {
		if r := recover(); r != nil {
			// The same alert would do it again.
			n.cfg.Log.ErrorContext(ctx, "the integration panicked", "integration", n.cfg.Name, "panic", r, "stack", string(debug.Stack()))
			result = &outcome.Error{Class: outcome.Permanent, Reason: "the integration panicked"}
			said = result
		}
		n.metrics.call(ctx, k, said, time.Since(begin))
		if result == nil {
			n.metrics.messages.Add(1)
		}
		if pause := pass.End(time.Now(), result, 1); pause > 0 {
			n.metrics.pauses.Add(ctx, 1, n.metrics.attributes)
			n.cfg.Log.WarnContext(ctx, "the receiver is not called for a while", "integration", n.cfg.Name, "for", pause.String(),
				"status", result.Status, "cause", result.Error(), "state", n.breaker.Status(time.Now()).Reason)
		}
	}()
	said = outcome.From(f(ctx))
	return true, single(said, id)
}

// single is e for one item: nil when it was accepted.
func single(e *outcome.Error, id string) *outcome.Error {
	switch {
	case e == nil || e.Class == outcome.OK:
		return nil
	case e.Class == outcome.Partial:
		i := slices.IndexFunc(e.Rejected, func(r outcome.Rejection) bool { return r.ID == id })
		if i < 0 {
			return nil
		}
		return &outcome.Error{Class: outcome.Permanent, Status: e.Status, Reason: e.Rejected[i].Reason, Err: e.Err}
	case e.Class == outcome.Split: // one cannot be split
		refused := *e
		refused.Class = outcome.Permanent
		return &refused
	}
	return e
}
