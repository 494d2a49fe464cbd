package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/apss-sensor/apss/edge/internal/agent"
	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/edge/internal/redact"
	"github.com/apss-sensor/apss/edge/internal/source/file"
	"github.com/apss-sensor/apss/edge/internal/source/network"
	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/shared/event"
)

// maxNamespaces bounds the network namespaces that are watched: GKE allows 256 pods on a node.
const maxNamespaces = 256

// sensors are the agent's, and what each of them knows for the others.
type sensors struct {
	files      *file.Sensor
	processes  *process.Sensor
	sockets    *network.Sensor
	containers *pods.Directory // nil until sources: where is not to be asked before
	where      *cgroup.Reader
	views      chan []file.Root
	proc       string
	log        *slog.Logger
}

// newSensors makes the sensors that s asks for. Nothing runs yet.
func newSensors(s *settings, log *slog.Logger) (*sensors, error) {
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		log.Warn("making STATE_DIR: changes made while no agent runs will not be seen", "error", err)
	}
	x := &sensors{views: make(chan []file.Root), proc: s.Proc, log: log}
	x.where = cgroup.NewReader(s.Proc, func(c cgroup.Container) { x.containers.Seen(c) })
	cut := redact.Redactor{}
	if s.HashRedacted {
		cut = redact.WithHashes()
	}
	var errs [2]error
	x.processes, errs[0] = process.New(process.Config{
		Interval: s.ProcInterval, Proc: s.Proc, Mechanisms: s.Mechanisms, Env: s.env(), Redact: cut, Logger: log.With("sensor", "process"),
		Container: func(pid int32, start uint64) (*event.Container, bool) {
			c, ok := x.where.Of(pid, start)
			if c.ID == "" {
				return nil, ok
			}
			return &event.Container{ID: c.ID, Name: c.Name}, ok
		},
	})
	x.files, errs[1] = file.New(file.Config{
		Paths: s.watchPaths(), Logs: s.logPaths(), ReadPaths: s.readPaths(), Exclude: []string{s.SpoolDir, s.StateDir},
		StateFile: filepath.Join(s.StateDir, "files"), Root: s.Root, Proc: s.Proc,
		Roots: func(context.Context) <-chan []file.Root { return x.views }, Recent: recent(s.Root, x.processes, sync.OnceValue(func() string { return ownContainer(x.where) })),
		Redact: cut.Text, NoDiff: s.NoDiff, Logger: log.With("sensor", "file"),
	})
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%w:\n%w", errSettings, err)
	}
	var err error
	x.sockets, err = network.New(network.Config{
		Interval: s.NetInterval, Proc: s.Proc, SuspiciousPorts: s.SuspiciousPorts, InternalNets: s.InternalNets,
		Namespaces: maxNamespaces, Process: x.processes.Process, Container: x.processes.Container, Logger: log.With("sensor", "network"),
		Recent: func() []network.Began {
			programs := x.processes.Recent()
			out := make([]network.Began, len(programs))
			for i, p := range programs {
				out[i] = network.Began(p)
			}
			return out
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%w:\n%w", errSettings, err)
	}
	return x, nil
}

// dialer dials for the agent itself: its connections make no events.
func (x *sensors) dialer() *net.Dialer {
	return &net.Dialer{Timeout: dialTimeout, Control: x.sockets.Control}
}

// dialTimeout is as long as net/http and client-go wait for a connection.
const dialTimeout = 30 * time.Second

// sources are what the agent runs. Rules returns how much of the rules can work, for the coverage events.
func (x *sensors) sources(containers *pods.Directory, rules func() any) []agent.Source {
	x.containers = containers
	return []agent.Source{
		{
			Name: "pods", Stats: func() any { return containers.Status() },
			Run: func(ctx context.Context, _ func(*event.Event), _ func(context.Context) error) error {
				return containers.Run(ctx)
			},
		},
		{Name: x.files.Name(), Run: x.files.Run, Ready: x.files.Watching, Stats: func() any { return x.files.Stats() }},
		{Name: x.processes.Name(), Run: x.processes.Run, Ready: x.processes.Watching, Stats: func() any { return x.processes.Stats() }},
		{Name: x.sockets.Name(), Run: x.sockets.Run, Ready: x.sockets.Watching, Stats: func() any { return x.sockets.Stats() }},
		{Name: "views", Run: func(ctx context.Context, _ func(*event.Event), _ func(context.Context) error) error {
			follow(ctx, x.proc, x.processes.Inhabitants, x.views)
			return nil
		}},
		{Name: "coverage", Run: func(ctx context.Context, emit func(*event.Event), _ func(context.Context) error) error {
			cover(ctx, x.processes.Stats, x.sockets.Stats, rules, emit)
			return nil
		}},
	}
}

// ownContainer returns the id of the container that the agent runs in, empty if in none.
func ownContainer(where *cgroup.Reader) string {
	c, _ := where.Of(int32(os.Getpid()), 0)
	return c.ID
}

// recent tells the file sensor which programs began lately. What runs beside the agent in the container own sees the
// files under root as the agent does when that is the agent's own, so that its container is none to be told apart.
func recent(root string, processes *process.Sensor, own func() string) func() []file.Began {
	return func() []file.Began {
		programs := processes.Recent()
		out := make([]file.Began, len(programs))
		for i, p := range programs {
			if root == "/" && p.Container == own() {
				p.Container = ""
			}
			out[i] = file.Began(p)
		}
		return out
	}
}

const (
	// followEvery is how soon a container is seen that came or went. What happens to its files before is its baseline.
	followEvery = 500 * time.Millisecond
	// unsettled is how long after a change the list is told again and again: a container's first process begins in the
	// host's file system.
	unsettled = 5 * time.Second
)

// follow gives to views where the file systems of the containers in view are, at first and at each change, until ctx
// ends.
func follow(ctx context.Context, proc string, inhabitants func() []process.Inhabitant, views chan<- []file.Root) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var told []process.Inhabitant
	var changed time.Time
	for ctx.Err() == nil {
		now := inhabitants()
		if !slices.Equal(now, told) {
			told, changed = now, time.Now()
		}
		var out chan<- []file.Root
		if time.Since(changed) < unsettled {
			out = views
		}
		select {
		case out <- rootsOf(proc, now):
		case <-tick.C: // the sensor is at work: the next list will be truer
			continue
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func rootsOf(proc string, inhabitants []process.Inhabitant) []file.Root {
	roots := make([]file.Root, len(inhabitants))
	for i, in := range inhabitants {
		roots[i] = file.Root{Path: filepath.Join(proc, strconv.Itoa(int(in.PID)), "root"), Container: in.Container}
	}
	return roots
}

// coverEvery is how often the agent says how much of what happened it saw.
const coverEvery = time.Minute

// cover emits an agent_coverage event every minute, and one for what is left of it when ctx ends.
func cover(
	ctx context.Context, processes func() process.Stats, sockets func() network.Stats, rules func() any, emit func(*event.Event),
) {
	tick := time.NewTicker(coverEvery)
	defer tick.Stop()
	began, before, socketsBefore := time.Now(), processes(), sockets()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		ended, now, socketsNow := time.Now(), processes(), sockets()
		emit(&event.Event{Type: event.AgentCoverage, Timestamp: ended, Metadata: map[string]any{
			"seconds": ended.Sub(began).Seconds(), "process": now.CoverageSince(before),
			"network": socketsNow.CoverageSince(socketsBefore), "rules": rules(),
		}})
		began, before, socketsBefore = ended, now, socketsNow
	}
}
