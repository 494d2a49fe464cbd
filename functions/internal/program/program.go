// Package program builds the functions from the environment and the document of integrations: what cmd/apss-functions
// serves and what the functions framework is given are the same.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/functions/internal/forward"
	"github.com/apss-sensor/apss/functions/internal/health"
	"github.com/apss-sensor/apss/functions/internal/health/backlog"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/registry"
	"github.com/apss-sensor/apss/functions/internal/secretmanager"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/telemetry"
)

// ErrSettings is what New's error wraps when the environment is at fault.
var ErrSettings = errors.New("the settings are wrong")

// Function is one of those that Cloud Run knows by name.
type Function string

// The functions.
const (
	Forward Function = "Forward" // events, at /events/<integration>
	Notify  Function = "Notify"  // alerts, at /alerts/<integration>
	Health  Function = "Health"  // how they are, at /health, heartbeats, at /events/_agents, and dead letters that people bring again
)

// topics are those of which f takes pushes. Health takes what Forward and Notify take: those let nobody in but Pub/Sub, and
// Health lets in the people who bring dead letters again.
func (f Function) topics() []string {
	switch f {
	case Forward:
		return []string{events}
	case Notify:
		return []string{alerts}
	default:
		return []string{events, alerts}
	}
}

// Functions lists them.
func Functions() []Function { return []Function{Forward, Notify, Health} }

// Program is the functions with what they run on.
type Program struct {
	functions []Function
	version   string
	settings  settings
	tel       *telemetry.Telemetry
	client    *pubsub.Client
	secrets   *secretmanager.Manager
	dead      *deadletter.Publisher
	inHand    *budget.Budget
	shares    map[string]*budget.Budget // of inHand, by integration
	tracer    trace.Tracer
	flusher   *flusher

	forwards []*forward.Forward
	state    state.Store
	alerts   []alertHandler
	backlog  *backlog.Reader // nil: nobody knows what waits
	health   *health.Health
	handler  http.Handler
}

// New builds the program of functions, of all when none is named, from environ. Outside only those secrets are read that
// stand for settings that are none. Logs go to log.
func New(ctx context.Context, environ []string, version string, log io.Writer, functions ...Function) (*Program, error) {
	return build(ctx, environ, version, log, functions, ours())
}

// parts are what tests put in place of ours.
type parts struct {
	kinds  []integration.Kind
	alerts func(*Program, integration.Instance, integration.Integration) (alertHandler, error)
}

func ours() parts { return parts{kinds: registry.Kinds(), alerts: (*Program).notify} }

func build(ctx context.Context, environ []string, version string, log io.Writer, functions []Function, with parts) (*Program, error) {
	if len(functions) == 0 {
		functions = Functions()
	}
	s, err := loadSettings(environ)
	p := &Program{functions: functions, version: version, settings: s}
	logger := slog.New(slog.DiscardHandler) // of what is read although the settings are wrong
	if err == nil {
		p.tel, err = telemetry.Start(ctx, telemetry.Config{
			Service: "apss-functions", Version: version, Project: s.Project, Level: s.LogLevel, Log: log,
		})
		if err != nil {
			return nil, err
		}
		logger = p.tel.Logger()
	}
	p.secrets = secretmanager.New(logger)
	instances, documentErr := p.instances(ctx, with.kinds)
	openState, stateErr := p.stateStore()
	if err := errors.Join(err, documentErr, stateErr); err != nil {
		return nil, errors.Join(fmt.Errorf("%w:\n%w", ErrSettings, err), p.Close(ctx))
	}
	p.client, err = pubsub.NewClient(ctx, s.Project)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to Pub/Sub: %w", err), p.Close(ctx))
	}
	p.dead = deadletter.New(p.client, s.DeadLettersTopic, s.DeadLettersTimeout)
	p.inHand, p.shares = budget.New(s.InHand), map[string]*budget.Budget{}
	p.backlog = p.newBacklog()
	if p.state, err = openState(ctx); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	p.tracer = otel.Tracer("github.com/apss-sensor/apss/functions")
	p.flusher = newFlusher(p.tel, p.collect)
	if p.handler, err = p.routes(instances, with); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	return p, nil
}

// Handler serves the functions' routes.
func (p *Program) Handler() http.Handler { return p.handler }

// Cloud Run kills 10 s after SIGTERM (cloud.google.com/run/docs/container-contract#instance-shutdown). In that time what
// is in hand is flushed, answered, and the telemetry exported.
const (
	flushGrace = 7 * time.Second
	drainGrace = 8 * time.Second
	closeGrace = 1500 * time.Millisecond
)

// answerTime is for an answer to be written after the handler's timeout.
const answerTime = 5 * time.Second

// Run serves on the port of the settings until ctx ends, then drains and closes.
func (p *Program) Run(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(int(p.settings.Port))))
	if err != nil {
		return errors.Join(fmt.Errorf("listening on PORT: %w", err), p.Close(ctx))
	}
	ctx, stop := context.WithCancel(ctx) // Serve may end by itself
	defer stop()
	log := p.tel.Logger()
	log.InfoContext(ctx, "serving", "address", l.Addr().String())
	var wg sync.WaitGroup
	wg.Go(func() { p.checkAtStart(ctx) })
	wg.Go(func() { p.ticks(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		log.InfoContext(ctx, "draining")
		p.flush(ctx)
	})
	// The handlers' own timeout ends a push; a shorter one of the connection would lose the answer, or end the request's
	// context (net/http watches the connection under the read timeout).
	longest := p.settings.Timeout + answerTime
	err = httpx.Server{Handler: p.handler, Grace: drainGrace, ReadTimeout: longest, WriteTimeout: longest, Log: log}.Serve(ctx, l)
	stop()
	wg.Wait()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	return errors.Join(err, p.Close(closing))
}

// flush delivers what is in hand; later pushes are refused.
func (p *Program) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushGrace)
	defer cancel()
	var wg sync.WaitGroup
	end := func(c interface{ Close(context.Context) error }) {
		wg.Go(func() {
			if err := c.Close(ctx); err != nil {
				p.tel.Logger().WarnContext(ctx, "not all that was in hand could be delivered; Pub/Sub delivers it again", "error", err.Error())
			}
		})
	}
	for _, f := range p.forwards {
		end(f)
	}
	for _, a := range p.alerts {
		end(a)
	}
	wg.Wait()
}

// Close delivers what is in hand and ends everything that New started.
func (p *Program) Close(ctx context.Context) error {
	p.flush(ctx)
	errs := []error{p.secrets.Close()}
	if p.state != nil {
		errs = append(errs, p.state.Close())
	}
	if p.backlog != nil {
		errs = append(errs, p.backlog.Close())
	}
	if p.client != nil {
		errs = append(errs, p.client.Close())
	}
	if p.tel != nil {
		errs = append(errs, p.tel.Shutdown(ctx))
	}
	return errors.Join(errs...)
}
