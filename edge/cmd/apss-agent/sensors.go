package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/apss-sensor/apss/edge/internal/agent"
	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/edge/internal/source/file"
	"github.com/apss-sensor/apss/edge/internal/source/network"
	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/shared/event"
)

// maxNamespaces bounds the network namespaces that are watched: GKE allows 256 pods on a node.
const maxNamespaces = 256

// newSensors makes the sensors that s asks for. Rules returns how much of the rules can work, for the coverage events.
func newSensors(s *settings, containers *pods.Directory, rules func() any, log *slog.Logger) ([]agent.Source, error) {
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		log.Warn("making STATE_DIR: changes made while no agent runs will not be seen", "error", err)
	}
	files, errFiles := file.New(file.Config{
		Paths: s.WatchPaths, Exclude: []string{s.SpoolDir, s.StateDir}, StateFile: filepath.Join(s.StateDir, "files"),
		Root: s.Root, Logger: log.With("sensor", "file"),
	})
	where := cgroup.NewReader(s.Proc, containers.Seen)
	processes, errProcesses := process.New(process.Config{
		Interval: s.ProcInterval, Proc: s.Proc, Logger: log.With("sensor", "process"),
		Container: func(pid int32, start uint64) (*event.Container, bool) {
			c, ok := where.Of(pid, start)
			if c.ID == "" {
				return nil, ok
			}
			return &event.Container{ID: c.ID, Name: c.Name}, ok
		},
	})
	if err := errors.Join(errFiles, errProcesses); err != nil {
		return nil, fmt.Errorf("%w:\n%w", errSettings, err)
	}
	sockets, err := network.New(network.Config{
		Interval: s.NetInterval, Proc: s.Proc, SuspiciousPorts: s.SuspiciousPorts, InternalNets: s.InternalNets,
		Namespaces: maxNamespaces, Process: processes.Process, Container: processes.Container, Logger: log.With("sensor", "network"),
	})
	if err != nil {
		return nil, fmt.Errorf("%w:\n%w", errSettings, err)
	}
	return []agent.Source{
		{
			Name: "pods", Stats: func() any { return containers.Status() },
			Run: func(ctx context.Context, _ func(*event.Event), _ func(context.Context) error) error {
				return containers.Run(ctx)
			},
		},
		{Name: files.Name(), Run: files.Run, Ready: files.Watching, Stats: func() any { return files.Stats() }},
		{Name: processes.Name(), Run: processes.Run, Ready: processes.Watching, Stats: func() any { return processes.Stats() }},
		{Name: sockets.Name(), Run: sockets.Run, Ready: sockets.Watching, Stats: func() any { return sockets.Stats() }},
		{Name: "coverage", Run: func(ctx context.Context, emit func(*event.Event), _ func(context.Context) error) error {
			cover(ctx, processes.Stats, rules, emit)
			return nil
		}},
	}, nil
}

// coverEvery is how often the agent says how much of what happened it saw.
const coverEvery = time.Minute

// cover emits an agent_coverage event every minute, and one for what is left of it when ctx ends.
func cover(ctx context.Context, stats func() process.Stats, rules func() any, emit func(*event.Event)) {
	tick := time.NewTicker(coverEvery)
	defer tick.Stop()
	for before, began := stats(), time.Now(); ctx.Err() == nil; {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		now, ended := stats(), time.Now()
		emit(&event.Event{Type: event.AgentCoverage, Timestamp: ended, Metadata: map[string]any{
			"seconds": ended.Sub(began).Seconds(), "process": now.CoverageSince(before), "rules": rules(),
		}})
		before, began = now, ended
	}
}
