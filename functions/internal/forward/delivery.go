package forward

import (
	"context"
	"fmt"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// maxCalls ends the bisecting of one flush. Finding one refused event among n takes at most 2 log2(n) + 1 calls, 21 of
// 1,000 events; what is not decided by then goes on at the next delivery.
const maxCalls = 128

// fate is what became of one event.
type fate = byte

const (
	pending  fate = iota // not accepted, not refused: to be delivered again
	accepted             // by the receiver
	refused              // never to be accepted: for the dead letters
)

// refusal says why an event is refused.
type refusal struct {
	index  int
	status int
	reason string
}

// span is a range of events, for one call.
type span struct {
	lo, hi int
	// first: the span below on the stack is its other half, and both together were refused for their content. When this
	// one is accepted the other one holds what is refused.
	first bool
	// doomed: it is known to be refused whole, asking would waste a call.
	doomed bool
}

// delivery takes events to the receiver until each is accepted or refused, or stop says why no further call is made.
type delivery struct {
	events []event.Raw
	send   func(context.Context, []event.Raw) *outcome.Error // nil when all were accepted
	may    func() *outcome.Error                             // why no call may be made now, or nil

	fates    []fate
	refusals []refusal
	unknown  int // ids that the receiver rejected and that were not sent
	calls    int
	stop     *outcome.Error
	todo     []span // a stack
}

// run decides the events' fates, in calls of at most maxEvents and maxBytes. When it returns and stop is nil, no event
// is pending.
func (d *delivery) run(ctx context.Context, maxEvents, maxBytes int) {
	d.fates = make([]fate, len(d.events))
	d.todo = cut(d.events, maxEvents, maxBytes)
	for len(d.todo) > 0 {
		if d.stop = d.halt(ctx); d.stop != nil {
			return
		}
		s := d.todo[len(d.todo)-1]
		d.todo = d.todo[:len(d.todo)-1]
		if s.doomed && s.hi-s.lo > 1 {
			d.halve(s, true)
			continue
		}
		d.calls++
		d.apply(s, d.send(ctx, d.events[s.lo:s.hi]))
		if d.stop != nil {
			return
		}
	}
}

// halt says why the next call is not made.
func (d *delivery) halt(ctx context.Context) *outcome.Error {
	if err := ctx.Err(); err != nil {
		return &outcome.Error{Class: outcome.Retry, Reason: "no time left for another call", Err: err}
	}
	if d.calls >= maxCalls {
		return &outcome.Error{Class: outcome.Retry, Reason: fmt.Sprintf("not decided after %d calls; goes on at the next delivery", maxCalls)}
	}
	return d.may()
}

// apply notes what a call with the events of s came to.
func (d *delivery) apply(s span, e *outcome.Error) {
	class := outcome.OK
	if e != nil {
		class = e.Class
	}
	switch class {
	case outcome.OK:
		d.mark(s, accepted)
		if s.first {
			d.todo[len(d.todo)-1].doomed = true
		}
	case outcome.Partial:
		d.mark(s, accepted)
		d.reject(s, e)
	case outcome.Split:
		if s.hi-s.lo > 1 {
			d.halve(s, e.Status != statusTooLarge)
			return
		}
		d.refuse(s, e)
	case outcome.Permanent:
		d.refuse(s, e)
	case outcome.Retry, outcome.Auth:
		d.stop = e
	default:
		d.stop = &outcome.Error{Class: outcome.Retry, Status: e.Status, Reason: "unknown outcome: " + e.Reason, Err: e.Err}
	}
}

// statusTooLarge is 413: each half of what is too large may pass.
const statusTooLarge = 413

// halve puts both halves of s on the stack, the first one on top.
func (d *delivery) halve(s span, content bool) {
	mid := s.lo + (s.hi-s.lo)/2
	d.todo = append(d.todo, span{lo: mid, hi: s.hi}, span{lo: s.lo, hi: mid, first: content})
}

func (d *delivery) mark(s span, f fate) {
	for i := s.lo; i < s.hi; i++ {
		d.fates[i] = f
	}
}

// refuse gives up all of s.
func (d *delivery) refuse(s span, e *outcome.Error) {
	d.mark(s, refused)
	for i := s.lo; i < s.hi; i++ {
		d.refusals = append(d.refusals, refusal{i, e.Status, e.Reason})
	}
}

// reject gives up those of s that e names.
func (d *delivery) reject(s span, e *outcome.Error) {
	reasons := make(map[string]string, len(e.Rejected))
	for _, r := range e.Rejected {
		reasons[r.ID] = r.Reason
	}
	known := make(map[string]bool, len(reasons))
	for i := s.lo; i < s.hi; i++ {
		id, err := d.events[i].ID()
		if err != nil {
			continue
		}
		if reason, ok := reasons[id]; ok {
			known[id] = true
			d.fates[i] = refused
			d.refusals = append(d.refusals, refusal{i, e.Status, reason})
		}
	}
	d.unknown += len(reasons) - len(known)
}

// cut divides events into spans within the limits, the first on top of the stack. An event above maxBytes has its own.
func cut(events []event.Raw, maxEvents, maxBytes int) []span {
	var spans []span
	hi, size := len(events), 0
	for i := len(events) - 1; i >= 0; i-- {
		if hi-i > maxEvents || (size+len(events[i]) > maxBytes && i+1 < hi) {
			spans = append(spans, span{lo: i + 1, hi: hi})
			hi, size = i+1, 0
		}
		size += len(events[i])
	}
	if hi > 0 {
		spans = append(spans, span{lo: 0, hi: hi})
	}
	return spans
}
