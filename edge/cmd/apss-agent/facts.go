package main

import (
	"log/slog"
	"sync"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/edge/internal/tier"
)

// lookEvery is how long a heartbeat trusts the last look at what may be seen, at least, and at least lookShare times as
// long as that took: where there are few processes and more may come to be seen, a look is cheap. Of 300 processes it
// takes some 20 ms.
const (
	lookEvery = time.Minute
	lookShare = 10_000
)

// facts are what heartbeats say of the agent's place, as it is then: a sidecar begins before the application that it is
// there to watch, and a mechanism that worked at the start may end.
type facts struct {
	processes func() process.Stats
	look      func() (tier.View, error)
	moved     func(tier.View) // is told when rules may be covered otherwise than before
	log       *slog.Logger

	mu     sync.Mutex
	report report
	looked time.Time
	took   time.Duration
}

// now returns the facts for a heartbeat.
func (f *facts) now() map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) >= max(lookEvery, lookShare*f.took) {
		v, err := f.look()
		f.looked, f.took = now, time.Since(now)
		if err != nil {
			f.log.Warn("what may be seen here is not known any more; the heartbeats keep what was", "error", err)
		} else {
			f.see(v)
		}
	}
	r := f.report
	r.Mechanisms = atWork(r.Mechanisms, f.processes())
	return r.facts()
}

func (f *facts) see(v tier.View) {
	before, mixed := f.report.Tier, f.report.View.Mixed()
	f.report.View, f.report.Tier, f.report.WhyNotMore = v, v.Tier(), v.Reasons()
	if f.report.Tier != before {
		f.log.Info("the agent sees more or less than before", "tier", f.report.Tier, "tier_before", before, "why_not_more", f.report.WhyNotMore)
	}
	if f.report.Tier != before || v.Mixed() != mixed {
		f.moved(v)
	}
}

// atWork corrects what was found at the start by what the sensor of processes does now.
func atWork(all []mechanism, st process.Stats) []mechanism {
	if st.Scans == 0 {
		return all // it has not begun
	}
	out := make([]mechanism, len(all))
	for i, m := range all {
		why, ended := st.Refused[m.Name]
		switch {
		case m.Sensor != "process":
		case m.Name == st.Mechanism:
			m.State = inUse
		case ended && m.State != refused:
			m.State, m.Detail = refused, why
		case m.State == inUse:
			m.State = available
		}
		out[i] = m
	}
	return out
}
