// Package system is the whole of APSS on one machine: the programs apss-agent and apss-functions as they are deployed,
// a broker, the push dispatcher and the receivers' stand-ins between and behind them, and the books of what went through.
package system

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

// The names of the cloud side, as they are deployed.
const (
	Project          = "apss-local"
	EventsTopic      = "apss-events"
	AlertsTopic      = "apss-alerts"
	DeadLettersTopic = "apss-dead-letters"
)

// Config says how to run the system. Make it with Defaults.
type Config struct {
	Bin   string   // folder of the programs
	Dir   string   // of logs, spool, state and the demo folder; made when it is not there
	Watch []string // what the agent watches besides the demo folder

	AlertWindow time.Duration // the agent's, for repeats of an alert; 0 is its default
	NoPack      bool          // the agent evaluates only the rules of RulesDir

	// Ports on 127.0.0.1; 0 takes a free one.
	PubSubPort, FunctionsPort, AgentPort, SweetPort, SlackPort, PagerDutyPort, WebhookPort int
	// PubSubHost is where Pub/Sub is to be reached, for agents on other machines; 127.0.0.1 unless given.
	PubSubHost string
	// Emulator is the host:port of Google's emulator; empty uses the broker in this process.
	Emulator string

	// How the functions tell people: repeats in IncidentWindow are one update, quiet for ResolveAfter is the end. NoRate
	// takes the limit of messages away.
	IncidentWindow, ResolveAfter time.Duration
	NoRate                       bool
	CallTimeout                  time.Duration // of the functions' calls to receivers

	CanaryEvery time.Duration // Sweet Security and the webhook get one so often; 0: nobody does
	Heartbeat   time.Duration // between two of an agent's; 0 is its default
	Silence     time.Duration // after which an agent is silent; 0 is the functions' default

	// Env is put to the functions' environment. Receivers changes the receivers, Sweet Security the first of them, before
	// they start; nil: they are as they are.
	Env       []string
	Receivers func([]*Receiver) []*Receiver

	// Of each push subscription; Filter only of the events'.
	AckDeadline            time.Duration
	MinBackoff, MaxBackoff time.Duration
	MaxAttempts            int
	Filter                 string
	MaxPushBackoff         time.Duration
}

// Defaults returns the settings of make demo. The agent's paths are the first version's. Retries come far sooner than
// they would in the cloud, so that a person sees them, and end as late as the service allows.
func Defaults() Config {
	return Config{
		Bin:         "bin",
		Watch:       []string{"/etc/passwd", "/etc/shadow", "/etc/sudoers", "/root/.ssh", "/etc/crontab", "/var/spool/cron"},
		AckDeadline: time.Minute, MinBackoff: 500 * time.Millisecond, MaxBackoff: 10 * time.Second, MaxAttempts: 100,
		MaxPushBackoff: 2 * time.Second,
		IncidentWindow: 15 * time.Second, ResolveAfter: 2 * time.Minute, CallTimeout: 10 * time.Second,
	}
}

// Demo is the folder that is there to be played with.
func (c Config) Demo() string { return filepath.Join(c.Dir, "watched") }

// Keys is a file in the demo folder whose name makes its changes HIGH. It does not exist at first, its folder does.
func (c Config) Keys() string { return filepath.Join(c.Demo(), ".ssh", "authorized_keys") }

// RulesDir is the agent's folder of rules, laid over the pack; empty at first.
func (c Config) RulesDir() string { return filepath.Join(c.Dir, "rules") }

// LogFile is where the programs' output goes.
func (c Config) LogFile() string { return filepath.Join(c.Dir, "apss-local.log") }

// SpoolDir is the agent's spool.
func (c Config) SpoolDir() string { return filepath.Join(c.Dir, "spool") }

// ControlFile sets the environment of apssctl, for a shell.
func (c Config) ControlFile() string { return filepath.Join(c.Dir, "apssctl.env") }

// StateDir is where the agent's sensors remember.
func (c Config) StateDir() string { return filepath.Join(c.Dir, "state") }

// Program returns a program's path.
func (c Config) Program(name string) string { return filepath.Join(c.Bin, name) }

func (c Config) subscription(name, endpoint string) dispatch.Subscription {
	return dispatch.Subscription{
		Name: "projects/" + Project + "/subscriptions/" + name, Endpoint: endpoint,
		AckDeadline: c.AckDeadline, MinBackoff: c.MinBackoff, MaxBackoff: c.MaxBackoff, Filter: c.Filter,
		DeadLetterTopic: "projects/" + Project + "/topics/" + DeadLettersTopic, MaxDeliveryAttempts: c.MaxAttempts,
	}
}

// Validate reports everything that is wrong before anything is started.
func (c Config) Validate() error {
	errs := []error{c.subscription(EventsTopic+"-"+SweetSecurity, "http://127.0.0.1:1/").Validate()}
	for _, p := range c.ports() {
		if p.port < 0 || p.port > 65535 {
			errs = append(errs, fmt.Errorf("-%s %d: must be from 1 to 65535, or 0 for a free one", p.flag, p.port))
			continue
		}
		if p.port == 0 {
			continue
		}
		l, err := net.Listen("tcp", local(p.port)) //nolint:noctx // loopback: it cannot block
		if err != nil {
			errs = append(errs, fmt.Errorf("-%s: %w", p.flag, err))
			continue
		}
		_ = l.Close()
	}
	if c.Emulator != "" && c.PubSubPort != 0 {
		errs = append(errs, errors.New("-pubsub-port has no meaning with PUBSUB_EMULATOR_HOST set: leave one of them"))
	}
	for _, name := range programs() {
		info, err := os.Stat(c.Program(name))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s is not there: run make build, or name its folder with -bin", c.Program(name)))
		case info.IsDir() || info.Mode()&0o111 == 0:
			errs = append(errs, fmt.Errorf("%s is no program: run make build", c.Program(name)))
		}
	}
	for _, path := range append([]string{c.Dir}, c.Watch...) {
		if strings.Contains(path, ",") {
			errs = append(errs, fmt.Errorf("path %q: must have no comma", path))
		}
	}
	for _, dir := range []string{c.Dir, filepath.Dir(c.Keys()), c.SpoolDir(), c.StateDir(), c.RulesDir()} {
		if err := writable(dir); err != nil {
			errs = append(errs, fmt.Errorf("-dir: %w", err))
			break
		}
	}
	return errors.Join(errs...)
}

// programs are those that are run.
func programs() []string { return []string{"apss-agent", "apss-functions", "apssctl"} }

func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

type port struct {
	flag string
	port int
}

func (c Config) ports() []port {
	return []port{{"pubsub-port", c.PubSubPort}, {"functions-port", c.FunctionsPort}, {"agent-port", c.AgentPort}, {"sweet-port", c.SweetPort},
		{"slack-port", c.SlackPort}, {"pagerduty-port", c.PagerDutyPort}, {"webhook-port", c.WebhookPort}}
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort returns p, or a port that was free a moment ago, for a program that cannot be given a listener. It is none of
// those that the kernel gives to connections, from 32768 (ip_local_port_range, ip(7)): one of them would take it while the
// program starts, or starts again.
func freePort(p int) (int, error) {
	if p != 0 {
		return p, nil
	}
	const first, last, tries = 12_000, 30_000, 100
	var err error
	for range tries {
		p := first + rand.IntN(last-first) //nolint:gosec // no secret
		var l net.Listener
		if l, err = net.Listen("tcp", local(p)); err == nil { //nolint:noctx // loopback: it cannot block
			return p, l.Close()
		}
	}
	return 0, fmt.Errorf("looking for a free port: %w", err)
}

func (c Config) brokerOptions() broker.Options {
	return broker.Options{
		Project: Project, Topics: []string{EventsTopic, AlertsTopic, DeadLettersTopic},
		Emulator: c.Emulator, Addr: net.JoinHostPort(cmp.Or(c.PubSubHost, "127.0.0.1"), strconv.Itoa(c.PubSubPort)),
	}
}
