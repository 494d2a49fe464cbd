package system

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
	"github.com/apss-sensor/apss/infra/local/internal/ledger"
	"github.com/apss-sensor/apss/infra/local/internal/standin"
	"github.com/apss-sensor/apss/infra/local/internal/standin/pagerduty"
	"github.com/apss-sensor/apss/infra/local/internal/standin/slack"
	"github.com/apss-sensor/apss/infra/local/internal/standin/sweetsecurity"
	"github.com/apss-sensor/apss/infra/local/internal/standin/webhook"
	"github.com/apss-sensor/apss/shared/event"
)

// The integrations that run here, by the names of their instances.
const (
	SweetSecurity = "sweetsecurity"
	Slack         = "slack"
	PagerDuty     = "pagerduty"
	Webhook       = "webhook"
)

// Receiver is an integration of the functions with the stand-in behind it.
type Receiver struct {
	Name     string
	Kind     string // as a person calls it
	Addr     string // host:port
	Switches *standin.Switches
	Board    *standin.Board // what is seen there; nil: nothing is shown
	Pushes   []*Push        // its subscriptions

	// The books of alerts, by id at a receiver for programs and by incident at one for people: one of the two.
	Alerts    *ledger.Ledger
	Incidents *ledger.Incidents

	tests  atomic.Int64 // marked messages: tests and canaries
	canary bool         // it gets canaries, where there are any

	// Topics are those it takes, Settings the instance's in the functions' document: "{}" in a text stands for Addr.
	Topics   []string
	Settings map[string]any
	Handler  http.Handler // nil: somebody else listens at Addr
	TLS      *tls.Config  // nil: in the clear

	server *http.Server
}

// Push is a push subscription. It has a retry and dead-letter policy of its own.
type Push struct {
	Name, Topic string
	*dispatch.Dispatcher
	source broker.Source
}

// Balance is what became of alerts at a receiver: published = delivered + dead + waiting. For people it is in events that
// alerts stand for, and delivered are those that were told of, one by one or in a count.
type Balance struct {
	Published, Delivered, Dead, Waiting, Twice int64
}

// Balance returns the sums of this moment. The observers of the topics may be a moment behind the stand-in.
func (r *Receiver) Balance() Balance {
	if r.Incidents != nil {
		t := r.Incidents.Totals()
		return Balance{t.Published, t.Told, t.Dead, t.Waiting, t.Over}
	}
	t := r.Alerts.Totals()
	return Balance{t.Published, t.Delivered, t.Dead - t.Both, t.InFlight, t.DeliveredTwice} // a letter that was replayed is delivered
}

// Held is how many messages wait in the receiver's subscriptions.
func (r *Receiver) Held() int {
	n := 0
	for _, p := range r.Pushes {
		if p.Dispatcher != nil { // it was started
			n += p.Stats().Held
		}
	}
	return n
}

// Receivers returns them all.
func (s *System) Receivers() []*Receiver { return s.receivers }

// Receiver returns the one with a name.
func (s *System) Receiver(name string) *Receiver {
	for _, r := range s.receivers {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Events is the subscription of the events to Sweet Security.
func (s *System) Events() *Push { return s.receivers[0].Pushes[0] }

// newReceivers makes them with credentials of their own, and without addresses.
func (s *System) newReceivers() error {
	key, token, routing := rand.Text(), "xoxb-"+rand.Text(), (rand.Text() + rand.Text())[:32]
	const channel = "C0LOCALSOC"
	sweet := sweetsecurity.New(sweetsecurity.Options{Key: key, Events: s.delivered, Alerts: s.alertDelivered})
	chat := slack.New(slack.Options{Token: token, Channel: channel, Webhook: "/services/T0/B0/" + rand.Text()})
	pager := pagerduty.New(routing)
	signing := "whsec_" + base64.StdEncoding.EncodeToString([]byte(rand.Text()))
	hook, err := webhook.New(signing)
	if err != nil {
		return err
	}
	hook.Taken = func(id string, body []byte, at time.Time) {
		if r := s.Receiver(Webhook); bytes.Contains(body, testType) {
			r.tests.Add(1)
		} else {
			r.Alerts.Delivered(id, at) // the id is the alert's
		}
	}
	s.receivers = []*Receiver{
		{
			Name: SweetSecurity, Kind: "Sweet Security", Switches: &sweet.Switches, Handler: sweet, Topics: []string{EventsTopic, AlertsTopic}, canary: true,
			Alerts: ledger.New(ledgerCapacity), Settings: map[string]any{"endpoint": "http://{}", "api_key": key, "allow_http": true},
		},
		{
			Name: Slack, Kind: "Slack", Switches: &chat.Switches, Board: &chat.Board, Handler: chat, Topics: []string{AlertsTopic},
			Incidents: new(ledger.Incidents),
			Settings:  map[string]any{"api_url": "http://{}/api", "bot_token": token, "channel": channel},
		},
		{
			Name: PagerDuty, Kind: "PagerDuty", Switches: &pager.Switches, Board: &pager.Board, Handler: pager, Topics: []string{AlertsTopic},
			Incidents: new(ledger.Incidents),
			Settings:  map[string]any{"api_url": "http://{}", "routing_key": routing},
		},
		{
			Name: Webhook, Kind: "Webhook", Switches: &hook.Switches, Board: &hook.Board, Handler: hook, Topics: []string{AlertsTopic}, canary: true,
			Alerts:   ledger.New(ledgerCapacity),
			Settings: map[string]any{"url": "http://{}/alerts", "secret": signing, "allow_private": true},
		},
	}
	if s.Config.Receivers != nil {
		s.receivers = s.Config.Receivers(s.receivers)
	}
	for _, r := range s.receivers {
		if r.Board != nil {
			r.Board.Changed = func(m standin.Message) { s.shown(r, m) }
		}
	}
	return nil
}

// startReceivers gives each its address.
func (s *System) startReceivers() error {
	ports := map[string]int{SweetSecurity: s.Config.SweetPort, Slack: s.Config.SlackPort, PagerDuty: s.Config.PagerDutyPort, Webhook: s.Config.WebhookPort}
	for _, r := range s.receivers {
		if r.Handler == nil {
			continue
		}
		l, err := net.Listen("tcp", local(ports[r.Name])) //nolint:noctx // loopback: it cannot block
		if err != nil {
			return fmt.Errorf("starting %s's stand-in: %w", r.Kind, err)
		}
		r.Addr = l.Addr().String()
		if r.TLS != nil {
			l = tls.NewListener(l, r.TLS)
		}
		r.server = &http.Server{
			Handler: r.Handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn),
		}
		s.background.Go(func() { _ = r.server.Serve(l) }) // ErrServerClosed, always
	}
	return nil
}

// document is the functions' document of integrations.
func (s *System) document() (string, error) {
	c := s.Config
	list := make([]map[string]any, 0, len(s.receivers))
	for _, r := range s.receivers {
		in := map[string]any{"name": r.Name, "kind": r.Name, "enabled": true, "canary": r.canary && c.CanaryEvery > 0}
		for key, value := range r.Settings {
			if text, ok := value.(string); ok {
				value = strings.ReplaceAll(text, "{}", r.Addr)
			}
			in[key] = value
		}
		if r.Incidents != nil {
			in["group"] = map[string]string{"window": c.IncidentWindow.String(), "resolve_after": c.ResolveAfter.String()}
			if c.NoRate {
				in["rate"] = map[string]int{"per_minute": 0}
			}
		}
		list = append(list, in)
	}
	text, err := json.Marshal(list)
	return string(text), err
}

// subscribe makes each receiver's subscriptions. It must come before anything can be published.
func (s *System) subscribe(ctx context.Context) error {
	for _, r := range s.receivers {
		for _, topic := range r.Topics {
			name := topic + "-" + r.Name
			source, err := s.Broker.Subscribe(ctx, topic, name)
			if err != nil {
				return err
			}
			r.Pushes = append(r.Pushes, &Push{Name: name, Topic: topic, source: source})
		}
	}
	source, err := s.Broker.Subscribe(ctx, EventsTopic, agentsSubscription)
	if err != nil {
		return err
	}
	s.heartbeats = &Push{Name: agentsSubscription, Topic: EventsTopic, source: source}
	return s.Broker.Keep(ctx, DeadLettersTopic, DeadLettersTopic)
}

// The functions follow the agents by a subscription of their own. Canaries pass, for they show that the topic moves.
const (
	agentsSubscription = EventsTopic + "-agents"
	agentsFilter       = `attributes:heartbeats OR attributes:"ce-canary"`
)

// startPushes starts a dispatcher for each subscription.
func (s *System) startPushes(ctx context.Context) error {
	ctx, s.stopPush = context.WithCancel(context.WithoutCancel(ctx))
	at := "http://" + s.functionsAt + "/"
	for _, r := range s.receivers {
		for _, p := range r.Pushes {
			sub := s.Config.subscription(p.Name, at+strings.TrimPrefix(p.Topic, "apss-")+"/"+r.Name)
			if p.Topic != EventsTopic {
				sub.Filter = ""
			}
			if err := s.startPush(ctx, p, sub); err != nil {
				return err
			}
		}
	}
	sub := s.Config.subscription(agentsSubscription, at+"events/_agents")
	sub.Filter, sub.DeadLetterTopic = agentsFilter, ""
	return s.startPush(ctx, s.heartbeats, sub)
}

func (s *System) startPush(ctx context.Context, p *Push, sub dispatch.Subscription) (err error) {
	p.Dispatcher, err = dispatch.New(sub, p.source, s.Broker, dispatch.Options{MaxPushBackoff: s.Config.MaxPushBackoff, Log: s.logger})
	if err != nil {
		return err
	}
	s.pushing.Go(func() { p.Run(ctx) })
	return nil
}

// Tests is how many marked messages a receiver for programs was sent: tests and canaries.
func (r *Receiver) Tests() int64 { return r.tests.Load() }

// testType is how the type of a marked message stands in JSON, at Sweet Security and in a webhook's body.
var testType = []byte(`"type":"` + string(event.IntegrationTest) + `"`)

func (s *System) alertDelivered(raw event.Raw, at time.Time) {
	a, err := event.DecodeAlert(raw)
	if err != nil {
		s.logger.Warn("an alert arrived that cannot be read", "error", err)
		return
	}
	r := s.Receiver(SweetSecurity)
	if a.Event != nil && a.Event.Type == event.IntegrationTest {
		r.tests.Add(1)
		return
	}
	r.Alerts.Delivered(a.ID, at)
	if s.watch.AlertDelivered != nil {
		s.watch.AlertDelivered(a, at)
	}
}

var (
	fingerprint = regexp.MustCompile(`(?i)\bfingerprint:? ([^\s·]+)`)
	digest      = regexp.MustCompile(`^(?:\S+ )?([0-9,]+) incidents in one message: ([0-9,]+) alerts`)
	seen        = regexp.MustCompile(`\bseen (?:once|([0-9,]+) times)`)
)

// told is which incident a message says it is about, and how often that was seen; ok is false when it says neither. The
// alert's own words stand before ours: the last ones count.
func told(text string) (incident string, n int64, ok bool) {
	prints, times := fingerprint.FindAllStringSubmatch(text, -1), seen.FindAllStringSubmatch(text, -1)
	if len(prints) == 0 || len(times) == 0 {
		return "", 0, false
	}
	n = 1
	if digits := times[len(times)-1][1]; digits != "" {
		n = number(digits)
	}
	return prints[len(prints)-1][1], n, true
}

// number reads digits and commas; what is too large is the largest.
func number(s string) int64 {
	n, _ := strconv.ParseInt(strings.ReplaceAll(s, ",", ""), 10, 64)
	return n
}

// TestNote marks a message that somebody asked for, to try the way.
const TestNote = "This is a test of the way from APSS"

func (s *System) shown(r *Receiver, m standin.Message) {
	if r.Incidents == nil {
		// A program got an alert, which is in its books by id.
	} else if d := digest.FindStringSubmatch(m.Title); d != nil {
		r.Incidents.Listed(number(d[1]), number(d[2]))
	} else if incident, n, ok := told(m.Text); ok && !strings.Contains(m.Text, TestNote) {
		r.Incidents.Told(incident, m.ID, n)
	}
	if s.watch.Shown != nil {
		s.watch.Shown(r.Name, m)
	}
}

// Weight is how many events of an incident an alert tells of that none told of before.
func Weight(a *event.Alert) int64 {
	if a.Resolved {
		return 0
	}
	if a.Metadata.Summary {
		return int64(a.Metadata.Suppressed)
	}
	return int64(max(a.Count, 1))
}

// publishedAlert notes an alert in the books of everybody who is to get it; one that is published twice is one.
func (s *System) publishedAlert(a *event.Alert, at time.Time) {
	known := slices.ContainsFunc(s.receivers, func(r *Receiver) bool { return r.Alerts != nil && r.Alerts.Get(a.ID).Published > 0 })
	for _, r := range s.receivers {
		switch {
		case r.Alerts != nil:
			r.Alerts.Published(a.ID, at)
		case !known:
			r.Incidents.Published(a.Fingerprint, Weight(a))
		}
	}
}

// deadAlert notes a dead letter of the integration that its attributes name.
func (s *System) deadAlert(m dispatch.Message, a *event.Alert) {
	name := m.Attributes["apss-integration"]
	for _, r := range s.receivers {
		for _, p := range r.Pushes {
			if p.Name == m.Attributes[dispatch.AttributeSubscription] {
				name = r.Name
			}
		}
	}
	switch r := s.Receiver(name); {
	case r == nil:
		s.logger.Warn("a dead letter of an integration that is not known", "integration", name)
	case r.Alerts != nil:
		r.Alerts.Dead(a.ID)
	default:
		r.Incidents.Dead(a.Fingerprint, Weight(a))
	}
}
