package main

import (
	"cmp"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/setting"
	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/inject"
)

// settings are the webhook's, from the environment. The tag help is what -help prints.
type settings struct {
	All      bool          `env:"INJECT_ALL, default=false" help:"inject into all namespaces but those labelled apss.dev/inject=disabled; else only into those labelled enabled"`
	OptOut   decide.OptOut `env:"INJECT_OPT_OUT, default=namespace" help:"whose pods may do without by annotation: never, namespace (those labelled apss.dev/pod-opt-out=allowed), always"`
	Tier     decide.Tier   `env:"INJECT_TIER, default=auto" help:"auto, pod-full, pod-same-uid or pod-limited; a pod may ask for another"`
	Excluded []string      `env:"INJECT_EXCLUDED" help:"patterns of namespaces that are never injected, besides the system's"`
	Classic  bool          `env:"INJECT_CLASSIC, default=false" help:"no native sidecars"`
	First    bool          `env:"INJECT_FIRST, default=false" help:"before the application's init containers"`
	Share    bool          `env:"INJECT_SHARE_PROCESSES, default=true" help:"one process namespace for the containers of a pod, where neither the pod nor its annotation apss.dev/share-processes says otherwise; without, the agent sees little"`
	Security string        `env:"INJECT_POD_SECURITY, default=privileged" help:"level of Pod Security that namespaces without a label are held to (the defaults in the API server's AdmissionConfiguration): privileged, baseline, restricted"`

	Image    string            `env:"SIDECAR_IMAGE" help:"of the agent, by digest; required"`
	AnyImage bool              `env:"SIDECAR_ANY_IMAGE, default=false" help:"a tag will do: for local clusters"`
	Pull     []string          `env:"SIDECAR_PULL_SECRETS" help:"names of Secrets to pull it with, added to the pods' own; they have to be in their namespaces"`
	Port     int               `env:"SIDECAR_PORT, default=18080" help:"of the agent's /metrics and probes, in the network of the application"`
	Spool    string            `env:"SIDECAR_SPOOL, default=64Mi" help:"size of its volume for what is not confirmed"`
	CPU      string            `env:"SIDECAR_CPU_REQUEST, default=50m" help:"its request"`
	Memory   string            `env:"SIDECAR_MEMORY_REQUEST, default=64Mi" help:"its request"`
	MaxCPU   string            `env:"SIDECAR_CPU_LIMIT, default=250m" help:"its limit"`
	MaxMem   string            `env:"SIDECAR_MEMORY_LIMIT, default=128Mi" help:"its limit"`
	Env      map[string]string `env:"SIDECAR_ENV, delimiter=;, separator==" help:"further settings of the agent: NAME=value;NAME=value"`

	Relay      string   `env:"CONTROLLER_ENDPOINT" help:"URL of the relay; by default https://apss-relay.POD_NAMESPACE.svc:8444"`
	Audience   string   `env:"RELAY_AUDIENCE, default=apss-relay" help:"of the sidecars' tokens"`
	RelayCA    string   `env:"RELAY_CA_FILE" help:"authorities that sidecars trust the relay by, with CERTS=files; by default the system's"`
	RelayNames []string `env:"RELAY_NAMES" help:"names and addresses in the relay's certificate; by default those of CONTROLLER_ENDPOINT"`

	Certs         string        `env:"CERTS, default=self" help:"self: an authority of our own; files: TLS_CERT_FILE and TLS_KEY_FILE, kept by others"`
	CertFile      string        `env:"TLS_CERT_FILE" help:"certificate, PEM, read again when it changes; with CERTS=files"`
	KeyFile       string        `env:"TLS_KEY_FILE" help:"its key"`
	PathsFile     string        `env:"WEBHOOK_PATHS_FILE" help:"with CERTS=files: paths of reviews, one each line (/mutate/ and something secret), read again; by default /mutate, for whoever asks"`
	Secret        string        `env:"CERTS_SECRET, default=apss-webhook-certs" help:"Secret of POD_NAMESPACE for the authority; it has to exist"`
	RelaySecret   string        `env:"RELAY_CERTS_SECRET, default=apss-relay-certs" help:"Secret for the relay's certificate; it has to exist; off: none"`
	Configuration string        `env:"WEBHOOK_CONFIGURATION, default=apss-webhook" help:"MutatingWebhookConfiguration whose caBundle and path are kept"`
	Service       string        `env:"WEBHOOK_SERVICE, default=apss-webhook" help:"our Service: its names are in the certificate"`
	Grace         time.Duration `env:"CA_GRACE, default=720h" help:"how long a new authority is published before it signs: pods that are older have to be replaced by then; 1m to 8760h"`

	Publisher   string `env:"PUBLISHER, default=pubsub" help:"where admission events go: pubsub, stdout, off"`
	Project     string `env:"PUBSUB_PROJECT_ID" help:"Google Cloud project of the topic; required by pubsub"`
	EventsTopic string `env:"EVENTS_TOPIC, default=apss-events" help:"topic of events"`
	Emulator    string `env:"PUBSUB_EMULATOR_HOST" help:"host:port of a Pub/Sub emulator, used instead of the service"`
	Queue       int    `env:"AUDIT_QUEUE, default=4096" help:"requests that may wait to be made events of, 16 to 1000000; more are dropped and counted"`

	Coverage time.Duration `env:"COVERAGE_INTERVAL, default=1m" help:"time between two looks for pods without a sidecar, 10s to 24h"`
	Restart  bool          `env:"COVERAGE_RESTART, default=false" help:"evict such pods, where a controller replaces them and disruption budgets allow it"`

	Cluster   string `env:"CLUSTER_NAME, default=local" help:"name of the cluster"`
	Pod       string `env:"POD_NAME" help:"our pod; required"`
	Namespace string `env:"POD_NAMESPACE" help:"our namespace; required"`

	HTTPSAddr       string        `env:"HTTPS_ADDR, default=:8443" help:"address of the reviews"`
	HTTPAddr        string        `env:"HTTP_ADDR, default=:8080" help:"address of /metrics /healthz /readyz"`
	InFlight        int           `env:"REVIEWS_IN_FLIGHT, default=64" help:"reviews that are worked on at the same time, 1 to 10000"`
	Connections     int           `env:"MAX_CONNECTIONS, default=2048" help:"to HTTPS_ADDR, 16 to 100000; beyond it the address that has most gives way"`
	EachConnections int           `env:"MAX_CONNECTIONS_PER_ADDRESS, default=512" help:"likewise of one address, 1 to MAX_CONNECTIONS"`
	Delay           time.Duration `env:"DRAIN_DELAY, default=10s" help:"how long it is served on after the end was asked for, so that all learn that we go, 0s to 5m"`
	Drain           time.Duration `env:"DRAIN_TIMEOUT, default=10s" help:"time for what is in hand then, 1s to 5m; together less than the pod's terminationGracePeriodSeconds"`
	LogLevel        slog.Level    `env:"LOG_LEVEL, default=INFO" help:"DEBUG, INFO, WARN or ERROR"`
}

// prefixes are those of our settings: a key that starts with one and is none is a mistake.
var prefixes = []string{
	"APSS_", "INJECT_", "SIDECAR_", "RELAY_", "CERTS", "CA_GRACE", "WEBHOOK_", "AUDIT_", "COVERAGE_", "REVIEWS_", "DRAIN_", "MAX_CONN", "PUBLISH", "EVENTS_TOPIC",
}

const off = "off"

// load reads and checks the settings; the error holds everything that is wrong.
func load(environ []string) (*settings, error) {
	s := new(settings)
	return s, setting.Load(environ, prefixes, s)
}

// Validate reports all that is out of range or contradictory, and fills in what follows from the rest.
func (s *settings) Validate() error {
	var f setting.Faults
	needs := func(key, value, why string) {
		if value == "" {
			f.Add(key, "it is not set: %s", why)
		}
	}
	needs("POD_NAME", s.Pod, "the downward API has it, metadata.name")
	needs("POD_NAMESPACE", s.Namespace, "the downward API has it, metadata.namespace")
	s.Relay = cmp.Or(s.Relay, "https://apss-relay."+s.Namespace+".svc:8444")
	switch s.Certs {
	case "self":
	case "files":
		needs("TLS_CERT_FILE", s.CertFile, "CERTS=files serves it")
		needs("TLS_KEY_FILE", s.KeyFile, "CERTS=files serves it")
	default:
		f.Add("CERTS", "%q is none of self, files", s.Certs)
	}
	if s.Certs == "self" && s.RelayCA != "" {
		f.Add("RELAY_CA_FILE", "with CERTS=self the relay has our authority's certificate")
	}
	if s.Certs == "self" && s.PathsFile != "" {
		f.Add("WEBHOOK_PATHS_FILE", "with CERTS=self the path is drawn and published by us")
	}
	switch s.Publisher {
	case "pubsub":
		needs("PUBSUB_PROJECT_ID", s.Project, "PUBLISHER=pubsub needs the project of its topic")
	case "stdout", off:
	default:
		f.Add("PUBLISHER", "%q is none of pubsub, stdout, off", s.Publisher)
	}
	setting.Between(&f, "CA_GRACE", s.Grace, time.Minute, 365*24*time.Hour)
	setting.Between(&f, "COVERAGE_INTERVAL", s.Coverage, 10*time.Second, 24*time.Hour)
	setting.Between(&f, "DRAIN_DELAY", s.Delay, 0, 5*time.Minute)
	setting.Between(&f, "DRAIN_TIMEOUT", s.Drain, time.Second, 5*time.Minute)
	setting.Between(&f, "AUDIT_QUEUE", s.Queue, 16, 1_000_000)
	setting.Between(&f, "REVIEWS_IN_FLIGHT", s.InFlight, 1, 10_000)
	setting.Between(&f, "MAX_CONNECTIONS", s.Connections, 16, 100_000)
	setting.Between(&f, "MAX_CONNECTIONS_PER_ADDRESS", s.EachConnections, 1, s.Connections)
	d, c := s.decide(), s.sidecar("")
	return f.Err(d.Validate(), c.Validate())
}

func (s *settings) decide() decide.Settings {
	return decide.Settings{All: s.All, OptOut: s.OptOut, Tier: s.Tier, Own: s.Namespace, Excluded: s.Excluded, Classic: s.Classic, First: s.First, Unshared: !s.Share, Security: s.Security}
}

func (s *settings) sidecar(relayCA string) inject.Sidecar {
	return inject.Sidecar{
		Image: s.Image, AnyImage: s.AnyImage, Cluster: s.Cluster, Relay: s.Relay, RelayCA: relayCA, Audience: s.Audience, Port: s.Port, Spool: s.Spool,
		Request: inject.Amount{CPU: s.CPU, Memory: s.Memory}, Limit: inject.Amount{CPU: s.MaxCPU, Memory: s.MaxMem}, Env: s.Env, PullSecrets: s.Pull,
	}
}

// names are those that the API server may call us by (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#service-reference).
func (s *settings) names() []string { return serviceNames(s.Service, s.Namespace) }

func serviceNames(service, namespace string) []string {
	name := service + "." + namespace + ".svc"
	return []string{name, name + ".cluster.local"}
}

// relayNames are those that sidecars call the relay by.
func (s *settings) relayNames() []string {
	if len(s.RelayNames) > 0 {
		return s.RelayNames
	}
	host := hostOf(s.Relay)
	if net.ParseIP(host) == nil && strings.HasSuffix(host, ".svc") {
		return []string{host, host + ".cluster.local"}
	}
	return []string{host}
}

const usage = `apss-webhook answers the API server's admission reviews: it puts the agent beside the containers of pods.

  apss-webhook            run until SIGTERM or SIGINT
  apss-webhook -version   print the version
  apss-webhook -help      print this

Exit codes: 0 ended as asked, 1 failed while running, 2 wrong settings or usage.

Settings, from the environment:

`

// printHelp prints the usage and one line for each setting.
func printHelp(w io.Writer) error {
	if _, err := io.WriteString(w, usage); err != nil {
		return err
	}
	return setting.Help(w, settings{}, nil)
}
