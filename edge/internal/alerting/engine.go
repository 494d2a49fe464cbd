package alerting

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/edge/internal/suppression"
	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/event"
)

// Config says which rules, and how their alerts are told.
type Config struct {
	// Pack says whether the rules that come with the agent are evaluated.
	Pack bool
	// Dirs are folders of rules, each laid over those before.
	Dirs []string
	// Sights are what the agent's sensors see of each kind of process in view, for the coverage, until See is told better.
	Sights []detect.Sight
	// Suppression is for the repeats.
	Suppression suppression.Config
	// Poll is the time between two looks at Dirs that nothing asked for; 30 s when 0.
	Poll   time.Duration
	Meter  metric.Meter
	Logger *slog.Logger // nothing is logged when nil
}

// Engine evaluates rules. Its methods may be called concurrently; Run only once.
type Engine struct {
	config     Config
	log        *slog.Logger
	book       atomic.Pointer[book] // the rules in force
	suppressor *suppression.Suppressor
	wake       chan struct{} // a window has opened
	took       metric.Float64Histogram
	counters   counters
	library    library
}

// New loads the rules and returns the engine that evaluates them. Faults of rules and folders are logged; the error is
// that the metrics could not be made.
func New(c Config) (*Engine, error) {
	c.Poll = cmp.Or(c.Poll, 30*time.Second)
	g := &Engine{
		config: c, log: c.Logger, suppressor: suppression.New(c.Suppression), wake: make(chan struct{}, 1),
		counters: counters{byID: map[string]*atomic.Int64{}},
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.library = library{dirs: c.Dirs, pack: c.Pack}
	g.Reload()
	return g, g.register(c.Meter)
}

// See takes other sights for the coverage.
func (g *Engine) See(sights []detect.Sight) {
	g.library.mu.Lock()
	defer g.library.mu.Unlock()
	g.config.Sights = sights
	b := *g.book.Load()
	b.coverage = cover(b.loud, b.named, sights)
	g.book.Store(&b)
	g.log.Info("rules are covered anew", "live", b.coverage.Live, "degraded", b.coverage.Degraded, "blind", b.coverage.Blind)
}

// evaluator is what one goroutine needs to evaluate an event with a book.
type evaluator struct {
	matcher *detect.Matcher
	matches []detect.Match
	found   []detect.Correlated
	alerts  []*event.Alert
	events  uint64
}

// evaluator returns one that nobody uses.
func (b *book) evaluator() *evaluator {
	select {
	case v := <-b.idle:
		return v
	default:
		return &evaluator{matcher: b.set.NewMatcher()}
	}
}

func (b *book) giveBack(v *evaluator) {
	select {
	case b.idle <- v:
	default:
	}
}

// timedEvery is how many evaluations one is timed of: reading the clock costs as much as a simple event.
const timedEvery = 64

// Evaluate takes an event that says whose it is, raises its severity, adds the ids of the rules that match, and hands
// out the alerts that are not held back. It does not wait, unless alert does.
func (g *Engine) Evaluate(e *event.Event, alert func(*event.Alert)) {
	e.Severity = min(max(e.Severity, base(e)), event.Critical)
	b := g.book.Load()
	v := b.evaluator()
	defer b.giveBack(v)
	var began time.Time
	timed := v.events%timedEvery == 0
	v.events++
	if timed {
		began = time.Now()
	}
	v.matches = v.matcher.Match(e, v.matches[:0])
	if len(v.matches) > 0 {
		g.match(b, v, e, alert)
	}
	if timed {
		g.took.Record(context.Background(), time.Since(began).Seconds())
	}
}

// match takes the matches of e.
func (g *Engine) match(b *book, v *evaluator, e *event.Event, alert func(*event.Alert)) {
	v.found = b.correlation.add(e, v.matches, v.found[:0])
	note := func(r *detect.Rule) {
		e.Severity = max(e.Severity, r.Severity)
		if !slices.Contains(e.Rules, r.ID) {
			e.Rules = append(e.Rules, r.ID)
		}
		b.matched[r].Add(1)
	}
	for _, m := range v.matches {
		if !m.Silent {
			note(m.Rule)
		}
	}
	for _, c := range v.found {
		if !c.Silent {
			note(c.Rule)
		}
	}
	now := time.Now()
	v.alerts = v.alerts[:0] // made when e says all
	for _, m := range v.matches {
		if !m.Silent {
			v.alerts = g.suppressor.Add(now, m.Alert(e), v.alerts)
		}
	}
	for _, c := range v.found {
		if !c.Silent {
			v.alerts = g.suppressor.Add(now, c.Alert(e), v.alerts)
		}
	}
	for _, a := range v.alerts {
		alert(a)
	}
	if len(v.alerts) > 0 {
		g.poke()
	}
	// The next event may be long in coming.
	clear(v.matches)
	clear(v.found)
	clear(v.alerts)
}

func (g *Engine) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Run keeps the rules up to date and hands out the summaries of repeats until ctx ends; then it hands out those that are
// left and returns. Alerts of events that are evaluated later are not held back.
func (g *Engine) Run(ctx context.Context, alert func(*event.Alert)) {
	var watching sync.WaitGroup
	watching.Go(func() { g.watch(ctx) })
	defer watching.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var out []*event.Alert
	tell := func() {
		for _, a := range out {
			alert(a)
		}
		clear(out)
		out = out[:0]
	}
	for ctx.Err() == nil {
		var next time.Time
		out, next = g.suppressor.Due(time.Now(), out)
		tell()
		wait := time.Hour // no window is open: the first one wakes us
		if !next.IsZero() {
			wait = time.Until(next)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-g.wake:
		case <-ctx.Done():
		}
	}
	out = g.suppressor.Close(out)
	tell()
}

// correlation is the state of correlation rules, which more than one book may share one after the other.
type correlation struct {
	rules []*detect.Rule // those it evaluates, and what they refer to

	mu         sync.Mutex
	correlator *detect.Correlator // nil: there is nothing to do
}

func (c *correlation) add(e *event.Event, matches []detect.Match, dst []detect.Correlated) []detect.Correlated {
	if c.correlator == nil {
		return dst
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.correlator.Add(e.Timestamp, e, matches, dst)
}

func (c *correlation) stats() detect.CorrelatorStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.correlator.Stats()
}
