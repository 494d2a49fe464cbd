package main

import (
	"log/slog"
	"path/filepath"

	"github.com/apss-sensor/apss/edge/internal/agent"
	"github.com/apss-sensor/apss/edge/internal/buffer"
	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/edge/internal/spool"
	"github.com/apss-sensor/apss/shared/event"
)

// newSensors makes the sensors that s asks for.
func newSensors(s *settings, log *slog.Logger) ([]agent.Source, error) {
	processes, err := process.New(process.Config{Interval: s.ProcInterval, Proc: s.Proc, Logger: log.With("sensor", "process")})
	if err != nil {
		return nil, err
	}
	return []agent.Source{
		{Name: processes.Name(), Run: processes.Run, Stats: func() any { return processes.Stats() }},
	}, nil
}

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
		Severity:  func(e *event.Event) event.Severity { return e.Severity },
		Events:    lane("events", s.BufferEvents, s.SpoolMax, agent.Seal{Count: s.SealCount, Bytes: s.SealBytes, After: s.SealAfter}, false),
		Alerts:    lane("alerts", s.BufferAlerts, s.SpoolAlertsMax, agent.Seal{Count: 1, Bytes: s.SealBytes}, true),
		Heartbeat: s.Heartbeat,
		Drain:     s.Drain,
	}
}
