package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"

	"google.golang.org/grpc"

	"github.com/apss-sensor/apss/infra/local/internal/standin/monitoring"
)

// monitoringServer is Cloud Monitoring's stand-in.
type monitoringServer struct {
	*grpc.Server
	net.Listener
}

// listenMonitoring gives it its address; who asks before it serves waits.
func (s *System) listenMonitoring() error {
	l, err := net.Listen("tcp", local(0)) //nolint:noctx // loopback: it cannot block
	if err != nil {
		return fmt.Errorf("starting Cloud Monitoring's stand-in: %w", err)
	}
	s.monitoring = &monitoringServer{grpc.NewServer(), l}
	return nil
}

// serveMonitoring tells the functions how much waits in the subscriptions, which must push already.
func (s *System) serveMonitoring() {
	monitoring.Register(s.monitoring.Server, Project, s.subscriptions)
	s.background.Go(func() { _ = s.monitoring.Serve(s.monitoring.Listener) }) // it ends with close
}

func (m *monitoringServer) close() {
	m.Stop()
	_ = m.Close() // when it did not serve
}

// subscriptions are those that push, with what waits in them.
func (s *System) subscriptions() []monitoring.Subscription {
	pushes := []*Push{s.heartbeats}
	for _, r := range s.receivers {
		pushes = append(pushes, r.Pushes...)
	}
	all := make([]monitoring.Subscription, 0, len(pushes))
	for _, p := range pushes {
		stats := p.Stats()
		all = append(all, monitoring.Subscription{
			ID: p.Name, Undelivered: int64(stats.Held + max(p.source.Backlog(), 0)), Oldest: stats.Oldest,
		})
	}
	return all
}

// control is the environment in which apssctl looks after this system.
func (s *System) control() []string {
	return []string{
		"APSS_URL=http://" + s.functionsAt, "APSS_ADMIN_TOKEN=" + s.token,
		"PUBSUB_PROJECT_ID=" + Project, "PUBSUB_EMULATOR_HOST=" + s.Broker.Addr(),
	}
}

// writeControlFile writes it for a shell.
func (s *System) writeControlFile() error {
	var text strings.Builder
	text.WriteString("# The environment in which apssctl looks after the demo:  . this file\n")
	for _, v := range s.control() { // of letters, digits and what is in URLs: nothing to quote
		text.WriteString("export " + v + "\n")
	}
	if err := os.WriteFile(s.Config.ControlFile(), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("writing the environment of apssctl: %w", err)
	}
	return nil
}

// Control runs apssctl as a person would, and returns what it printed and its exit code.
func (s *System) Control(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	cmd := exec.CommandContext(ctx, s.Config.Program("apssctl"), args...) //nolint:gosec // our own program
	var out, errs strings.Builder
	cmd.Env, cmd.Stdout, cmd.Stderr = s.control(), &out, &errs
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	if err != nil {
		return "", "", 0, fmt.Errorf("running apssctl %s: %w", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode(), nil
}

// Ask makes a request of the functions' health, with the token, and returns the answer whatever its status is.
func (s *System) Ask(ctx context.Context, method, path string) (status int, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+s.functionsAt+path, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	resp, err := new(http.Client).Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, body, err
}
