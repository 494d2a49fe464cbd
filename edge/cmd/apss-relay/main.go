// Command apss-relay takes events and alerts from the sidecars of a cluster, proves which pod speaks, and publishes them in
// few messages. Run it with -help for its settings.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/relay"
	"github.com/apss-sensor/apss/edge/internal/relay/token"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/setting"
	"github.com/apss-sensor/apss/shared/telemetry"
)

// version is set by the linker.
var version = "dev"

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `apss-relay takes events and alerts from the sidecars of a cluster and publishes them.

  apss-relay              run until SIGTERM or SIGINT
  apss-relay -version     print the version
  apss-relay -help        print this

It asks the API server whose a token is: its service account needs the right to create tokenreviews, and no other.
Exit codes: 0 ended as asked, 1 failed while running, 2 wrong settings or usage.

Settings, from the environment:

`

func main() { os.Exit(command(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// command does what args say and returns the exit code.
func command(args, environ []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		fmt.Fprintln(stderr, "apss-relay:", err)
		return code
	}
	var err error
	switch {
	case len(args) == 0:
		s, err := load(environ)
		if err != nil {
			return fail(exitUsage, fmt.Errorf("wrong settings, nothing was started (-help lists them):\n%w", err))
		}
		api, err := rest.InClusterConfig()
		if err != nil {
			return fail(exitFailed, fmt.Errorf("reaching the API server, which proves who sends: %w", err))
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		if err := run(ctx, s, api, stderr, func(net.Addr) {}); err != nil {
			return fail(exitFailed, err)
		}
	case len(args) == 1 && (args[0] == "-version" || args[0] == "--version"):
		_, err = fmt.Fprintln(stdout, version)
	case len(args) == 1 && (args[0] == "-help" || args[0] == "--help" || args[0] == "-h"):
		err = printHelp(stdout)
	default:
		return fail(exitUsage, fmt.Errorf("no such use: %q; see apss-relay -help", args))
	}
	if err != nil {
		return fail(exitFailed, err)
	}
	return exitOK
}

// limitMemory sets the collector's limits unless the environment did. The heap is small beside the room that events may
// take: collecting a quarter as often costs some MiB and saves a tenth of the time.
func limitMemory(s *settings) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(2*int64(s.Room) + 128<<20)
	}
}

// run serves until ctx ends, and then answers what is under way. It calls listening once with the address of /v1/events.
func run(ctx context.Context, s *settings, api *rest.Config, stderr io.Writer, listening func(net.Addr)) (err error) {
	limitMemory(s)
	tel, err := telemetry.Start(ctx, telemetry.Config{
		Service: "apss-relay", Version: version, Project: s.PubSubProject, Level: s.LogLevel, Log: stderr,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tel.Shutdown(ctx)) }()
	certificate, err := httpx.ReadCertificate(s.CertFile, s.KeyFile, tel.Logger())
	if err != nil {
		return err
	}
	tel.Ready("certificate", certificate.Check)
	tel.Gauge("apss.relay.certificate.expiry", "s", "when the certificate ends, in seconds since 1970", func() int64 {
		if ends := certificate.Expires(); !ends.IsZero() {
			return ends.Unix()
		}
		return 0
	})
	asked := make(map[string]*telemetry.Counter)
	for _, result := range token.Results() {
		asked[result] = tel.Counter("apss.relay.token.reviews", "{review}", "questions to the API server whose a token is", attribute.String("result", result))
	}
	tokens, err := token.New(token.Config{
		API: api, Audience: s.Audience, Fresh: s.TokenFresh, Logger: tel.Logger(), Asked: func(result string) { asked[result].Add(1) },
	})
	if err != nil {
		return err
	}
	publisher, err := publish.NewPubSub(context.WithoutCancel(ctx), publish.PubSubConfig{
		Project: s.PubSubProject, EventsTopic: s.EventsTopic, AlertsTopic: s.AlertsTopic,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, publisher.Close()) }()
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("reading the host's name (set POD_NAME instead): %w", err)
	}
	r, err := relay.New(relay.Config{
		Cluster: s.Cluster, AgentID: s.Cluster + "/" + cmp.Or(s.Pod, host), Tokens: tokens, Publisher: publisher,
		Seal:  relay.Seal{Count: s.SealCount, Bytes: s.SealBytes, After: s.SealAfter},
		Apart: s.apart, Room: s.Room, MaxBody: int64(s.MaxBody), Telemetry: tel,
		Pod: relay.PodLimits{Requests: s.PodRequests, Events: float64(s.PodEvents), Bytes: float64(s.PodBytes)},
	})
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	events, err := listen.Listen(ctx, "tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("listening for events (RELAY_ADDR): %w", err)
	}
	probes, err := listen.Listen(ctx, "tcp", s.HTTPAddr)
	if err != nil {
		return errors.Join(fmt.Errorf("listening for /metrics and probes (HTTP_ADDR): %w", err), events.Close())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // until the drain is over: it is when one looks
	defer stop()
	served := make(chan error, 1)
	go func() { served <- httpx.Serve(serving, probes, tel.Handler(), time.Second) }()
	tel.Logger().Info("the relay runs", "version", version, "address", events.Addr().String(), "cluster", s.Cluster, "audience", s.Audience)
	listening(events.Addr())
	closed := tel.Counter("apss.relay.connections.closed", "{connection}", "connections that were closed because there were too many, of one address or in all")
	bound := &httpx.Bound{Listener: events, Total: s.Connections, Each: s.EachConnections, Closed: func() { closed.Add(1) }}
	err = httpx.Server{Handler: r.Handler(), Grace: s.Drain, Log: tel.Logger()}.Serve(ctx, tls.NewListener(bound, certificate.TLS()))
	stop()
	return errors.Join(err, <-served)
}

// printHelp prints the usage and one line for each setting.
func printHelp(w io.Writer) error {
	if _, err := io.WriteString(w, usage); err != nil {
		return err
	}
	return setting.Help(w, settings{}, nil)
}
