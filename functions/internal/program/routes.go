package program

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/functions/internal/forward"
	"github.com/apss-sensor/apss/functions/internal/health"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/notify"
	"github.com/apss-sensor/apss/functions/internal/push"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
)

// The topics, as they stand in the paths of pushes.
const (
	events = health.Events
	alerts = health.Alerts
)

// alertHandler delivers the alerts of pushes to one integration.
type alertHandler interface {
	// Handle returns nil when the push is done with, else an *[outcome.Error]: it must come again.
	Handle(ctx context.Context, p envelope.Push) error
	// Tick does what is due without a push: repeats, digests, ends of incidents.
	Tick(ctx context.Context) error
	// Test and Canary bring a marked message to the receiver.
	Test(ctx context.Context) (integration.Receipt, error)
	Canary(ctx context.Context) error
	Stats() notify.Stats
	Close(ctx context.Context) error
}

// routes builds the integrations and what serves them.
func (p *Program) routes(instances []integration.Instance, with parts) (http.Handler, error) {
	r := router{topics: map[string]map[string]http.Handler{}, absent: map[string]string{}}
	served, withHealth := 0, false
	for _, f := range p.functions {
		if !slices.Contains(Functions(), f) {
			return nil, fmt.Errorf("there is no function %q", f)
		}
		withHealth = withHealth || f == Health
		for _, topic := range f.topics() {
			r.topics[topic] = map[string]http.Handler{}
		}
	}
	var errs []error
	witnesses := make([]health.Instance, len(instances))
	for i, in := range instances {
		witnesses[i] = health.Instance{Name: in.Name, Kind: in.Kind, Enabled: in.Enabled, Canary: in.Canary}
		if !in.Enabled {
			r.absent[in.Name] = fmt.Sprintf("the integration %s is disabled", in.Name)
			continue
		}
		if err := p.serve(&r, in, with, &witnesses[i]); err != nil {
			errs = append(errs, fmt.Errorf("integration %s: %w", in.Name, err))
		}
		served += len(witnesses[i].Ways)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w:\n%w", ErrSettings, err)
	}
	if served == 0 {
		p.tel.Logger().Warn("no integration is enabled here: every push goes to the dead letters; enable one in "+documentName,
			"instances", len(instances))
	}
	var err error
	if r.lost, err = p.pushHandler(unknown, p.lose); err != nil {
		return nil, err
	}
	if p.health, err = p.newHealth(witnesses); err != nil {
		return nil, err
	}
	mux := r.mux(p)
	if withHealth {
		err = p.serveHealth(mux)
	}
	return mux, err
}

// serve builds an instance, and w's ways to it by the topics that are served here.
func (p *Program) serve(r *router, in integration.Instance, with parts, w *health.Instance) error {
	s := p.settings
	log := p.tel.Logger().With("integration", in.Name)
	i, err := in.Settings.New(integration.Env{
		Name: in.Name, Version: p.version, Local: s.Local, Timeout: s.CallTimeout, MaxConns: s.Flushes + s.Calls + 1,
		Log: log, Meter: p.tel.Meter(),
	})
	if err != nil {
		return err
	}
	w.To = i
	sink, takesEvents := i.(integration.EventSink)
	_, takesAlerts := i.(integration.Notifier)
	if _, ok := i.(integration.IncidentNotifier); ok {
		takesAlerts = true
	}
	if takesEvents && r.topics[events] != nil {
		f, err := forward.New(forward.Config{
			Name: in.Name, Sink: sink, Dead: p.dead, Route: in.Route,
			MaxEvents: s.MaxEvents, MaxBytes: s.MaxBytes, Linger: s.Linger, Flushes: s.Flushes,
			Deliver: s.deliver(), Bury: s.DeadLettersTimeout, InHand: p.share(in.Name),
			Log: p.tel.Logger(), Meter: p.tel.Meter(), Tracer: p.tracer,
		})
		if err != nil {
			return err
		}
		p.forwards = append(p.forwards, f)
		w.Ways = append(w.Ways, health.Way{Topic: events, Figures: figuresOfEvents(f), Test: f.Test})
		if err := r.take(p, events, in, f.Handle, f.Canary); err != nil {
			return err
		}
	}
	if takesAlerts && with.alerts != nil && r.topics[alerts] != nil {
		a, err := with.alerts(p, in, i)
		if err != nil {
			return err
		}
		p.alerts = append(p.alerts, a)
		w.Ways = append(w.Ways, health.Way{Topic: alerts, Figures: figuresOfAlerts(a), Test: a.Test})
		if err := r.take(p, alerts, in, a.Handle, a.Canary); err != nil {
			return err
		}
	}
	return nil
}

// take lets handle have an instance's pushes of a topic, and canary its canaries.
func (r *router) take(p *Program, topic string, in integration.Instance, handle func(context.Context, envelope.Push) error,
	canary func(context.Context) error,
) error {
	h, err := p.pushHandler(in.Name, func(ctx context.Context, m envelope.Push) error {
		return p.health.Canaries(in.Name, topic, in.Canary, canary, handle)(ctx, m)
	})
	r.topics[topic][in.Name] = h
	return err
}

// pushHandler answers pushes with what handle says.
func (p *Program) pushHandler(name string, handle func(context.Context, envelope.Push) error) (http.Handler, error) {
	return push.New(push.Config{
		Name: name, Handle: handle, Timeout: p.settings.Timeout, InHand: p.share(name),
		Log: p.tel.Logger(), Meter: p.tel.Meter(), Tracer: p.tracer, Flush: p.flusher.maybe,
	})
}

// share is what an integration may have in hand. It is for the building of routes.
func (p *Program) share(name string) *budget.Budget {
	if p.shares[name] == nil {
		p.shares[name] = p.inHand.Share()
	}
	return p.shares[name]
}

// router finds the handler of a push by its path.
type router struct {
	topics map[string]map[string]http.Handler // by topic and instance
	absent map[string]string                  // why an instance of the document is not there
	lost   http.Handler                       // of pushes for what is not there
}

func (r *router) mux(p *Program) *http.ServeMux {
	mux := http.NewServeMux()
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		mux.Handle("GET "+path, p.tel.Handler())
	}
	paths := make([]string, 0, len(r.topics))
	for topic := range r.topics {
		mux.HandleFunc("/"+topic+"/{integration}", func(w http.ResponseWriter, q *http.Request) { r.serve(w, q, topic) })
		paths = append(paths, fmt.Sprintf("pushes of %s go to /%s/<integration>", topic, topic))
	}
	slices.Sort(paths)
	mux.HandleFunc("POST /tick", p.tick)
	mux.HandleFunc("/", func(w http.ResponseWriter, q *http.Request) {
		http.Error(w, fmt.Sprintf("there is nothing at %.100q; %s", q.URL.Path, strings.Join(paths, ", ")), http.StatusNotFound)
	})
	return mux
}

// serve answers a request for the integration in its path. A push for what is not there must end: a refusal would bring
// it again until Pub/Sub gives it up, perhaps for ever. It goes to the dead letters, from which it can be replayed.
func (r *router) serve(w http.ResponseWriter, q *http.Request, topic string) {
	name := q.PathValue("integration")
	if h := r.topics[topic][name]; h != nil {
		h.ServeHTTP(w, q)
		return
	}
	why := r.absent[name]
	if why == "" {
		why = fmt.Sprintf("there is no integration %.100q that takes %s", name, topic)
	}
	if q.Method != http.MethodPost || q.ContentLength == 0 { // nothing that could be lost
		http.Error(w, why, http.StatusNotFound)
		return
	}
	r.lost.ServeHTTP(w, q.WithContext(context.WithValue(q.Context(), lossKey{}, loss{name, topic, why})))
}

// unknown is the name under which logs and metrics count pushes for what is not there: the path's names are anybody's.
const unknown = "unknown"

// loss is where a push for nothing was to go. The request's context has it, under lossKey.
type (
	loss    struct{ integration, topic, why string }
	lossKey struct{}
)

// lose puts a push to the dead letters.
func (p *Program) lose(ctx context.Context, m envelope.Push) error {
	to, _ := ctx.Value(lossKey{}).(loss)
	ctx, cancel := context.WithTimeout(ctx, p.settings.DeadLettersTimeout)
	defer cancel()
	err := p.dead.Publish(ctx, deadletter.Letter{
		Message: m.Message, Integration: to.integration, Topic: to.topic, Subscription: m.Subscription, MessageID: m.ID,
		DeliveryAttempt: m.DeliveryAttempt, Reason: to.why,
	})
	if err != nil {
		return &outcome.Error{Class: outcome.Retry, Reason: to.why + ", and dead letters cannot be published", Err: err}
	}
	p.tel.Logger().WarnContext(ctx, "a push went to the dead letters", "integration", to.integration, "topic", to.topic,
		"message_id", m.ID, "subscription", m.Subscription, "reason", to.why)
	return nil
}

// tickEvery is how often what is due is looked for where there is CPU between requests.
const tickEvery = time.Second

// ticks does what is due until ctx ends.
func (p *Program) ticks(ctx context.Context) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := p.tickAll(ctx); err != nil && ctx.Err() == nil {
				p.tel.Logger().WarnContext(ctx, "what is due could not all be done", "error", err.Error())
			}
		}
	}
}

// tick answers a scheduler: a function has no CPU between requests.
func (p *Program) tick(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), p.settings.Timeout)
	defer cancel()
	if err := p.tickAll(ctx); err != nil {
		p.tel.Logger().WarnContext(ctx, "what is due could not all be done", "error", err.Error())
		http.Error(w, "not all that is due could be done; the log says why", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *Program) tickAll(ctx context.Context) error {
	errs := make([]error, len(p.alerts)+1)
	var wg sync.WaitGroup
	wg.Go(func() { errs[len(p.alerts)] = p.tickHealth(ctx) })
	for i, a := range p.alerts {
		wg.Go(func() { errs[i] = a.Tick(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
