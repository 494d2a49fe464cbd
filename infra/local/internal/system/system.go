package system

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/infra/local/internal/ledger"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/supervise"
	"github.com/apss-sensor/apss/shared/event"
)

// Watcher is told of events where they pass. Its functions may be nil, must not block, and must not keep what they get.
type Watcher struct {
	Published func(e event.Raw, at time.Time) // seen on the topic
	Delivered func(e event.Raw, at time.Time) // accepted by the stand-in
	Dead      func(e event.Raw, reason string)
	Alerted   func(a *event.Alert, at time.Time) // seen on the topic of alerts

	AlertDelivered func(a *event.Alert, at time.Time)       // accepted by Sweet Security's stand-in
	Shown          func(receiver string, m standin.Message) // new, or changed, at a stand-in that shows
}

// ledgerCapacity events are followed by their id.
const ledgerCapacity = 500_000

// System is running from Start to Stop. Safe for concurrent use, but for Start and Stop of the agent, which are one
// goroutine's.
type System struct {
	Config Config
	Broker *broker.Broker
	Ledger *ledger.Ledger // of events, to Sweet Security
	Feed   *Feed

	client      *http.Client // for our own programs
	watch       Watcher
	log         *os.File
	logger      *slog.Logger
	receivers   []*Receiver
	heartbeats  *Push // to the functions, which follow the agents
	monitoring  *monitoringServer
	token       string // of the functions' health
	agentAddr   string
	functionsAt string

	mu        sync.Mutex
	agent     *supervise.Process
	functions *supervise.Process
	others    []*supervise.Process        // further agents
	expected  map[*supervise.Process]bool // their end is no trouble

	trouble    chan error
	background sync.WaitGroup // taps, servers, watchers of processes
	pushing    sync.WaitGroup // the dispatcher
	stopTaps   context.CancelFunc
	stopPush   context.CancelFunc
}

// readyWithin bounds the start of a program.
const readyWithin = time.Minute

// Start starts everything but the agent and waits until it is ready. What it started it also ends when it fails.
func Start(ctx context.Context, c Config, w Watcher) (_ *System, err error) {
	s := &System{
		Config: c, Ledger: ledger.New(ledgerCapacity), Feed: new(Feed), watch: w,
		client: &http.Client{Timeout: askTimeout}, token: rand.Text(),
		expected: make(map[*supervise.Process]bool), trouble: make(chan error, 8),
	}
	s.log, err = os.OpenFile(c.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	s.logger = slog.New(slog.NewTextHandler(s.log, nil))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(ctx))
		}
	}()
	o := c.brokerOptions()
	o.Log = s.logger
	if s.Broker, err = broker.Start(ctx, o); err != nil {
		return nil, err
	}
	if err := s.newReceivers(); err != nil {
		return nil, err
	}
	if err := s.startReceivers(); err != nil {
		return nil, err
	}
	if err := s.startTaps(ctx); err != nil {
		return nil, err
	}
	if err := s.subscribe(ctx); err != nil {
		return nil, err
	}
	if err := s.listenMonitoring(); err != nil {
		return nil, err
	}
	if err := s.StartFunctions(ctx); err != nil {
		return nil, err
	}
	if err := s.writeControlFile(); err != nil {
		return nil, err
	}
	if err := s.startPushes(ctx); err != nil {
		return nil, err
	}
	s.serveMonitoring()
	return s, nil
}

// StartFunctions starts the functions, for the first time or again, and waits until they are ready.
func (s *System) StartFunctions(ctx context.Context) error {
	if s.functionsAt == "" {
		port, err := freePort(s.Config.FunctionsPort)
		if err != nil {
			return err
		}
		s.functionsAt = local(port)
	}
	document, err := s.document()
	if err != nil {
		return err
	}
	_, port, _ := strings.Cut(s.functionsAt, ":")
	env := []string{
		"PORT=" + port,
		"PUBSUB_PROJECT_ID=" + Project,
		"PUBSUB_EMULATOR_HOST=" + s.Broker.Addr(),
		"DEAD_LETTERS_TOPIC=" + DeadLettersTopic,
		"APSS_LOCAL=true",
		"APSS_INTEGRATIONS=" + document,
		"APSS_ADMIN_TOKEN=" + s.token,
		"FORWARD_ACK_DEADLINE=" + s.Config.AckDeadline.String(),
		"FORWARD_CALL_TIMEOUT=" + s.Config.CallTimeout.String(),
		"HEALTH_CANARY_EVERY=" + s.Config.CanaryEvery.String(),
		"HEALTH_MONITORING=" + s.monitoring.Addr().String(),
	}
	if s.Config.Silence > 0 {
		env = append(env, "HEALTH_AGENT_SILENCE="+s.Config.Silence.String())
	}
	p, err := s.run(ctx, "apss-functions", s.functionsAt, append(env, s.Config.Env...))
	s.mu.Lock()
	s.functions = p
	s.mu.Unlock()
	return err
}

// Functions returns the functions' process; nil before its first start.
func (s *System) Functions() *supervise.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.functions
}

// KillFunctions ends the functions as kill -9 does.
func (s *System) KillFunctions() {
	p := s.Functions()
	s.expect(p)
	p.Kill()
}

// StopFunctions ends the functions as Cloud Run does: SIGTERM, and SIGKILL 10 s after it, which is an error.
func (s *System) StopFunctions() error {
	p := s.Functions()
	s.expect(p)
	return p.Stop(drainWithin)
}

// Trouble delivers the end of a program that nobody asked for.
func (s *System) Trouble() <-chan error { return s.trouble }

func (s *System) expect(p *supervise.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected[p] = true
}

// run starts a program and waits until its /readyz says 200.
func (s *System) run(ctx context.Context, name, addr string, env []string) (*supervise.Process, error) {
	s.logger.Info("starting", "program", name, "address", addr)
	p, err := supervise.Start(supervise.Program{Name: name, Path: s.Config.Program(name), Env: env, Log: s.log})
	if err != nil {
		return nil, err
	}
	s.background.Go(func() {
		<-p.Done()
		s.mu.Lock()
		expected := s.expected[p]
		s.mu.Unlock()
		if !expected {
			s.trouble <- died(p)
		}
	})
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		err := s.get(ctx, "http://"+addr+"/readyz", nil)
		if err == nil {
			return p, nil
		}
		select {
		case <-p.Done():
			s.expect(p) // told here
			return p, died(p)
		case <-ctx.Done():
			return p, fmt.Errorf("%s is not ready after %v: %w", name, readyWithin, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func died(p *supervise.Process) error {
	err := p.Err()
	if err == nil {
		err = errors.New("a program ended by itself, with exit code 0")
	}
	return fmt.Errorf("%w; its last lines:\n    %s", err, strings.Join(p.Tail(), "\n    "))
}

// drainWithin bounds each step of Stop.
const drainWithin = 10 * time.Second

// Stop ends everything from the source on, so that nothing is cut off on its way: the agent sends what it has, what is
// in flight arrives where it can within three seconds, and then the rest ends.
func (s *System) Stop(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	end := func(p *supervise.Process) {
		if p == nil {
			return
		}
		select {
		case <-p.Done(): // told already, by Trouble or Start
			return
		default:
		}
		s.expect(p)
		errs = append(errs, p.Stop(drainWithin))
	}
	for _, p := range append(s.quiet(), s.Agent()) {
		end(p)
	}
	if s.stopPush != nil {
		wait, cancel := context.WithTimeout(ctx, 3*time.Second)
		_ = s.Settled(wait, 100*time.Millisecond) // what did not settle stays in the summary's "in flight"
		cancel()
		s.stopPush()
		s.pushing.Wait()
	}
	end(s.Functions()) // which tells what they had counted and not told
	if s.stopTaps != nil {
		s.stopTaps()
	}
	for _, r := range s.receivers {
		if r.server != nil {
			errs = append(errs, r.server.Close())
		}
	}
	if s.monitoring != nil {
		s.monitoring.close()
	}
	if s.Broker != nil {
		errs = append(errs, s.Broker.Close(ctx))
	}
	s.background.Wait()
	errs = append(errs, s.log.Close())
	return errors.Join(errs...)
}

// Settled waits until nothing was in flight, and nothing new came, for as long as quiet. Repeats of incidents that wait
// to be told are not waited for.
func (s *System) Settled(ctx context.Context, quiet time.Duration) error {
	const every = 10 * time.Millisecond
	last, calm := s.Ledger.Totals(), time.Duration(0) // what was looked at: in a time in which nothing ran nothing could come
	for calm < quiet {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for what is in flight: %w", ctx.Err())
		case <-time.After(every):
		}
		now := s.Ledger.Totals()
		calm += every
		if now != last || now.InFlight != 0 || s.held() != 0 {
			last, calm = now, 0
		}
	}
	return nil
}

// held is how much waits in subscriptions.
func (s *System) held() int {
	n := 0
	for _, r := range s.receivers {
		if n += r.Held(); r.Alerts != nil {
			n += int(r.Alerts.Totals().InFlight)
		}
	}
	return n
}
