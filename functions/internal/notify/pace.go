package notify

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/outcome"
)

// longestWait is how long an alert waits for the rate here; beyond it waits in Pub/Sub.
const longestWait = time.Second

// pace is the rate of calls. The zero value lets everything through.
type pace struct{ limiter *rate.Limiter }

func newPace(r Rate) pace {
	if r.PerMinute <= 0 {
		return pace{}
	}
	return pace{rate.NewLimiter(rate.Limit(r.PerMinute/60), max(r.Burst, 1))}
}

// first reports whether the first message of an incident may go out. A critical one always may; it is charged, so that
// others wait for it, but not beyond a burst of debt.
func (p pace) first(now time.Time, s event.Severity) bool {
	if p.limiter == nil {
		return true
	}
	if s < event.Critical {
		return p.limiter.AllowN(now, 1)
	}
	p.charge(now)
	return true
}

// charge counts a call that is made anyway.
func (p pace) charge(now time.Time) {
	if p.limiter != nil && p.limiter.TokensAt(now) > -float64(p.limiter.Burst()) {
		p.limiter.ReserveN(now, 1)
	}
}

// later reports whether news of a known incident may go out: half of a burst is left to new ones.
func (p pace) later(now time.Time, s event.Severity) bool {
	if p.limiter == nil {
		return true
	}
	if s < event.Critical && p.limiter.TokensAt(now) < float64(p.limiter.Burst())/2 {
		return false
	}
	return p.first(now, s)
}

// wait waits until a call may be made, or says when.
func (p pace) wait(ctx context.Context, s event.Severity) *outcome.Error {
	now := time.Now()
	if p.limiter == nil {
		return nil
	}
	if s == event.Critical {
		p.charge(now)
		return nil
	}
	turn := p.limiter.ReserveN(now, 1)
	delay := turn.DelayFrom(now)
	if delay <= 0 {
		return nil
	}
	if delay > longestWait {
		turn.CancelAt(now)
		return &outcome.Error{Class: outcome.Retry, Status: http.StatusTooManyRequests, After: delay, Reason: "beyond the integration's rate"}
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		turn.Cancel()
		return &outcome.Error{Class: outcome.Retry, Reason: "no time left to wait for the integration's rate", Err: ctx.Err()}
	}
}
