package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// Report is how everything is: the answer of GET /health. Members are added, and never renamed nor removed.
type Report struct {
	Status       Status        `json:"status"` // the worst of all integrations
	Time         time.Time     `json:"time"`
	Version      string        `json:"version"`
	State        StateReport   `json:"state"`
	Integrations []Integration `json:"integrations"` // in the document's order
	Agents       agentSummary  `json:"agents"`
	WaitingError string        `json:"waiting_error,omitempty"` // why it is not known what waits
}

// StateReport is how the memory is that instances share.
type StateReport struct {
	Shared    bool      `json:"shared"` // false: what is said of deliveries is this instance's own
	DownSince time.Time `json:"down_since,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// Integration is how one integration is.
type Integration struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Status  Status   `json:"status"`
	Reasons []string `json:"reasons"` // why it is not healthy, for a person

	Check       *CheckReport     `json:"check,omitempty"` // absent before the first
	LastSuccess time.Time        `json:"last_success,omitzero"`
	LastFailure time.Time        `json:"last_failure,omitzero"`
	LastError   string           `json:"last_error,omitempty"`
	PerHour     int64            `json:"events_per_hour"` // events and alerts that were accepted in the last hour
	Failures    map[string]int64 `json:"failures"`        // calls that failed in the last hour, by class
	DeadLetters int64            `json:"dead_letters"`    // in the last hour
	Waiting     *int64           `json:"waiting"`         // messages in the subscriptions; null: nobody can say here
	WaitingAge  *float64         `json:"waiting_seconds"` // since the oldest of them was published
	Breaker     BreakerReport    `json:"breaker"`
	// Canary is by topic, of an integration that opted in.
	Canary map[string]CanaryReport `json:"canary,omitempty"`
}

// CheckReport is the last check.
type CheckReport struct {
	Time      time.Time `json:"time"`
	OK        bool      `json:"ok"`
	LatencyMS float64   `json:"latency_ms"`
	Detail    string    `json:"detail,omitempty"`
	Error     string    `json:"error,omitempty"`
	HTTP      int       `json:"http_status,omitempty"`
	Failures  int       `json:"failures_in_a_row"`
	LastOK    time.Time `json:"last_ok,omitzero"`
}

// BreakerReport is whether the receiver is called; of several instances' breakers the one with the longest pause.
type BreakerReport struct {
	State     string    `json:"state"` // "closed", "open", "half-open"
	Reason    string    `json:"reason,omitempty"`
	NextRetry time.Time `json:"next_retry,omitzero"`
}

// CanaryReport is the newest canary that came out.
type CanaryReport struct {
	Sent       time.Time `json:"sent,omitzero"`
	AgeSeconds float64   `json:"age_seconds"`  // since it was sent; -1: none came out yet
	WaySeconds float64   `json:"took_seconds"` // from the topic to the receiver
}

// Report says how everything is, from what the state has: nobody is called for it.
func (h *Health) Report(ctx context.Context) (Report, error) {
	now := time.Now()
	r := Report{
		Status: Healthy, Time: now.UTC(), Version: h.cfg.Version, State: h.stateReport(),
		Integrations: make([]Integration, 0, len(h.cfg.Instances)), Agents: h.agents(ctx),
	}
	if !r.State.DownSince.IsZero() {
		r.Status = Warning
	}
	var waiting map[string]Waiting
	waiting, r.WaitingError = h.waiting(ctx)
	sending, err := read[round](ctx, h.cfg.State, schedule, "canaries")
	if err != nil {
		return Report{}, fmt.Errorf("reading the state: %w", err)
	}
	for _, in := range h.cfg.Instances {
		i, err := h.integration(ctx, in, waiting[in.Name], sending.Since, now)
		if err != nil {
			return Report{}, fmt.Errorf("reading the state of %s: %w", in.Name, err)
		}
		if i.Status.rank() > r.Status.rank() {
			r.Status = i.Status
		}
		r.Integrations = append(r.Integrations, i)
	}
	return r, nil
}

func (h *Health) stateReport() (r StateReport) {
	if v, ok := h.cfg.State.(state.Volatile); !ok || !v.Volatile() {
		r.Shared = true
	}
	if d, ok := h.cfg.State.(interface{ Down() (time.Time, error) }); ok {
		if since, cause := d.Down(); !since.IsZero() {
			r.DownSince, r.Reason = since.UTC(), clip(cause.Error())
		}
	}
	return r
}

// waiting is what waits for each integration, and why that is not known, when it is not: a report is made all the same.
func (h *Health) waiting(ctx context.Context) (waiting map[string]Waiting, unread string) {
	if h.cfg.Waiting == nil {
		return nil, ""
	}
	asking, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	waiting, err := h.cfg.Waiting(asking)
	if err != nil {
		unread = clip(err.Error())
	}
	h.mu.Lock()
	news := h.unread != unread
	h.unread = unread
	h.mu.Unlock()
	if news && err != nil {
		h.cfg.Log.WarnContext(ctx, "what waits in the subscriptions is not known", "error", unread)
	}
	return waiting, unread
}

// integration is how one is.
func (h *Health) integration(ctx context.Context, in Instance, waiting Waiting, canarySince, now time.Time) (Integration, error) {
	c, err1 := read[checkRecord](ctx, h.cfg.State, checks, in.Name)
	t, err2 := read[tally](ctx, h.cfg.State, deliveries, in.Name)
	if err := errors.Join(err1, err2); err != nil {
		return Integration{}, err
	}
	f := facts{enabled: in.Enabled, check: c, tally: t, waiting: waiting, canaryEvery: h.cfg.CanaryEvery, canarySince: canarySince}
	hour := t.hour(now)
	i := Integration{
		Name: in.Name, Kind: in.Kind, LastSuccess: t.LastSuccess.UTC(), LastFailure: t.LastFailure.UTC(), LastError: t.LastError,
		PerHour: hour.Accepted, Failures: hour.Failures, DeadLetters: hour.Dead, Breaker: BreakerReport{State: "closed"},
	}
	if waiting.Known {
		age := waiting.Oldest.Seconds()
		i.Waiting, i.WaitingAge = &waiting.Messages, &age
	}
	if !c.At.IsZero() {
		i.Check = &CheckReport{
			Time: c.At.UTC(), OK: c.OK, LatencyMS: milliseconds(c.Latency), Detail: c.Detail, Error: c.Error, HTTP: c.HTTP,
			Failures: c.Failures, LastOK: c.LastOK.UTC(),
		}
	}
	if b, open := t.worst(now); open {
		i.Breaker = BreakerReport{State: b.State, Reason: b.Reason, NextRetry: b.Retry.UTC()}
	}
	if in.Canary && in.Enabled && h.cfg.CanaryEvery > 0 {
		f.canary, i.Canary = map[string]canaryRecord{}, map[string]CanaryReport{}
		for _, w := range in.Ways {
			record, err := read[canaryRecord](ctx, h.cfg.State, canaries, in.Name+" "+w.Topic)
			if err != nil {
				return Integration{}, err
			}
			f.canary[w.Topic] = record
			i.Canary[w.Topic] = record.report(now)
		}
	}
	i.Status, i.Reasons = judge(now, f)
	if i.Reasons == nil {
		i.Reasons = []string{}
	}
	return i, nil
}

func (c canaryRecord) report(now time.Time) CanaryReport {
	if c.Arrived.IsZero() {
		return CanaryReport{AgeSeconds: -1}
	}
	return CanaryReport{Sent: c.Sent.UTC(), AgeSeconds: max(now.Sub(c.Sent), 0).Seconds(), WaySeconds: max(c.Arrived.Sub(c.Sent), 0).Seconds()}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// find returns the instance of a name.
func (h *Health) find(name string) (Instance, error) {
	names := make([]string, 0, len(h.cfg.Instances))
	for _, in := range h.cfg.Instances {
		if in.Name == name {
			return in, nil
		}
		names = append(names, in.Name)
	}
	return Instance{}, fmt.Errorf("there is no integration %.100q; there are: %s", name, strings.Join(names, ", "))
}
