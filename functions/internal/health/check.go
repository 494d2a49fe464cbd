package health

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/outcome"
)

// checkRecord is what the last check of an integration came to.
type checkRecord struct {
	At       time.Time     `json:"at"`
	OK       bool          `json:"ok"`
	Latency  time.Duration `json:"latency"`
	Detail   string        `json:"detail,omitempty"`
	Class    string        `json:"class,omitempty"` // of the failure
	HTTP     int           `json:"http,omitempty"`
	Error    string        `json:"error,omitempty"`
	Failures int           `json:"failures,omitempty"` // in a row
	LastOK   time.Time     `json:"last_ok,omitzero"`
}

// Check asks every enabled integration at the same time, each within its deadline, and writes down what they say.
func (h *Health) Check(ctx context.Context) error {
	errs := make([]error, len(h.cfg.Instances))
	var wg sync.WaitGroup
	for i, in := range h.cfg.Instances {
		if in.Enabled && in.To != nil {
			wg.Go(func() { errs[i] = h.check(ctx, in) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (h *Health) check(ctx context.Context, in Instance) error {
	begin := time.Now()
	status, err := ask(ctx, in.To, h.cfg.Timeout)
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // ours, not the receiver's
	}
	now := time.Now()
	c := checkRecord{At: now, OK: err == nil, Latency: status.Latency, Detail: clip(status.Detail)}
	if c.Latency == 0 {
		c.Latency = now.Sub(begin)
	}
	if e := outcome.From(err); e != nil {
		c.Class, c.HTTP, c.Error = e.Class.String(), e.Status, clip(e.Error())
	}
	h.metrics.check(ctx, in.Name, c)
	var before checkRecord
	err = change(ctx, h.cfg.State, checks, in.Name, func(r *checkRecord) error {
		before = *r
		c.Failures, c.LastOK = 0, r.LastOK
		if c.OK {
			c.LastOK = now
		} else {
			c.Failures = r.Failures + 1
		}
		*r = c
		return nil
	})
	if before.OK != c.OK || before.At.IsZero() {
		if c.OK {
			h.cfg.Log.InfoContext(ctx, "the receiver answers its check", "integration", in.Name, "latency", c.Latency.String())
		} else {
			h.cfg.Log.WarnContext(ctx, "the receiver does not answer its check", "integration", in.Name, "error", c.Error)
		}
	}
	if err != nil {
		return fmt.Errorf("keeping the check of %s: %w", in.Name, err)
	}
	return nil
}

// ask makes one check. Integrations end soon after their context.
func ask(ctx context.Context, to integration.Integration, timeout time.Duration) (integration.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var status integration.Status
	err := guard(func() (err error) {
		status, err = to.Check(ctx)
		return err
	})
	return status, err
}

// guard turns f's panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &outcome.Error{Class: outcome.Permanent, Reason: "the integration panicked"}
		}
	}()
	return f()
}
