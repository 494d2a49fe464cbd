package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/secret"
)

// The topics, as they stand in paths.
const (
	Events = "events"
	Alerts = "alerts"
)

// Instance is one of the document's integrations.
type Instance struct {
	Name, Kind string
	Enabled    bool
	Canary     bool                    // it opted in
	To         integration.Integration // nil when it is not enabled
	Ways       []Way                   // to it, in this instance of the function
}

// Way is how events or alerts reach an integration.
type Way struct {
	Topic   string // Events or Alerts
	Figures func() Figures
	Test    func(context.Context) (integration.Receipt, error)
}

// Waiting is what was published for an integration and not delivered yet.
type Waiting struct {
	Messages int64
	Oldest   time.Duration // since the oldest of them was published
	Known    bool          // false: nobody can say
}

// Config is what a Health needs. All fields are required but those that say otherwise.
type Config struct {
	Version   string
	Instances []Instance
	State     state.Store
	// Publish hands a message to the topic, Events or Alerts; it returns nil when Pub/Sub has it.
	Publish func(ctx context.Context, topic string, m envelope.Message) error
	// Waiting returns what waits for integrations, by their names; nil: nobody can say. It is asked for each report.
	Waiting func(context.Context) (map[string]Waiting, error)
	// Token is what a caller of /health must show. Without one nobody is let in, or everybody when Open says so: then who
	// reaches it is another's matter, as of Cloud Run's invoker check.
	Token secret.Source
	Open  bool

	CheckEvery  time.Duration
	CanaryEvery time.Duration // 0: none is sent
	Silence     time.Duration // an agent is not silent before it
	Timeout     time.Duration // of one check

	Log   *slog.Logger
	Meter metric.Meter
}

// Health is a function's instance. Safe for concurrent use.
type Health struct {
	cfg     Config
	owner   string // this instance, in records
	metrics metrics

	collecting sync.Mutex
	collected  map[string]Figures // by integration and topic, what is in the state
	opening    chan struct{}      // bounds messages being unpacked
	testing    sync.Map           // integrations that are being tested
	ticked     atomic.Int64       // when, nanoseconds of Unix
	newest     atomic.Int64       // publish time that is in the state, likewise

	mu       sync.Mutex
	last     Report // for the metrics
	unread   string // why it is not known what waits, when it is not
	summary  agentSummary
	summedAt time.Time
}

// New fails only when the meter does.
func New(c Config) (*Health, error) {
	h := &Health{cfg: c, owner: event.NewID(), collected: map[string]Figures{}, opening: make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
	var err error
	if h.metrics, err = h.newMetrics(c.Meter); err != nil {
		return nil, fmt.Errorf("metrics of health: %w", err)
	}
	return h, nil
}

// tickEvery is the shortest time between two looks at what is due.
const tickEvery = 5 * time.Second

// Tick does what is due: checks, canaries, silent agents, the sum of figures. Called more often than every five seconds it
// does nothing.
func (h *Health) Tick(ctx context.Context) error {
	now := time.Now()
	last := h.ticked.Load()
	if now.UnixNano()-last < int64(tickEvery) || !h.ticked.CompareAndSwap(last, now.UnixNano()) {
		return nil
	}
	checked := false
	done := errors.Join(
		h.turn(ctx, "checks", h.cfg.CheckEvery, func(ctx context.Context) error { checked = true; return h.Check(ctx) }),
		h.turn(ctx, "canaries", h.cfg.CanaryEvery, h.sendCanaries),
		h.Silences(ctx),
		h.Collect(ctx),
	)
	report, err := h.Report(ctx)
	if err == nil {
		h.mu.Lock()
		h.last = report
		h.mu.Unlock()
		if checked {
			h.complain(ctx, report)
		}
	}
	return errors.Join(done, err)
}

// turn calls f when it is this instance's turn to.
func (h *Health) turn(ctx context.Context, what string, every time.Duration, f func(context.Context) error) error {
	if every <= 0 {
		return nil
	}
	due, err := mine(ctx, h.cfg.State, what, time.Now(), every)
	if err != nil {
		return fmt.Errorf("looking whether %s are due: %w", what, err)
	}
	if !due {
		return nil
	}
	return f(ctx)
}
