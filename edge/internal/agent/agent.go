package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// Publisher takes messages out, see package publish for what it owes.
type Publisher interface {
	Publish(ctx context.Context, m envelope.Message) error
	Close() error
}

// Source is one sensor.
type Source struct {
	Name string
	// Run senses until ctx ends. Emit takes an event over: the source must not touch it again. Sealed waits until all
	// that was emitted before is safe.
	Run func(ctx context.Context, emit func(*event.Event), sealed func(context.Context) error) error
	// Ready returns nil once the sensor misses nothing any more; nil for one that is ready when it runs.
	Ready func() error
	// Stats returns the sensor's counters for the heartbeat, as anything that encodes to JSON.
	Stats func() any
}

// Rules judge events, see package alerting.
type Rules interface {
	// Evaluate raises the event's severity, adds the rules that match it, and hands out the alerts of it. It does not wait.
	Evaluate(e *event.Event, alert func(*event.Alert))
	// Run hands out alerts about what it held back, all of it when ctx ends, and returns.
	Run(ctx context.Context, alert func(*event.Alert))
	// Summary is for the heartbeat.
	Summary() map[string]any
}

// Seal says when a batch is sealed: whichever is reached first.
type Seal struct {
	Count int           // events
	Bytes int           // of the events, not compressed
	After time.Duration // since the first event of the batch
}

// LaneConfig is one of the two ways out.
type LaneConfig struct {
	Buffer         buffer.Limits
	Seal           Seal
	Spool, Refused spool.Config // their loggers are set by New
	InFlight       int          // messages that are published at the same time
}

// Config is an agent.
type Config struct {
	Version        string
	Facts          func() map[string]any // for each heartbeat: what the agent found out about its place; may be nil
	Identity       identity.Identity
	Rules          Rules
	Sources        []Source
	Publisher      Publisher
	Events, Alerts LaneConfig
	Heartbeat      time.Duration
	Drain          time.Duration // at the end
	Meter          metric.Meter
	Logger         *slog.Logger
}

// Agent is the whole pipeline.
type Agent struct {
	c              Config
	log            *slog.Logger
	started        time.Time
	events, alerts *lane
	rooms          sync.Pool          // *[]byte
	alert          func(*event.Alert) // emitAlert, made once
	counts         eventCounts
	gone           gone
}

// gone is the news that the publisher will never accept anything again.
type gone struct {
	once sync.Once
	c    chan struct{} // closed by the first end
	err  error         // may be read then
}

func (g *gone) end(err error) {
	g.once.Do(func() {
		g.err = err
		close(g.c)
	})
}

// eventCounts counts emitted events by type and severity. The map is never changed.
type eventCounts map[event.Type]*[event.Critical + 1]atomic.Int64

// New builds an agent and opens its spools; [spool.ErrLocked] in the chain says that another agent uses them. Run must
// follow.
func New(c Config) (*Agent, error) {
	a := &Agent{c: c, log: c.Logger, started: time.Now(), counts: eventCounts{}, gone: gone{c: make(chan struct{})}}
	a.rooms.New = func() any { return new([]byte) }
	a.alert = a.emitAlert
	for _, t := range event.Types() {
		a.counts[t] = new([event.Critical + 1]atomic.Int64)
	}
	var err error
	if a.events, err = newLane("events", c.Events, newEnvelopes(c.Identity.Source(), c.Events.Seal), c.Publisher, a.log, a.gone.end); err != nil {
		return nil, fmt.Errorf("opening the spool of events: %w", err)
	}
	if a.alerts, err = newLane("alerts", c.Alerts, oneEach{}, c.Publisher, a.log, a.gone.end); err != nil {
		a.events.spool.Close()
		a.events.refused.Close()
		return nil, fmt.Errorf("opening the spool of alerts: %w", err)
	}
	if err := a.register(c.Meter); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return a, nil
}

// Run senses and publishes until ctx ends or the publisher is gone for good, then drains. It returns nil in both
// cases: what could not be sent is in the spool.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	var lanes, sources, rules sync.WaitGroup
	for _, l := range []*lane{a.events, a.alerts} {
		lanes.Go(func() { l.run(hard) })
	}
	judging, judged := context.WithCancel(hard)
	defer judged()
	rules.Go(func() { a.c.Rules.Run(judging, a.alert) })
	for _, s := range a.c.Sources {
		sources.Go(func() { a.sense(ctx, s) })
	}
	sources.Go(func() { a.beat(ctx) })
	select {
	case <-ctx.Done():
	case <-a.gone.c:
		cancel()
	}

	end, release := context.WithTimeout(hard, a.c.Drain)
	defer release()
	waitFor(end, &sources)
	a.emit(a.heartbeat(true))
	judged() // no event comes any more: what the rules held back goes out
	rules.Wait()
	if isClosed(a.gone.c) {
		a.log.Info("the receiver is gone: ending", "error", a.gone.err)
		release() // there is nothing to drain into
	}
	var drains sync.WaitGroup
	for _, l := range []*lane{a.events, a.alerts} {
		drains.Go(func() {
			if l.drain(end) == nil {
				return
			}
			if st := l.spool.Stats(); st.Records > 0 {
				l.log.Warn("ending before all was confirmed; the rest is sent by the next run", "messages", st.Records, "events", st.Events)
			}
		})
	}
	drains.Wait()
	kill()
	lanes.Wait()
	sources.Wait()
	for _, l := range []*lane{a.events, a.alerts} {
		if n := l.counts.droppedAtEnd.Load(); n > 0 {
			l.log.Error("lost at the end: neither the spool nor the receiver took it", "items", n)
		}
	}
	return a.c.Publisher.Close()
}

// waitFor waits for all, or until ctx ends.
func waitFor(ctx context.Context, all *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }() // Run waits for all once more
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// sense runs a source, again and again should it fail: the others go on.
func (a *Agent) sense(ctx context.Context, s Source) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = time.Second, time.Minute
	for {
		err := s.Run(ctx, a.emit, a.events.wait)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, ctx.Err()) {
				a.log.Error("a sensor ended badly", "sensor", s.Name, "error", err)
			}
			return
		}
		pause := pauses.NextBackOff()
		a.log.Error("a sensor ended; it is started again", "sensor", s.Name, "error", err, "in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// emit takes an event over. It does not wait.
func (a *Agent) emit(e *event.Event) {
	a.c.Identity.Fill(e)
	a.c.Rules.Evaluate(e, a.alert)
	if c := a.counts[e.Type]; c != nil {
		c[e.Severity].Add(1)
	}
	room := a.rooms.Get().(*[]byte)
	*room = e.AppendJSON((*room)[:0])
	a.events.put(e.Severity, e.PodNamespace, *room)
	a.giveBack(room)
}

// emitAlert takes an alert over. It does not wait.
func (a *Agent) emitAlert(alert *event.Alert) {
	a.c.Identity.FillAlert(alert)
	room := a.rooms.Get().(*[]byte)
	*room = envelope.SealAlert(alert, a.c.Identity.Source(), time.Now()).AppendBinary((*room)[:0])
	a.alerts.put(alert.Severity, "", *room)
	a.giveBack(room)
}

func (a *Agent) giveBack(room *[]byte) {
	if cap(*room) <= buffer.MaxItem {
		a.rooms.Put(room)
	}
}

// Checks are for /readyz: nil is ready.
func (a *Agent) Checks() map[string]func() error {
	checks := map[string]func() error{
		"publish-events": a.events.publishing,
		"publish-alerts": a.alerts.publishing,
		"spool-events":   a.events.spool.Err,
		"spool-alerts":   a.alerts.spool.Err,
	}
	for _, s := range a.c.Sources {
		if s.Ready != nil {
			checks["sensor-"+s.Name] = s.Ready
		}
	}
	return checks
}
