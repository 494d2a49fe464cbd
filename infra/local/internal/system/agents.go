package system

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/infra/local/internal/supervise"
)

// StartAgent starts the agent, for the first time or again, and waits until it is ready.
func (s *System) StartAgent(ctx context.Context) error {
	if s.agentAddr == "" {
		port, err := freePort(s.Config.AgentPort)
		if err != nil {
			return err
		}
		s.agentAddr = local(port)
	}
	node, err := os.Hostname()
	if err != nil {
		node = "localhost"
	}
	env := append(s.agentEnv(node, s.agentAddr),
		"SPOOL_DIR="+s.Config.SpoolDir(),
		"STATE_DIR="+s.Config.StateDir(),
		"WATCH_PATHS="+strings.Join(append(slices.Clone(s.Config.Watch), s.Config.Demo()), ","),
		"RULES_DIRS="+s.Config.RulesDir(),
		fmt.Sprint("RULES_PACK=", !s.Config.NoPack),
	)
	if s.Config.AlertWindow > 0 {
		env = append(env, "ALERT_WINDOW="+s.Config.AlertWindow.String())
	}
	p, err := s.run(ctx, "apss-agent", s.agentAddr, env)
	s.mu.Lock()
	s.agent = p
	s.mu.Unlock()
	return err
}

// agentEnv is what the agents of all nodes have in common.
func (s *System) agentEnv(node, addr string) []string {
	env := []string{
		"PUBLISHER=pubsub",
		"PUBSUB_PROJECT_ID=" + Project,
		"PUBSUB_EMULATOR_HOST=" + s.Broker.Addr(),
		"EVENTS_TOPIC=" + EventsTopic,
		"ALERTS_TOPIC=" + AlertsTopic,
		"CLUSTER_NAME=local",
		"NODE_NAME=" + node,
		"HTTP_ADDR=" + addr,
	}
	if s.Config.Heartbeat > 0 {
		env = append(env, "HEARTBEAT_INTERVAL="+s.Config.Heartbeat.String())
	}
	return env
}

// StartQuiet starts an agent of another node and waits until it is ready. It looks at nothing, so that no event is told
// twice, and sends heartbeats. Started again, it is the same agent.
func (s *System) StartQuiet(ctx context.Context, node string) (*supervise.Process, error) {
	port, err := freePort(0)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Config.Dir, "nodes", node)
	empty := filepath.Join(dir, "watched")
	if err := os.MkdirAll(empty, 0o700); err != nil {
		return nil, err
	}
	const never = "1h" // the longest that the agent takes
	p, err := s.run(ctx, "apss-agent", local(port), append(s.agentEnv(node, local(port)),
		"SPOOL_DIR="+filepath.Join(dir, "spool"), "STATE_DIR="+filepath.Join(dir, "state"), "WATCH_PATHS="+empty, "LOG_PATHS=off", "READ_PATHS=off",
		"PROC_MECHANISMS=polling", "PROC_SCAN_INTERVAL="+never, "NET_SCAN_INTERVAL="+never, "RULES_PACK=false"))
	if p != nil {
		s.mu.Lock()
		s.others = append(s.others, p)
		s.mu.Unlock()
	}
	return p, err
}

// quiet are the processes that StartQuiet started, those that ended among them.
func (s *System) quiet() []*supervise.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.others)
}

// Agent returns the agent's process; nil before its first start.
func (s *System) Agent() *supervise.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// KillAgent ends the agent as kill -9 does.
func (s *System) KillAgent() { s.Kill(s.Agent()) }

// Kill ends a program as kill -9 does.
func (s *System) Kill(p *supervise.Process) {
	s.expect(p)
	p.Kill()
}
