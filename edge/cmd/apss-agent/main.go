// Command apss-agent is the agent of a node or, as a sidecar, of a pod: it senses files, processes and connections and
// publishes events. Run it with -help for its settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/apss-sensor/apss/edge/internal/agent"
	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/edge/internal/tier"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/telemetry"
)

// version is set by the linker.
var version = "dev"

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// errSettings is in the chain of every error that the settings are to blame for.
var errSettings = errors.New("wrong settings, nothing was started (-help lists them)")

func main() {
	if len(os.Args) == 1 {
		calm()
	}
	os.Exit(command(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// command does what args say and returns the exit code.
func command(args, environ []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		fmt.Fprintln(stderr, "apss-agent:", err)
		return code
	}
	var err error
	switch {
	case len(args) == 0:
		s, err := load(environ)
		if err != nil {
			return fail(exitUsage, fmt.Errorf("%w:\n%w", errSettings, err))
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if err := run(ctx, s, stdout, stderr); errors.Is(err, errSettings) {
			return fail(exitUsage, err)
		} else if err != nil {
			return fail(exitFailed, err)
		}
		return exitOK
	case len(args) == 1 && (args[0] == "-version" || args[0] == "--version"):
		_, err = fmt.Fprintln(stdout, version)
	case len(args) == 1 && (args[0] == "-help" || args[0] == "--help" || args[0] == "-h"):
		err = printHelp(stdout)
	case len(args) == 1 && args[0] == "probe", len(args) == 2 && args[0] == "probe" && args[1] == "-json":
		err = printProbe(stdout, environ, len(args) == 2)
	case len(args) == 1 && args[0] == "test":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if err = sendTest(ctx, environ, stdout, stderr); errors.Is(err, errSettings) {
			return fail(exitUsage, err)
		}
	case len(args) == 2 && args[0] == "spool":
		err = printSpool(stdout, args[1])
	default:
		return fail(exitUsage, fmt.Errorf("no such use: %q; see apss-agent -help", args))
	}
	if err != nil {
		return fail(exitFailed, err)
	}
	return exitOK
}

// listen returns where /metrics and the probes are served, nil for nowhere. An address that is taken ends nothing: in a
// sidecar it may be the application's, and an agent that cannot be asked still sees. Where probes ask, they tell.
func listen(ctx context.Context, address string, log *slog.Logger) net.Listener {
	if address == off {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		log.Error("there is no /metrics and there are no probes: set HTTP_ADDR to another address, or to off", "error", err.Error())
		return nil
	}
	return l
}

// run runs the agent until ctx ends.
func run(ctx context.Context, s *settings, stdout, stderr io.Writer) (err error) {
	limitMemory(s)
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("reading the host's name, part of the default AGENT_ID: %w", err)
	}
	tel, err := telemetry.Start(ctx, telemetry.Config{
		Service: "apss-agent", Version: version, Project: s.PubSubProject, Level: s.LogLevel, Log: stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tel.Shutdown(ctx)) }()
	x, err := newSensors(s, tel.Logger())
	if err != nil {
		return err
	}
	dial := x.dialer()
	net.DefaultResolver.PreferGo, net.DefaultResolver.Dial = true, dial.DialContext // for look-ups make connections too
	listener := listen(ctx, s.HTTPAddr, tel.Logger())
	if listener != nil {
		defer listener.Close()
	}
	view, err := tier.Look(s.Proc)
	if err != nil {
		return err
	}
	loading := loadRules(s, view, tel.Meter(), tel.Logger())
	defer func() { <-loading.done }()
	publisher, err := newPublisher(ctx, s, stdout, dial, x.files.ReadFile)
	if err != nil {
		return err
	}
	place := identity.New(s.AgentID, s.Cluster, s.Node, s.Pod, s.Namespace, host)
	if s.Pod != "" {
		place.Containers = pods.NewOwn(pods.Own{Name: s.Pod, Namespace: s.Namespace, UID: s.PodUID, Workload: s.Workload}, tel.Logger())
		place.Workload = s.Workload
	} else {
		place.Containers = pods.New(pods.Config{
			Node: s.Node, Dial: dial.DialContext, ReadFile: x.files.ReadFile, Logger: tel.Logger(),
		})
	}
	config := s.agent(place)
	found := &facts{
		report: report{view.Tier(), view.Reasons(), view, mechanisms(s, view, place.Containers.Status())}, looked: time.Now(),
		processes: x.processes.Stats, look: func() (tier.View, error) { return tier.Look(s.Proc) }, log: tel.Logger(),
		moved: func(v tier.View) {
			if rules, err := loading.wait(); err == nil {
				rules.See(v.Sights())
			}
		},
	}
	config.Facts = found.now
	config.Version, config.Publisher, config.Meter, config.Logger = version, publisher, tel.Meter(), tel.Logger()
	coverage := func() any { rules, _ := loading.wait(); return rules.Coverage() }
	config.Sources = x.sources(place.Containers, coverage)
	if err := x.register(tel.Meter()); err != nil {
		return errors.Join(err, publisher.Close())
	}
	if config.Rules, err = loading.wait(); err != nil {
		return errors.Join(err, publisher.Close())
	}
	a, err := agent.New(config)
	if err != nil {
		return errors.Join(err, publisher.Close())
	}
	for name, check := range a.Checks() {
		tel.Ready(name, check)
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the drain is over: it is when one looks
	var giving sync.WaitGroup
	defer giving.Wait()
	defer stop()
	giving.Go(func() { giveBack(serving) })
	served := make(chan error, 1)
	go func() {
		if listener == nil {
			served <- nil
			return
		}
		served <- httpx.Serve(serving, listener, tel.Handler(), time.Second)
	}()
	tel.Logger().Info("the agent runs", "version", version, "agent_id", config.Identity.AgentID, "publisher", s.Publisher, "spool", s.SpoolDir,
		"tier", found.report.Tier, "why_not_more", found.report.WhyNotMore, "mechanisms", found.report.facts()["mechanisms"])
	err = a.Run(ctx)
	stop()
	return errors.Join(err, <-served)
}
