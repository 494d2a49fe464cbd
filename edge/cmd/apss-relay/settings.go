package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/apss-sensor/apss/shared/setting"
)

// settings are the relay's, from the environment. The tag help is what -help prints.
type settings struct {
	Addr     string `env:"RELAY_ADDR, default=:8444" help:"address of /v1/events"`
	CertFile string `env:"TLS_CERT_FILE, required" help:"its certificate with the chain, PEM; read again when it changes"`
	KeyFile  string `env:"TLS_KEY_FILE, required" help:"the certificate's key, PEM; likewise"`
	Audience string `env:"RELAY_AUDIENCE, default=apss-relay" help:"audience of the tokens that are accepted"`
	// TokenFresh is when a deleted pod's token is refused at the latest.
	TokenFresh time.Duration `env:"TOKEN_FRESH, default=5m" help:"how long an accepted token is not asked about again, 1s to 1h"`

	PubSubProject      string `env:"PUBSUB_PROJECT_ID, required" help:"Google Cloud project of the topics"`
	EventsTopic        string `env:"EVENTS_TOPIC, default=apss-events" help:"topic of events"`
	AlertsTopic        string `env:"ALERTS_TOPIC, default=apss-alerts" help:"topic of alerts"`
	PubSubEmulatorHost string `env:"PUBSUB_EMULATOR_HOST" help:"host:port of a Pub/Sub emulator, used instead of the service"`

	Cluster string `env:"CLUSTER_NAME, default=local" help:"name of the cluster, written over what events say"`
	Pod     string `env:"POD_NAME" help:"the relay's own; by default the host's name"`

	SealCount int           `env:"SEAL_COUNT, default=1000" help:"events in a message, 1 to 10000"`
	SealBytes int           `env:"SEAL_BYTES, default=1048576" help:"their bytes before compression, 1024 to 8388608"`
	SealAfter time.Duration `env:"SEAL_AFTER, default=500ms" help:"how long the first may wait, 0s to 5s; HIGH and CRITICAL never wait"`
	Apart     []string      `env:"SEAL_NAMESPACES, default=off" help:"namespaces with messages of their own, so that filters on the attribute save pushes; * all, off none"`

	PodRequests int `env:"POD_REQUESTS, default=16" help:"requests of a pod at the same time, 1 to 128"`
	PodEvents   int `env:"POD_EVENTS_PER_SECOND, default=2000" help:"events of a pod over time, 1 to 1000000"`
	PodBytes    int `env:"POD_BYTES_PER_SECOND, default=4194304" help:"their bytes, 65536 to 1073741824"`
	Room        int `env:"ROOM_BYTES, default=67108864" help:"bytes of events in hand, 4194304 to 4294967296; a pod has an eighth at most"`
	MaxBody     int `env:"MAX_BODY_BYTES, default=2097152" help:"bytes of a request, 65536 to 10000000"`

	Connections     int `env:"MAX_CONNECTIONS, default=8192" help:"to RELAY_ADDR, 16 to 100000; beyond it the address that has most gives way"`
	EachConnections int `env:"MAX_CONNECTIONS_PER_ADDRESS, default=512" help:"likewise of one address, which in some networks is a node's, 1 to MAX_CONNECTIONS"`

	Drain    time.Duration `env:"DRAIN_TIMEOUT, default=20s" help:"time to answer what is under way when asked to end, 0s to 10m; Kubernetes gives 30s"`
	HTTPAddr string        `env:"HTTP_ADDR, default=:8080" help:"address of /metrics /healthz /readyz"`
	LogLevel slog.Level    `env:"LOG_LEVEL, default=INFO" help:"DEBUG, INFO, WARN or ERROR"`
}

// prefixes are those of our settings: a key that starts with one and is none is a mistake.
var prefixes = []string{"APSS_", "RELAY_", "TLS_", "TOKEN_", "SEAL_", "POD_REQUESTS", "POD_EVENTS", "POD_BYTES", "ROOM_", "MAX_BODY", "MAX_CONN", "DRAIN_", "EVENTS_TOPIC", "ALERTS_TOPIC"}

// load reads and checks the settings; the error holds everything that is wrong.
func load(environ []string) (*settings, error) {
	s := new(settings)
	return s, setting.Load(environ, prefixes, s)
}

// off is a list of nothing: an empty setting is one that is not set.
const off = "off"

// Validate reports all that is out of range or contradictory.
func (s *settings) Validate() error {
	var f setting.Faults
	for key, addr := range map[string]string{"RELAY_ADDR": s.Addr, "HTTP_ADDR": s.HTTPAddr} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			f.Add(key, "%q is not like \":8444\" or \"127.0.0.1:8444\"", addr)
		}
	}
	for key, path := range map[string]string{"TLS_CERT_FILE": s.CertFile, "TLS_KEY_FILE": s.KeyFile} {
		if !filepath.IsAbs(path) {
			f.Add(key, "%q is not an absolute path", path)
		}
	}
	if s.EventsTopic == s.AlertsTopic {
		f.Add("ALERTS_TOPIC", "%q is also EVENTS_TOPIC: alerts have a topic of their own", s.AlertsTopic)
	}
	setting.Between(&f, "TOKEN_FRESH", s.TokenFresh, time.Second, time.Hour)
	setting.Between(&f, "SEAL_COUNT", s.SealCount, 1, 10_000) // envelope.MaxEvents
	setting.Between(&f, "SEAL_BYTES", s.SealBytes, 1<<10, 8<<20)
	setting.Between(&f, "SEAL_AFTER", s.SealAfter, 0, 5*time.Second)
	setting.Between(&f, "POD_REQUESTS", s.PodRequests, 1, 128)
	setting.Between(&f, "POD_EVENTS_PER_SECOND", s.PodEvents, 1, 1_000_000)
	setting.Between(&f, "POD_BYTES_PER_SECOND", s.PodBytes, 64<<10, 1<<30)
	setting.Between(&f, "ROOM_BYTES", s.Room, 4<<20, 4<<30)
	setting.Between(&f, "MAX_BODY_BYTES", s.MaxBody, 64<<10, 10_000_000) // Pub/Sub's own limit of a message
	setting.Between(&f, "MAX_CONNECTIONS", s.Connections, 16, 100_000)
	setting.Between(&f, "MAX_CONNECTIONS_PER_ADDRESS", s.EachConnections, 1, s.Connections)
	setting.Between(&f, "DRAIN_TIMEOUT", s.Drain, 0, 10*time.Minute)
	return f.Err()
}

// apart reports whether a namespace's events get messages of their own.
func (s *settings) apart(namespace string) bool {
	if len(s.Apart) == 1 && (s.Apart[0] == "*" || s.Apart[0] == off) {
		return s.Apart[0] == "*"
	}
	return slices.Contains(s.Apart, namespace)
}
