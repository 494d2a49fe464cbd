// Package program builds the functions from the environment: what cmd/apss-functions serves and what the functions
// framework is given are the same.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"go.opentelemetry.io/otel"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/functions/internal/forward"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integrations/sweetsecurity"
	"github.com/apss-sensor/apss/functions/internal/push"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/secret"
	"github.com/apss-sensor/apss/shared/telemetry"
)

// ErrSettings is what New's error wraps when the environment is at fault.
var ErrSettings = errors.New("the settings are wrong")

// Program is the functions with what they run on.
type Program struct {
	settings settings
	tel      *telemetry.Telemetry
	client   *pubsub.Client
	dead     *deadletter.Publisher
	forwards []*forward.Forward
	checks   map[string]integration.Integration // by instance
	handler  http.Handler
}

// New builds the program from environ. Nothing outside is called yet. Logs go to log.
func New(ctx context.Context, environ []string, version string, log io.Writer) (*Program, error) {
	s, err := loadSettings(environ)
	key, keyErr := secret.Parse(s.SweetSecurityKey.Reveal())
	if s.SweetSecurityKey.Empty() {
		keyErr = nil // that it is required is said already
	} else if keyErr != nil {
		keyErr = fmt.Errorf("SWEET_SECURITY_API_KEY: %w", keyErr)
	}
	var endpointErr error
	if s.SweetSecurityEndpoint != "" {
		if endpointErr = sweetsecurity.CheckEndpoint(s.SweetSecurityEndpoint, s.SweetSecurityAllowHTTP); endpointErr != nil {
			endpointErr = fmt.Errorf("SWEET_SECURITY_ENDPOINT: %w", endpointErr)
		}
	}
	if err := errors.Join(err, keyErr, endpointErr); err != nil {
		return nil, fmt.Errorf("%w:\n%w", ErrSettings, err)
	}

	p := &Program{settings: s, checks: map[string]integration.Integration{}}
	p.tel, err = telemetry.Start(ctx, telemetry.Config{
		Service: "apss-functions", Version: version, Project: s.Project, Level: s.LogLevel, Log: log,
	})
	if err != nil {
		return nil, err
	}
	p.client, err = pubsub.NewClient(ctx, s.Project)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to Pub/Sub: %w", err), p.Close(ctx))
	}
	p.dead = deadletter.New(p.client, s.DeadLettersTopic, s.DeadLettersTimeout)
	if p.handler, err = p.routes(key); err != nil {
		return nil, errors.Join(err, p.Close(ctx))
	}
	return p, nil
}

// routes builds the integrations and what serves them.
func (p *Program) routes(key secret.Source) (http.Handler, error) {
	s, log, meter := p.settings, p.tel.Logger(), p.tel.Meter()
	tracer := otel.Tracer("github.com/apss-sensor/apss/functions")
	inHand := budget.New(s.InHand)
	events := map[string]http.Handler{}

	sweet, err := sweetsecurity.New(sweetsecurity.Config{
		Endpoint: s.SweetSecurityEndpoint, AllowHTTP: s.SweetSecurityAllowHTTP, APIKey: key,
		Timeout: s.CallTimeout, MaxConns: s.Flushes + 1, Log: log, Meter: meter,
	})
	if err != nil {
		return nil, err
	}
	p.checks[sweetsecurity.Kind] = sweet
	f, err := forward.New(forward.Config{
		Name: sweetsecurity.Kind, Sink: sweet, Dead: p.dead,
		MaxEvents: s.MaxEvents, MaxBytes: s.MaxBytes, Linger: s.Linger, Flushes: s.Flushes,
		Deliver: s.deliver(), Bury: s.DeadLettersTimeout, InHand: inHand,
		Log: log, Meter: meter, Tracer: tracer,
	})
	if err != nil {
		return nil, err
	}
	p.forwards = append(p.forwards, f)
	flush := newFlusher(p.tel)
	h, err := push.New(push.Config{
		Name: sweetsecurity.Kind, Handle: f.Handle, Timeout: s.Timeout, InHand: inHand,
		Log: log, Meter: meter, Tracer: tracer, Flush: flush.maybe,
	})
	if err != nil {
		return nil, err
	}
	events[sweetsecurity.Kind] = h

	mux := http.NewServeMux()
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		mux.Handle("GET "+path, p.tel.Handler())
	}
	mux.HandleFunc("/events/{integration}", func(w http.ResponseWriter, r *http.Request) {
		if h := events[r.PathValue("integration")]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		http.Error(w, fmt.Sprintf("there is no integration %.100q that takes events", r.PathValue("integration")), http.StatusNotFound)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, fmt.Sprintf("there is nothing at %.100q; pushes of events go to /events/<integration>", r.URL.Path), http.StatusNotFound)
	})
	return mux, nil
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
	wg.Go(func() { p.check(ctx) })
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

// check asks each receiver once whether it would take what we send, so that a wrong key shows at the start and not
// with the first event.
func (p *Program) check(ctx context.Context) {
	log := p.tel.Logger()
	for name, i := range p.checks {
		ctx, cancel := context.WithTimeout(ctx, p.settings.CallTimeout)
		status, err := i.Check(ctx)
		cancel()
		if err != nil {
			log.WarnContext(ctx, "the receiver does not answer its check", "integration", name, "error", err.Error())
			continue
		}
		log.InfoContext(ctx, "the receiver answers its check", "integration", name, "latency", status.Latency.String())
	}
}

// flush delivers what the groups have in hand; later pushes are refused.
func (p *Program) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushGrace)
	defer cancel()
	var wg sync.WaitGroup
	for _, f := range p.forwards {
		wg.Go(func() {
			if err := f.Close(ctx); err != nil {
				p.tel.Logger().WarnContext(ctx, "not all that was in hand could be delivered; Pub/Sub delivers it again", "error", err.Error())
			}
		})
	}
	wg.Wait()
}

// Close delivers what is in hand and ends everything that New started.
func (p *Program) Close(ctx context.Context) error {
	p.flush(ctx)
	var err error
	if p.client != nil {
		err = p.client.Close()
	}
	return errors.Join(err, p.tel.Shutdown(ctx))
}

// flusher exports telemetry now and then, before an answer: a function has no CPU between requests.
type flusher struct {
	tel  *telemetry.Telemetry
	mu   sync.Mutex
	last time.Time
}

const (
	flushEvery   = 10 * time.Second
	flushTimeout = 500 * time.Millisecond
)

func newFlusher(t *telemetry.Telemetry) *flusher { return &flusher{tel: t, last: time.Now()} }

func (f *flusher) maybe(ctx context.Context) {
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.last) < flushEvery {
		return
	}
	f.last = now
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := f.tel.Flush(ctx); err != nil {
		f.tel.Logger().DebugContext(ctx, "exporting telemetry", "error", err.Error())
	}
}
