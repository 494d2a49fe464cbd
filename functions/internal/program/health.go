package program

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/apss-sensor/apss/functions/internal/forward"
	"github.com/apss-sensor/apss/functions/internal/health"
	"github.com/apss-sensor/apss/functions/internal/health/backlog"
	"github.com/apss-sensor/apss/functions/internal/secretmanager"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/secret"
)

// agentsPath is where the heartbeats come. Its last segment is no instance's name.
const agentsPath = "/" + events + "/_agents"

// newHealth makes what watches the instances. Every function has it: figures and canaries are counted where they happen.
func (p *Program) newHealth(instances []health.Instance) (*health.Health, error) {
	s := p.settings
	c := health.Config{
		Version: p.version, Instances: instances, State: p.state, Publish: p.publish,
		// Cloud Run asks who calls before we are: https://cloud.google.com/run/docs/authenticating/overview
		Open:       s.Local || s.Service != "",
		CheckEvery: s.CheckEvery, CanaryEvery: s.CanaryEvery, Silence: s.Silence, Timeout: s.CallTimeout,
		Log: p.tel.Logger(), Meter: p.tel.Meter(),
	}
	if p.backlog != nil {
		c.Waiting = p.backlog.Read
	}
	if !s.AdminToken.Empty() {
		token, err := secret.Schemes{secretmanager.Scheme: p.secrets.Parse}.Parse(s.AdminToken.Reveal())
		if err != nil {
			return nil, fmt.Errorf("%w:\nAPSS_ADMIN_TOKEN: %w", ErrSettings, err)
		}
		c.Token = token
	}
	return health.New(c)
}

const (
	// Cloud Monitoring has new figures each minute; a stand-in always has.
	freshInCloud, freshLocally = time.Minute, time.Second
)

// newBacklog returns what reads how much waits; nil where nobody knows: without Cloud Monitoring in a local run, and with
// an emulator of Pub/Sub, which gives no metrics.
func (p *Program) newBacklog() *backlog.Reader {
	s := p.settings
	c := backlog.Config{Project: s.Project, Topics: []string{path.Base(s.EventsTopic), path.Base(s.AlertsTopic)}, Fresh: freshInCloud}
	switch {
	case s.Monitoring == "off", !slices.Contains(p.functions, Health):
		return nil
	case s.Monitoring != "cloud":
		c.Standin, c.Fresh = s.Monitoring, freshLocally
	case s.Local, os.Getenv("PUBSUB_EMULATOR_HOST") != "": // as the client of Pub/Sub looks for it
		return nil
	}
	return backlog.New(c)
}

// serveHealth adds what only the function Health serves.
func (p *Program) serveHealth(mux *http.ServeMux) error {
	p.health.Register(mux)
	heartbeats, err := p.pushHandler("_agents", p.health.Heartbeats)
	if err != nil {
		return err
	}
	mux.Handle(agentsPath, heartbeats)
	return nil
}

// publish hands m to a topic and waits until Pub/Sub has it.
func (p *Program) publish(ctx context.Context, topic string, m envelope.Message) error {
	name := map[string]string{events: p.settings.EventsTopic, alerts: p.settings.AlertsTopic}[topic]
	if !strings.Contains(name, "/") {
		name = "projects/" + p.client.Project() + "/topics/" + name
	}
	ctx, cancel := context.WithTimeout(ctx, p.settings.DeadLettersTimeout)
	defer cancel()
	_, err := p.client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
		Topic: name, Messages: []*pubsubpb.PubsubMessage{{Data: m.Data, Attributes: m.Attributes}},
	})
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", name, err)
	}
	return nil
}

// checkAtStart asks each receiver once whether it would take what we send, so that a wrong key shows at the start and not
// with the first event.
func (p *Program) checkAtStart(ctx context.Context) {
	if err := p.health.Check(ctx); err != nil && ctx.Err() == nil {
		p.tel.Logger().WarnContext(ctx, "not every check could be kept", "error", err.Error())
	}
}

// tickHealth does what of health is due. A function that is not Health only adds up its figures.
func (p *Program) tickHealth(ctx context.Context) error {
	if slices.Contains(p.functions, Health) {
		return p.health.Tick(ctx)
	}
	p.flusher.maybe(ctx)
	return nil
}

// collect adds this instance's figures to the state.
func (p *Program) collect(ctx context.Context) {
	if err := p.health.Collect(ctx); err != nil {
		p.tel.Logger().WarnContext(ctx, "figures could not be kept; they are with the next ones", "error", err.Error())
	}
}

func figuresOfEvents(f *forward.Forward) func() health.Figures {
	return func() health.Figures {
		s := f.Stats()
		return health.Figures{Accepted: s.Accepted, DeadLettered: s.DeadLettered, Failures: s.Failures, Breaker: s.Breaker}
	}
}

func figuresOfAlerts(a alertHandler) func() health.Figures {
	return func() health.Figures {
		s := a.Stats()
		return health.Figures{
			Accepted: s.Sent + s.Counted + s.Digested, DeadLettered: s.DeadLettered, Failures: s.Failures, Breaker: s.Breaker,
		}
	}
}
