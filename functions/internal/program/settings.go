package program

import (
	"io"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/secret"
	"github.com/apss-sensor/apss/shared/setting"
)

// settings are the environment's. The tag help is what -help prints.
type settings struct {
	Port     uint16     `env:"PORT, default=8080" help:"of the functions and of /metrics /healthz /readyz"`
	LogLevel slog.Level `env:"LOG_LEVEL, default=INFO" help:"DEBUG, INFO, WARN or ERROR"`

	Project            string        `env:"PUBSUB_PROJECT_ID, required" help:"Google Cloud project of the topics; required"`
	DeadLettersTopic   string        `env:"DEAD_LETTERS_TOPIC, default=apss-dead-letters" help:"topic, by its id or full name, for what can never be delivered"`
	DeadLettersTimeout time.Duration `env:"DEAD_LETTERS_TIMEOUT, default=10s" help:"time to publish a push's dead letters, 1s to 1m"`
	EventsTopic        string        `env:"EVENTS_TOPIC, default=apss-events" help:"topic that Health publishes canaries to"`
	AlertsTopic        string        `env:"ALERTS_TOPIC, default=apss-alerts" help:"likewise, and alerts about silent agents"`

	Integrations secret.Value `env:"APSS_INTEGRATIONS" help:"the document of integrations (docs/integrations.md), or the file that it is in"`
	Local        bool         `env:"APSS_LOCAL, default=false" help:"a developer's machine: secrets may stand in the document, receivers may have private addresses"`
	Service      string       `env:"K_SERVICE" help:"set by Cloud Run"`

	AdminToken  secret.Value  `env:"APSS_ADMIN_TOKEN" help:"what a caller of /health must show, as a reference or itself; not set: nobody is let in, but on Cloud Run, which asks itself, and locally"`
	CheckEvery  time.Duration `env:"HEALTH_CHECK_EVERY, default=1m" help:"time between two checks of an integration, 10s to 1h"`
	CanaryEvery time.Duration `env:"HEALTH_CANARY_EVERY, default=5m" help:"time between two canaries, 10s to 1h; 0s: none"`
	Silence     time.Duration `env:"HEALTH_AGENT_SILENCE, default=3m" help:"how long an agent without a heartbeat is not told of, 1s to 24h"`
	Monitoring  string        `env:"HEALTH_MONITORING, default=cloud" help:"what knows how much waits in the subscriptions: cloud, off, or in a local run the host:port of a stand-in"`

	StateStore         secret.Value `env:"STATE_STORE, default=memory" help:"what instances remember together (docs/state.md): memory (each its own), redis://, rediss:// or firestore://"`
	StateStorePassword secret.Value `env:"STATE_STORE_PASSWORD" help:"its password, as a reference"`

	SweetSecurityKey       secret.Value `env:"SWEET_SECURITY_API_KEY" help:"a reference; makes an integration of this kind beside those of the document"`
	SweetSecurityEndpoint  secret.Value `env:"SWEET_SECURITY_ENDPOINT" help:"its URL"` // people put keys into URLs
	SweetSecurityAllowHTTP bool         `env:"SWEET_SECURITY_ALLOW_HTTP, default=false" help:"the URL may be http"`
	SlackWebhookURL        secret.Value `env:"SLACK_WEBHOOK_URL" help:"a reference; makes a Slack integration likewise"`

	Linger    time.Duration `env:"FORWARD_LINGER, default=50ms" help:"how long a batch may gather events of several pushes, 0s to 1s"`
	MaxEvents int           `env:"FORWARD_MAX_EVENTS, default=1000" help:"events in a call to the receiver, at most 10000"`
	MaxBytes  int           `env:"FORWARD_MAX_BYTES, default=1048576" help:"their bytes, from 1024"`
	Flushes   int           `env:"FORWARD_FLUSHES, default=4" help:"calls to one receiver of events at the same time, 1 to 100"`
	Calls     int           `env:"NOTIFY_CALLS, default=64" help:"calls to one receiver of alerts at the same time, 1 to 1000"`
	InHand    int64         `env:"FORWARD_MAX_IN_HAND, default=67108864" help:"bytes of pushes at the same time; more are answered 429 and come again"`

	// Of events and alerts alike.
	CallTimeout time.Duration `env:"FORWARD_CALL_TIMEOUT, default=10s" help:"time for a call to a receiver, 100ms to 5m"`
	Timeout     time.Duration `env:"FORWARD_TIMEOUT, default=45s" help:"time for a push, from request to answer"`
	AckDeadline time.Duration `env:"FORWARD_ACK_DEADLINE, default=60s" help:"that of the subscriptions, 10s to 10m"`
}

// Help writes a line for each setting.
func Help(w io.Writer) error { return setting.Help(w, settings{}, nil) }

// prefixes are ours: an unknown key under them is a spelling mistake.
func prefixes() []string {
	return []string{
		"FORWARD_", "NOTIFY_", "SWEET_SECURITY_", "SLACK_", "STATE_STORE", "DEAD_LETTERS_", "HEALTH_", "APSS_INTEGRATION", "APSS_ADMIN",
	}
}

func loadSettings(environ []string) (settings, error) {
	var s settings
	err := setting.Load(environ, prefixes(), &s)
	return s, err
}

// callTries is how often the receiver is called for one batch before the answer: once, and once more with a new key.
const callTries = 2

// deliver is the time for a push's delivery, the rest of Timeout being that for its dead letters.
func (s *settings) deliver() time.Duration { return s.Timeout - s.DeadLettersTimeout }

// topicPattern: cloud.google.com/pubsub/docs/pubsub-basics#resource_names.
const topicPattern = `^(projects/[^/]+/topics/)?[A-Za-z][A-Za-z0-9._~%+-]{2,254}$`

// Validate reports every setting that is out of range or contradicts another.
func (s *settings) Validate() error {
	var f setting.Faults
	if s.Port == 0 {
		f.Add("PORT", "is 0, want 1 to 65535")
	}
	topics := regexp.MustCompile(topicPattern)
	for _, t := range []struct{ key, topic string }{
		{"DEAD_LETTERS_TOPIC", s.DeadLettersTopic}, {"EVENTS_TOPIC", s.EventsTopic}, {"ALERTS_TOPIC", s.AlertsTopic},
	} {
		if t.topic != "" && !topics.MatchString(t.topic) {
			f.Add(t.key, "%q is no topic's id or full name", t.topic)
		}
	}
	setting.Between(&f, "HEALTH_CHECK_EVERY", s.CheckEvery, 10*time.Second, time.Hour)
	if s.CanaryEvery != 0 {
		setting.Between(&f, "HEALTH_CANARY_EVERY", s.CanaryEvery, 10*time.Second, time.Hour)
	}
	setting.Between(&f, "HEALTH_AGENT_SILENCE", s.Silence, time.Second, 24*time.Hour)
	if host, port, err := net.SplitHostPort(s.Monitoring); s.Monitoring != "cloud" && s.Monitoring != "off" && s.Monitoring != "" {
		switch {
		case err != nil || host == "" || port == "":
			f.Add("HEALTH_MONITORING", "%.100q is none of cloud, off and host:port", s.Monitoring)
		case !s.Local:
			f.Add("HEALTH_MONITORING", "is the address of a stand-in, which is for local runs (APSS_LOCAL=true): want cloud or off")
		}
	}
	// Longer answers make Pub/Sub push more slowly (cloud.google.com/pubsub/docs/push#push_backoff).
	setting.Between(&f, "FORWARD_LINGER", s.Linger, 0, time.Second)
	setting.Between(&f, "FORWARD_CALL_TIMEOUT", s.CallTimeout, 100*time.Millisecond, 5*time.Minute)
	setting.Between(&f, "DEAD_LETTERS_TIMEOUT", s.DeadLettersTimeout, time.Second, time.Minute)
	// cloud.google.com/pubsub/docs/lease-management: an ack deadline is 10 to 600 s.
	setting.Between(&f, "FORWARD_ACK_DEADLINE", s.AckDeadline, 10*time.Second, 600*time.Second)
	setting.Between(&f, "FORWARD_MAX_EVENTS", s.MaxEvents, 1, envelope.MaxEvents)
	setting.Between(&f, "FORWARD_MAX_BYTES", s.MaxBytes, 1<<10, envelope.MaxUnpacked)
	setting.Between(&f, "FORWARD_FLUSHES", s.Flushes, 1, 100)
	setting.Between(&f, "NOTIFY_CALLS", s.Calls, 1, 1000)
	if s.Local && s.Service != "" {
		f.Add("APSS_LOCAL", "is for a developer's machine, and K_SERVICE says that this is Cloud Run: take APSS_LOCAL away")
	}
	// See [budget.Budget.Share]: what is opened must fit into what the push itself leaves.
	if least := int64(2*envelope.MaxPush + envelope.MaxUnpacked); s.InHand < least {
		f.Add("FORWARD_MAX_IN_HAND", "is %d, want at least %d: twice the largest push, and what it unpacks to", s.InHand, least)
	}
	if least := s.Linger + callTries*s.CallTimeout + s.DeadLettersTimeout; s.Timeout <= least {
		f.Add("FORWARD_TIMEOUT", "is %v, want more than %v = FORWARD_LINGER + %d x FORWARD_CALL_TIMEOUT + DEAD_LETTERS_TIMEOUT",
			s.Timeout, least, callTries)
	}
	if s.Timeout >= s.AckDeadline {
		f.Add("FORWARD_TIMEOUT", "is %v, want less than FORWARD_ACK_DEADLINE, %v: Pub/Sub would give up before the answer",
			s.Timeout, s.AckDeadline)
	}
	return f.Err()
}
