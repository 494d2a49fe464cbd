package main

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/edge/internal/source/file"
	"github.com/apss-sensor/apss/edge/internal/source/network"
	"github.com/apss-sensor/apss/edge/internal/source/process"
)

// figures are the sensors' counters at one moment.
type figures struct {
	file    file.Stats
	process process.Stats
	network network.Stats
}

// figure is one number of them. Those of one name differ in their attribute.
type figure struct {
	name, help, unit string
	key, value       string // its attribute; none when empty
	gauge            bool   // it may fall
	of               func(*figures) int64
}

// allFigures are what the sensors have seen and what they may have missed.
func allFigures() []figure {
	var list []figure
	add := func(gauge bool, name, unit, help string, of func(*figures) int64) {
		list = append(list, figure{name: name, unit: unit, help: help, gauge: gauge, of: of})
	}
	by := func(name, unit, help, key string, values map[string]func(*figures) int64) {
		for value, of := range values {
			list = append(list, figure{name: name, unit: unit, help: help, key: key, value: value, of: of})
		}
	}
	add(false, "process.created", "{process}", "pids that the kernel handed out at most, threads among them", func(f *figures) int64 { return int64(f.process.Created) })
	by("process.execs", "{event}", "programs that began, by how much could be read of them", "capture", map[string]func(*figures) int64{
		"full":    func(f *figures) int64 { return int64(f.process.Full) },
		"partial": func(f *figures) int64 { return int64(f.process.Partial) },
		"name":    func(f *figures) int64 { return int64(f.process.ByName) },
	})
	add(true, "process.missed", "{process}", "processes that were missed at most; a later look may find some", func(f *figures) int64 { return int64(f.process.MissedAtMost) })
	by("process.others", "{process}", "created and no event: threads, forks that ran no program, the agent's own", "kind", map[string]func(*figures) int64{
		"thread":   func(f *figures) int64 { return int64(f.process.Threads) },
		"fork":     func(f *figures) int64 { return int64(f.process.Forks) },
		"excluded": func(f *figures) int64 { return int64(f.process.Excluded) },
	})
	add(false, "process.exits", "{event}", "processes that ended", func(f *figures) int64 { return int64(f.process.Exits) })
	add(false, "process.lost", "{announcement}", "announcements that could not be taken", func(f *figures) int64 { return int64(f.process.Lost) })
	add(false, "process.held_up", "{read}", "reads of processes that the kernel held up", func(f *figures) int64 { return int64(f.process.HeldUp) })
	add(true, "process.blocked", "{read}", "those that it holds up now", func(f *figures) int64 { return int64(f.process.Blocked) })
	add(false, "process.redacted", "{credential}", "credentials that were taken out of arguments", func(f *figures) int64 { return int64(f.process.Redacted) })
	add(true, "process.processes", "{process}", "processes that are known now", func(f *figures) int64 { return int64(f.process.Processes) })

	add(false, "file.overflows", "{overflow}", "times that the kernel's queue of changes overflowed", func(f *figures) int64 { return int64(f.file.Overflows) })
	add(false, "file.rescans", "{rescan}", "comparisons of everything with the baseline", func(f *figures) int64 { return int64(f.file.Rescans) })
	add(false, "file.remounts", "{change}", "changes of what is mounted", func(f *figures) int64 { return int64(f.file.Remounts) })
	add(false, "file.transient", "{file}", "files that came and went before they could be looked at", func(f *figures) int64 { return int64(f.file.Transient) })
	add(false, "file.opens", "{open}", "opens of read paths by others", func(f *figures) int64 { return int64(f.file.Opens) })
	add(false, "file.reads.overflows", "{overflow}", "times that the kernel's queue of opens overflowed", func(f *figures) int64 { return int64(f.file.ReadOverflows) })
	add(false, "file.reads.untold", "{open}", "opens that were not told: they could have been the agent's own, or there were too many readers", func(f *figures) int64 { return int64(f.file.ReadsUnsure) })
	add(false, "file.writers.missed", "{change}", "changes that came too fast for a search for who made them", func(f *figures) int64 { return int64(f.file.WritersMissed) })
	add(false, "file.stalls", "{stall}", "times that the file system of a watched path did not answer", func(f *figures) int64 { return int64(f.file.Stalls) })
	add(true, "file.stalled", "s", "how long that has lasted now", func(f *figures) int64 { return int64(f.file.Stalled.Seconds()) })
	add(false, "file.state.faults", "{fault}", "times that the baseline on disk could not be used", func(f *figures) int64 { return int64(f.file.StateFaults) })
	by("file.skipped", "{file}", "what was not taken in, by reason; again at each rescan", "reason", map[string]func(*figures) int64{
		"permission":   func(f *figures) int64 { return int64(f.file.Skipped.Permission) },
		"roots":        func(f *figures) int64 { return int64(f.file.Skipped.Roots) },
		"files":        func(f *figures) int64 { return int64(f.file.Skipped.Files) },
		"depth":        func(f *figures) int64 { return int64(f.file.Skipped.Depth) },
		"watches":      func(f *figures) int64 { return int64(f.file.Skipped.Watches) },
		"read_watches": func(f *figures) int64 { return int64(f.file.Skipped.ReadWatches) },
		"other":        func(f *figures) int64 { return int64(f.file.Skipped.Other) },
	})
	add(true, "file.files", "{file}", "files in the baseline", func(f *figures) int64 { return int64(f.file.Files) })
	add(true, "file.watches", "{watch}", "inotify watches, for changes and for reads", func(f *figures) int64 { return int64(f.file.Watches + f.file.ReadWatches) })
	add(true, "file.polled", "{folder}", "folders and paths without a watch", func(f *figures) int64 { return int64(f.file.Polled) })
	add(true, "file.containers", "{container}", "containers whose files are watched", func(f *figures) int64 { return int64(f.file.Roots) })

	add(false, "network.opened", "{connection}", "TCP connections that the kernel counted", func(f *figures) int64 { return int64(f.network.Opened) })
	add(true, "network.missed", "{connection}", "TCP connections that were missed at most; a later look may find some", func(f *figures) int64 { return int64(f.network.MissedAtMost) })
	by("network.seen", "{event}", "what was seen", "kind", map[string]func(*figures) int64{
		"connect": func(f *figures) int64 { return int64(f.network.Connects) },
		"listen":  func(f *figures) int64 { return int64(f.network.Listens) },
		"close":   func(f *figures) int64 { return int64(f.network.Closes) },
	})
	add(false, "network.short_lived", "{connection}", "connections that were over when they were seen", func(f *figures) int64 { return int64(f.network.ShortLived) })
	add(false, "network.unjoined", "{event}", "events whose process was not found", func(f *figures) int64 { return int64(f.network.Unjoined) })
	by("network.processes", "{event}", "new connections and services, by how well their process is known; guessed are among the unjoined", "how", map[string]func(*figures) int64{
		"joined":   func(f *figures) int64 { return int64(f.network.Joined) },
		"inferred": func(f *figures) int64 { return int64(f.network.Inferred) },
		"guessed":  func(f *figures) int64 { return int64(f.network.Guessed) },
	})
	add(false, "network.notices", "{notice}", "ends of sockets that the kernel told of", func(f *figures) int64 { return int64(f.network.Notices) })
	add(false, "network.overruns", "{overrun}", "times that the kernel dropped notices", func(f *figures) int64 { return int64(f.network.Overruns) })
	add(false, "network.crowded", "{list}", "lists that were cut because there were too many sockets", func(f *figures) int64 { return int64(f.network.Crowded) })
	add(true, "network.sockets", "{socket}", "sockets that are known now", func(f *figures) int64 { return int64(f.network.Sockets) })
	return list
}

// register makes the sensors' metrics, which are read when somebody asks.
func (x *sensors) register(meter metric.Meter) error {
	all := allFigures()
	instruments := make(map[string]metric.Int64Observable)
	var observables []metric.Observable
	var errs []error
	for _, f := range all {
		if instruments[f.name] != nil {
			continue
		}
		var instrument metric.Int64Observable
		var err error
		if name := "apss." + f.name; f.gauge {
			instrument, err = meter.Int64ObservableGauge(name, metric.WithDescription(f.help), metric.WithUnit(f.unit))
		} else {
			instrument, err = meter.Int64ObservableCounter(name, metric.WithDescription(f.help), metric.WithUnit(f.unit))
		}
		errs = append(errs, err)
		instruments[f.name] = instrument
		observables = append(observables, instrument)
	}
	attributes := make([]metric.MeasurementOption, len(all))
	for i, f := range all {
		set := attribute.NewSet()
		if f.key != "" {
			set = attribute.NewSet(attribute.String(f.key, f.value))
		}
		attributes[i] = metric.WithAttributeSet(set)
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := figures{x.files.Stats(), x.processes.Stats(), x.sockets.Stats()}
		for i, f := range all {
			o.ObserveInt64(instruments[f.name], f.of(&now), attributes[i])
		}
		return nil
	}, observables...)
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("registering the sensors' metrics: %w", err)
	}
	return nil
}
