package main

import (
	"context"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"

	"google.golang.org/api/option"
	"google.golang.org/grpc"

	"github.com/apss-sensor/apss/edge/internal/agent"
	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/spool"
)

// refusedBytes bounds what is kept, in each lane, of messages that will never be accepted.
const refusedBytes = 16 << 20

// agent returns the agent's part of s.
func (s *settings) agent(id identity.Identity) agent.Config {
	lane := func(name string, count int, maxBytes int64, seal agent.Seal, sync bool) agent.LaneConfig {
		dir := filepath.Join(s.SpoolDir, name)
		return agent.LaneConfig{
			Buffer:   buffer.Limits{Count: count, Bytes: s.BufferBytes},
			Seal:     seal,
			Spool:    spool.Config{Dir: dir, MaxBytes: maxBytes, SegmentBytes: s.SpoolSegment, Sync: sync, Fresh: 2 * s.InFlight},
			Refused:  spool.Config{Dir: filepath.Join(dir, "refused"), MaxBytes: refusedBytes, SegmentBytes: refusedBytes / 8},
			InFlight: s.InFlight,
		}
	}
	return agent.Config{
		Identity:  id,
		Events:    lane("events", s.BufferEvents, s.SpoolMax, agent.Seal{Count: s.SealCount, Bytes: s.SealBytes, After: s.SealAfter}, false),
		Alerts:    lane("alerts", s.BufferAlerts, s.SpoolAlertsMax, agent.Seal{Count: 1, Bytes: s.SealBytes}, true),
		Heartbeat: s.Heartbeat,
		Drain:     s.Drain,
	}
}

// relay returns a publisher that opens its connections and its token like any program.
func (s *settings) relay() (*publish.Relay, error) { return s.relayThrough(nil, nil) }

func (s *settings) relayThrough(dial *net.Dialer, readFile func(string) ([]byte, error)) (*publish.Relay, error) {
	return publish.NewRelay(publish.RelayConfig{
		Endpoint: s.Relay, TokenFile: s.RelayTokenFile, CA: s.RelayCA, UserAgent: "apss-agent/" + version, Dialer: dial, ReadFile: readFile,
	})
}

// newPublisher makes the publisher that s asks for. It connects through dial, but where a proxy is set, which gRPC reaches
// only by a dialer of its own, and reads files by readFile, so that neither is told as an event.
func newPublisher(ctx context.Context, s *settings, stdout io.Writer, dial *net.Dialer, readFile func(string) ([]byte, error)) (agent.Publisher, error) {
	switch s.Publisher {
	case "stdout":
		signal.Ignore(syscall.SIGPIPE) // a reader that goes away ends the agent in order
		return publish.NewStdout(stdout), nil
	case "relay":
		return s.relayThrough(dial, readFile)
	}
	var options []option.ClientOption
	if os.Getenv("HTTPS_PROXY") == "" && os.Getenv("https_proxy") == "" {
		options = append(options, option.WithGRPCDialOption(grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dial.DialContext(ctx, "tcp", address)
		})))
	}
	return publish.NewPubSub(context.WithoutCancel(ctx), publish.PubSubConfig{
		Project: s.PubSubProject, EventsTopic: s.EventsTopic, AlertsTopic: s.AlertsTopic, Options: options,
	})
}

// limitMemory sets the collector's limits unless the environment did. A node pays for every agent's memory: the heap of
// an idle agent is a few MiB, so collecting twice as often costs little and keeps it small. The limit is soft: what
// full buffers take, and room to work. Nobody asks for profiles of the heap, whose tables take another MiB.
func limitMemory(s *settings) {
	runtime.MemProfileRate = 0
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(2*int64(s.BufferBytes) + 64<<20)
	}
}
