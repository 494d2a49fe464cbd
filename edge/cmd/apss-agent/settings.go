package main

import (
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/file"
	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/setting"
)

// settings are the agent's, from the environment. The tag help is what -help prints.
type settings struct {
	Publisher          string `env:"PUBLISHER, default=pubsub" help:"where to: pubsub, relay (from a sidecar), or stdout (NDJSON, for a person)"`
	Relay              string `env:"CONTROLLER_ENDPOINT" help:"address of the relay, https://host:port; required by relay"`
	RelayTokenFile     string `env:"RELAY_TOKEN_FILE, default=/var/run/secrets/apss/token" help:"the pod's token for the relay, read again when it changes"`
	RelayCA            string `env:"RELAY_CA" help:"certificates of the relay's authority, PEM; not set: the system's"`
	PubSubProject      string `env:"PUBSUB_PROJECT_ID" help:"Google Cloud project of the topics; required by pubsub"`
	EventsTopic        string `env:"EVENTS_TOPIC, default=apss-events" help:"topic of events"`
	AlertsTopic        string `env:"ALERTS_TOPIC, default=apss-alerts" help:"topic of alerts"`
	PubSubEmulatorHost string `env:"PUBSUB_EMULATOR_HOST" help:"host:port of a Pub/Sub emulator, used instead of the service"`
	InFlight           int    `env:"PUBLISH_IN_FLIGHT, default=4" help:"messages of a lane under way at the same time, 1 to 64"`

	Cluster   string `env:"CLUSTER_NAME, default=local" help:"name of the cluster"`
	Node      string `env:"NODE_NAME" help:"name of the node"`
	Pod       string `env:"POD_NAME" help:"in a sidecar: its pod; not set in a DaemonSet"`
	Namespace string `env:"POD_NAMESPACE" help:"namespace of POD_NAME"`
	PodUID    string `env:"POD_UID" help:"uid of POD_NAME, from the downward API"`
	Workload  string `env:"WORKLOAD" help:"what POD_NAME belongs to, for instance Deployment/my-app"`
	AgentID   string `env:"AGENT_ID" help:"by default CLUSTER_NAME/ and POD_NAME, else NODE_NAME, else the host's name"`

	SpoolDir       string `env:"SPOOL_DIR, default=/var/lib/apss/spool" help:"folder for what is not confirmed yet; one for each agent"`
	SpoolMax       int64  `env:"SPOOL_MAX_BYTES, default=268435456" help:"bound of the events in it; full: the oldest give way"`
	SpoolAlertsMax int64  `env:"SPOOL_ALERTS_MAX_BYTES, default=67108864" help:"bound of the alerts in it"`
	SpoolSegment   int64  `env:"SPOOL_SEGMENT_BYTES, default=4194304" help:"size of its files, 65536 to 67108864"`
	StateDir       string `env:"STATE_DIR, default=/var/lib/apss/state" help:"folder for what the sensors remember"`

	BufferEvents int           `env:"BUFFER_EVENTS, default=100000" help:"events that may wait in memory, 100 to 10000000"`
	BufferAlerts int           `env:"BUFFER_ALERTS, default=10000" help:"alerts that may wait in memory, 10 to 1000000"`
	BufferBytes  int           `env:"BUFFER_BYTES, default=67108864" help:"bytes that either may take, 1048576 to 4294967296"`
	SealCount    int           `env:"SEAL_COUNT, default=100" help:"events in a message, 1 to 10000"`
	SealBytes    int           `env:"SEAL_BYTES, default=262144" help:"their bytes before compression, 1024 to 8388608"`
	SealAfter    time.Duration `env:"SEAL_AFTER, default=200ms" help:"how long the first may wait, 1ms to 1m; HIGH and CRITICAL never wait"`
	Heartbeat    time.Duration `env:"HEARTBEAT_INTERVAL, default=60s" help:"time between two heartbeats, 1s to 1h"`
	Drain        time.Duration `env:"DRAIN_TIMEOUT, default=8s" help:"time to send what waits when asked to end, 0s to 10m; Kubernetes gives 30s"`

	ProcInterval    time.Duration  `env:"PROC_SCAN_INTERVAL, default=200ms" help:"time between two looks at the processes, 1ms to 1h"`
	NetInterval     time.Duration  `env:"NET_SCAN_INTERVAL, default=500ms" help:"time between two looks at the sockets, 10ms to 1h"`
	WatchPaths      []string       `env:"WATCH_PATHS" help:"files and folders to watch, most important first; * ? [ ] are patterns; they need not exist yet"`
	LogPaths        []string       `env:"LOG_PATHS" help:"files that are written all the time, likewise: that they go, shrink or change owner or mode is told; off: none"`
	ReadPaths       []string       `env:"READ_PATHS" help:"files and folders of which every open is told, likewise; off: none"`
	NoDiff          []string       `env:"NO_DIFF" help:"patterns of what is never shown in a diff, besides shadow files, keys, tokens and the like: with a slash for a path and all below, without for a name"`
	Env             []string       `env:"PROC_ENV" help:"names of the variables whose values the event of a program shows; off: none"`
	Mechanisms      []string       `env:"PROC_MECHANISMS, default=connector,opens,polling" help:"ways to learn that programs start that may be tried, in this order; polling is the last in any case"`
	HashRedacted    bool           `env:"HASH_REDACTED, default=false" help:"put a hash, keyed by this run of the agent, in the place of each credential that is taken out of arguments and diffs"`
	SuspiciousPorts []uint16       `env:"SUSPICIOUS_PORTS, default=4444,5555,6666,1337,3389,5900,5901,6379,27017" help:"ports of the other side that make a connection suspicious"`
	InternalNets    []netip.Prefix `env:"INTERNAL_NETS, default=100.64.0.0/10" help:"networks that count as internal besides the private ones (RFC 1918, 4193): the cluster's ranges"`
	RulesPack       bool           `env:"RULES_PACK, default=true" help:"whether the rules that come with the agent are evaluated"`
	RulesDirs       []string       `env:"RULES_DIRS" help:"folders of Sigma rules, laid over the pack by id, each over those before; read again when they change"`
	AlertWindow     time.Duration  `env:"ALERT_WINDOW, default=5m" help:"how long repeats of an alert are counted before the count is told, 1s to 24h; 0s tells each"`
	Proc            string         `env:"HOST_PROC, default=/proc" help:"where procfs is mounted"`
	Root            string         `env:"HOST_ROOT, default=/" help:"where the watched file system is mounted"`

	HTTPAddr string     `env:"HTTP_ADDR, default=:8080" help:"address of /metrics /healthz /readyz; off: none"`
	LogLevel slog.Level `env:"LOG_LEVEL, default=INFO" help:"DEBUG, INFO, WARN or ERROR"`
}

// prefixes are those of our settings: a key that starts with one and is none is a mistake.
var prefixes = []string{
	"APSS_", "SPOOL_", "BUFFER_", "SEAL_", "PUBLISH", "WATCH_", "PROC_SCAN_", "NET_SCAN_", "HEARTBEAT_", "DRAIN_",
	"SUSPICIOUS_", "INTERNAL_NETS", "RULES_", "ALERT_", "EVENTS_TOPIC", "ALERTS_TOPIC", "LOG_PATH", "READ_PATH", "NO_DIFF", "PROC_ENV", "PROC_MECH",
	"HASH_REDACT", "RELAY_", "CONTROLLER_ENDPOINT",
}

// load reads and checks the settings; the error holds everything that is wrong.
func load(environ []string) (*settings, error) {
	s := new(settings)
	return s, setting.Load(environ, prefixes, s)
}

// Validate reports all that is out of range or contradictory.
func (s *settings) Validate() error {
	var f setting.Faults
	absolute := func(key, path string) {
		if !filepath.IsAbs(path) {
			f.Add(key, "%q is not an absolute path", path)
		}
	}
	switch s.Publisher {
	case "pubsub":
		if s.PubSubProject == "" {
			f.Add("PUBSUB_PROJECT_ID", "PUBLISHER=pubsub needs the project of its topics")
		}
		if s.EventsTopic == s.AlertsTopic {
			f.Add("ALERTS_TOPIC", "%q is also EVENTS_TOPIC: alerts have a topic of their own", s.AlertsTopic)
		}
	case "relay":
		if _, err := s.relay(); err != nil {
			f.Add("PUBLISHER", "relay cannot work with CONTROLLER_ENDPOINT and RELAY_CA as they are: %w", err)
		}
		absolute("RELAY_TOKEN_FILE", s.RelayTokenFile)
	case "stdout":
	default:
		f.Add("PUBLISHER", "%q is none of pubsub, relay, stdout", s.Publisher)
	}
	if s.Pod == "" && s.Namespace != "" {
		f.Add("POD_NAMESPACE", "it is the namespace of POD_NAME, which is not set")
	}
	setting.Between(&f, "PUBLISH_IN_FLIGHT", s.InFlight, 1, 64)
	absolute("SPOOL_DIR", s.SpoolDir)
	absolute("STATE_DIR", s.StateDir)
	setting.Between(&f, "SPOOL_SEGMENT_BYTES", s.SpoolSegment, spool.MinSegmentBytes, spool.MaxSegmentBytes)
	for key, v := range map[string]int64{"SPOOL_MAX_BYTES": s.SpoolMax, "SPOOL_ALERTS_MAX_BYTES": s.SpoolAlertsMax} {
		setting.Between(&f, key, v, 2*spool.MinSegmentBytes, 1<<40)
		if v < 2*s.SpoolSegment {
			f.Add(key, "%d is less than two files of SPOOL_SEGMENT_BYTES=%d", v, s.SpoolSegment)
		}
	}
	setting.Between(&f, "BUFFER_EVENTS", s.BufferEvents, 100, 10_000_000)
	setting.Between(&f, "BUFFER_ALERTS", s.BufferAlerts, 10, 1_000_000)
	setting.Between(&f, "BUFFER_BYTES", s.BufferBytes, 1<<20, 4<<30)
	setting.Between(&f, "SEAL_COUNT", s.SealCount, 1, 10_000) // envelope.MaxEvents
	setting.Between(&f, "SEAL_BYTES", s.SealBytes, 1<<10, 8<<20)
	if s.SealCount > s.BufferEvents {
		f.Add("SEAL_COUNT", "%d is more than BUFFER_EVENTS=%d", s.SealCount, s.BufferEvents)
	}
	if s.SealBytes > s.BufferBytes {
		f.Add("SEAL_BYTES", "%d is more than BUFFER_BYTES=%d", s.SealBytes, s.BufferBytes)
	}
	setting.Between(&f, "SEAL_AFTER", s.SealAfter, time.Millisecond, time.Minute)
	setting.Between(&f, "HEARTBEAT_INTERVAL", s.Heartbeat, time.Second, time.Hour)
	setting.Between(&f, "DRAIN_TIMEOUT", s.Drain, 0, 10*time.Minute)
	setting.Between(&f, "PROC_SCAN_INTERVAL", s.ProcInterval, time.Millisecond, time.Hour)
	setting.Between(&f, "NET_SCAN_INTERVAL", s.NetInterval, 10*time.Millisecond, time.Hour)
	pattern := func(key, p string) {
		if _, err := filepath.Match(p, ""); err != nil {
			f.Add(key, "%q is no pattern: a [ without its ], or a \\ at the end", p)
		}
	}
	for _, p := range s.watchPaths() {
		absolute("WATCH_PATHS", p)
		pattern("WATCH_PATHS", p)
	}
	for _, p := range s.logPaths() {
		absolute("LOG_PATHS", p)
		pattern("LOG_PATHS", p)
	}
	for _, p := range s.readPaths() {
		absolute("READ_PATHS", p)
		pattern("READ_PATHS", p)
	}
	for _, p := range s.NoDiff {
		pattern("NO_DIFF", p)
	}
	for _, name := range s.env() {
		if name == "" || strings.ContainsAny(name, "=\x00 ") {
			f.Add("PROC_ENV", "%q is no name of a variable", name)
		}
	}
	for _, name := range s.Mechanisms {
		if !slices.Contains(process.Mechanisms(), name) {
			f.Add("PROC_MECHANISMS", "%q is none of %s", name, strings.Join(process.Mechanisms(), ", "))
		}
	}
	if slices.Contains(s.SuspiciousPorts, 0) {
		f.Add("SUSPICIOUS_PORTS", "0 is no port")
	}
	for _, dir := range s.RulesDirs {
		absolute("RULES_DIRS", dir)
	}
	if s.AlertWindow != 0 {
		setting.Between(&f, "ALERT_WINDOW", s.AlertWindow, time.Second, 24*time.Hour)
	}
	absolute("HOST_PROC", s.Proc)
	absolute("HOST_ROOT", s.Root)
	if s.HTTPAddr != off {
		if _, port, err := net.SplitHostPort(s.HTTPAddr); err != nil {
			f.Add("HTTP_ADDR", "%q is not like \":8080\" or \"127.0.0.1:8080\"; \"off\" turns it off", s.HTTPAddr)
		} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			f.Add("HTTP_ADDR", "%q is not a port from 0 to 65535", port)
		}
	}
	return f.Err()
}

// off is the HTTP_ADDR of an agent that serves nothing, and a list of nothing: an empty setting is one that is not set.
const off = "off"

// orElse returns list, what is its default where it is not set, and an empty one where it is off.
func orElse(list []string, byDefault func() []string) []string {
	switch {
	case len(list) == 0:
		return byDefault()
	case len(list) == 1 && list[0] == off:
		return []string{}
	}
	return list
}

func (s *settings) watchPaths() []string {
	if len(s.WatchPaths) == 0 {
		return file.DefaultPaths()
	}
	return s.WatchPaths
}

func (s *settings) logPaths() []string { return orElse(s.LogPaths, file.DefaultLogs) }

func (s *settings) readPaths() []string { return orElse(s.ReadPaths, file.DefaultReadPaths) }

func (s *settings) env() []string { return orElse(s.Env, process.DefaultEnv) }

// computed are the defaults that the sensors know, as -help shows them.
func computed() map[string]string {
	return map[string]string{
		"WATCH_PATHS": strings.Join(file.DefaultPaths(), ","),
		"LOG_PATHS":   strings.Join(file.DefaultLogs(), ","),
		"READ_PATHS":  strings.Join(file.DefaultReadPaths(), ","),
		"PROC_ENV":    strings.Join(process.DefaultEnv(), ","),
	}
}
