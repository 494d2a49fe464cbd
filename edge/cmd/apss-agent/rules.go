package main

import (
	"log/slog"

	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/edge/internal/alerting"
	"github.com/apss-sensor/apss/edge/internal/suppression"
	"github.com/apss-sensor/apss/edge/internal/tier"
)

// loading is an engine that loads its rules.
type loading struct {
	engine *alerting.Engine
	err    error
	done   chan struct{}
}

// loadRules begins to load the rules that s names, for an agent with that view: reading 104 rules takes as long as the rest of the
// start, which goes on meanwhile.
func loadRules(s *settings, v tier.View, meter metric.Meter, log *slog.Logger) *loading {
	l := &loading{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.engine, l.err = alerting.New(alerting.Config{
			Pack: s.RulesPack, Dirs: s.RulesDirs, Sights: v.Sights(), Suppression: suppression.Config{Window: s.AlertWindow},
			Meter: meter, Logger: log,
		})
	}()
	return l
}

// wait returns the engine when its rules are in force.
func (l *loading) wait() (*alerting.Engine, error) {
	<-l.done
	return l.engine, l.err
}
