package alerting

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/edge/internal/suppression"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// rule returns a rule about programs of a name.
func rule(id, program, level string) string {
	return fmt.Sprintf("title: %s runs\nid: %s\nlogsource: {category: process_creation}\ndetection: {s: {process.name: %s}, condition: s}\n"+
		"level: %s\napss: {group-by: [process.exe]}\n", program, id, program, level)
}

// bad has a fault.
const bad = "title: Bad\nid: T-9\nlogsource: {category: process_creation}\ndetection: {s: {Imgae: /x}, condition: s}\n"

// exec returns an event of a program that was started.
func exec(exe string) *event.Event {
	e := eventtest.Exec()
	e.ID, e.Severity, e.Rules = event.NewID(), event.Info, nil
	e.Process.Exe, e.Process.Args, e.Process.Cmdline = exe, []string{filepath.Base(exe)}, filepath.Base(exe)
	return e
}

// rig is an engine and the alerts that it handed out.
type rig struct {
	*Engine
	log bytes.Buffer // read when nothing runs

	mu     sync.Mutex
	alerts []*event.Alert
}

func start(tb testing.TB, c Config) *rig {
	tb.Helper()
	r := new(rig)
	if c.Meter == nil {
		c.Meter = noop.Meter{}
	}
	c.Logger = slog.New(slog.NewTextHandler(&r.log, nil))
	var err error
	if r.Engine, err = New(c); err != nil {
		tb.Fatal(err)
	}
	return r
}

func (r *rig) take(a *event.Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.alerts = append(r.alerts, a)
}

// told returns the alerts so far.
func (r *rig) told() []*event.Alert {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.alerts)
}

// evaluate evaluates events and returns the rules of the alerts that came of them.
func (r *rig) evaluate(events ...*event.Event) []string {
	before := len(r.told())
	for _, e := range events {
		r.Evaluate(e, r.take)
	}
	var ids []string
	for _, a := range r.told()[before:] {
		ids = append(ids, a.RuleID)
	}
	return ids
}

// folder makes a folder of rules by file name.
func folder(tb testing.TB, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, text := range files {
		put(tb, dir, name, text)
	}
	return dir
}

func put(tb testing.TB, dir, name, text string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func remove(tb testing.TB, path ...string) {
	tb.Helper()
	if err := os.RemoveAll(filepath.Join(path...)); err != nil {
		tb.Fatal(err)
	}
}

// ids returns the rules in force, sorted.
func (r *rig) ids() []string {
	var ids []string
	for _, rule := range r.book.Load().rules {
		ids = append(ids, rule.ID)
	}
	slices.Sort(ids)
	return ids
}

func everyAlert() suppression.Config { return suppression.Config{} }

func fiveMinutes() suppression.Config { return suppression.Config{Window: 5 * time.Minute} }
