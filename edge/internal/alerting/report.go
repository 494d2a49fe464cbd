package alerting

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// counters count matches by the rules' ids, through reloads.
type counters struct {
	mu    sync.Mutex
	byID  map[string]*atomic.Int64
	other atomic.Int64
}

// maxCounted bounds the ids that are counted by themselves; the rest are counted together. A metric's label with more
// values costs more than it tells.
const maxCounted = 1000

// of returns the counter of a rule.
func (c *counters) of(id string) *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.byID[id]
	switch {
	case n != nil:
		return n
	case len(c.byID) >= maxCounted:
		return &c.other
	}
	n = new(atomic.Int64)
	c.byID[id] = n
	return n
}

// each hands out the counters that are not zero, in the order of their ids.
func (c *counters) each(see func(id string, n int64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(c.byID)) {
		if n := c.byID[id].Load(); n > 0 {
			see(id, n)
		}
	}
	if n := c.other.Load(); n > 0 {
		see("other", n)
	}
}

// Coverage returns how much of the rules in force can work here. It must not be changed.
func (g *Engine) Coverage() Coverage { return g.book.Load().coverage }

// Summary is the engine for a heartbeat.
func (g *Engine) Summary() map[string]any {
	b, s := g.book.Load(), g.suppressor.Stats()
	matches := int64(0)
	g.counters.each(func(_ string, n int64) { matches += n })
	taken, refused, problems := g.library.news.read()
	current := len(problems) == 0
	if current {
		problems = b.problems
	}
	correlation := b.correlation.stats()
	return map[string]any{
		"coverage": b.coverage, "filters": b.filters, "matches": matches,
		"alerts": s.Passed, "suppressed": s.Suppressed, "summaries": s.Summaries, "windows": s.Open, "windows_evicted": s.Evicted,
		"correlation_groups": correlation.Groups, "correlation_evicted": correlation.Evicted,
		"folders": g.config.Dirs, "loaded": taken, "loaded_at": b.loaded.UTC(), "refused": refused,
		// up_to_date is false while the folders hold something that was refused.
		"up_to_date": current, "problem_count": len(problems), "problems": problems[:min(len(problems), maxListed)],
	}
}

// register makes the metrics. All but the time are read from counters when somebody asks.
func (g *Engine) register(meter metric.Meter) error {
	var errs []error
	counter := func(name, help, unit string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter("apss.agent."+name, metric.WithDescription(help), metric.WithUnit(unit))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, help, unit string) metric.Int64ObservableGauge {
		c, err := meter.Int64ObservableGauge("apss.agent."+name, metric.WithDescription(help), metric.WithUnit(unit))
		errs = append(errs, err)
		return c
	}
	var (
		rules      = gauge("rules", "rules in force, by how much of them can work here", "{rule}")
		problems   = gauge("rules.problems", "faults of rules and folders that are left out or refused", "{fault}")
		loads      = counter("rules.loads", "times the rules were read, by result", "{load}")
		matches    = counter("rules.matches", "matches, by rule", "{match}")
		suppressed = counter("alerts.suppressed", "alerts that were held back as repeats", "{alert}")
		summaries  = counter("alerts.summaries", "alerts that told how many were held back", "{alert}")
		evicted    = counter("alerts.windows.evicted", "windows of repeats that closed early for want of room", "{window}")
		windows    = gauge("alerts.windows", "windows of repeats that are open", "{window}")
		groups     = gauge("correlation.groups", "groups that correlation rules keep", "{group}")
		forgotten  = counter("correlation.evicted", "groups that correlation rules had to forget", "{group}")
		err        error
	)
	g.took, err = meter.Float64Histogram("apss.agent.rules.duration", metric.WithUnit("s"),
		metric.WithDescription("time to evaluate the rules on an event, of one event in 64"),
		metric.WithExplicitBucketBoundaries(.5e-6, 1e-6, 2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 1e-3, 10e-3))
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	coverage := func(s string) metric.MeasurementOption { return metric.WithAttributes(attribute.String("coverage", s)) }
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		b, s := g.book.Load(), g.suppressor.Stats()
		o.ObserveInt64(rules, int64(b.coverage.Live), coverage("live"))
		o.ObserveInt64(rules, int64(b.coverage.Degraded), coverage("degraded"))
		o.ObserveInt64(rules, int64(b.coverage.Blind), coverage("blind"))
		taken, refused, faults := g.library.news.read()
		o.ObserveInt64(problems, int64(len(b.problems)+len(faults)))
		o.ObserveInt64(loads, taken, metric.WithAttributes(attribute.String("result", "taken")))
		o.ObserveInt64(loads, refused, metric.WithAttributes(attribute.String("result", "refused")))
		g.counters.each(func(id string, n int64) {
			o.ObserveInt64(matches, n, metric.WithAttributes(attribute.String("rule", id)))
		})
		o.ObserveInt64(suppressed, int64(s.Suppressed))
		o.ObserveInt64(summaries, int64(s.Summaries))
		o.ObserveInt64(evicted, int64(s.Evicted))
		o.ObserveInt64(windows, int64(s.Open))
		correlation := b.correlation.stats()
		o.ObserveInt64(groups, int64(correlation.Groups))
		o.ObserveInt64(forgotten, int64(correlation.Evicted))
		return nil
	}, rules, problems, loads, matches, suppressed, summaries, evicted, windows, groups, forgotten)
	return err
}
