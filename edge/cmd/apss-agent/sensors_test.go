package main

import (
	stdcmp "cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/edge/internal/source/file"
	"github.com/apss-sensor/apss/edge/internal/source/network"
	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/shared/event"
)

func TestCover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		created := uint64(0)
		stats := func() process.Stats { return process.Stats{Created: created, Full: created} }
		var got []float64
		var full []uint64
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+15*time.Second)
		defer cancel()
		sockets := func() network.Stats { return network.Stats{Unjoined: created} }
		var unjoined []uint64
		cover(ctx, stats, sockets, func() any { return "rules" }, func(e *event.Event) {
			if e.Type != event.AgentCoverage {
				t.Errorf("got a %s", e.Type)
			}
			if got := e.Metadata["rules"]; got != "rules" {
				t.Errorf("got %v of the rules", got)
			}
			got = append(got, e.Metadata["seconds"].(float64))
			full = append(full, e.Metadata["process"].(process.Coverage).Full)
			unjoined = append(unjoined, e.Metadata["network"].(network.Coverage).Unjoined)
			created += 7
		})
		if diff := cmp.Diff([]float64{60, 60, 15}, got); diff != "" {
			t.Errorf("seconds covered (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]uint64{0, 7, 7}, full); diff != "" {
			t.Errorf("processes in full (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(full, unjoined); diff != "" {
			t.Errorf("unjoined connections (-want +got):\n%s", diff)
		}
	})
}

// TestFollow: the list of containers is told at each change and, while a container's first process may not be where it
// will stay, again; then no more.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list atomic.Pointer[[]process.Inhabitant]
		list.Store(&[]process.Inhabitant{{PID: 7, Container: "a"}})
		views := make(chan []file.Root)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { follow(ctx, "/proc", func() []process.Inhabitant { return *list.Load() }, views) })
		told := func(within time.Duration) (n int, last []file.Root) {
			for deadline := time.After(within); ; {
				select {
				case last = <-views:
					n++
				case <-deadline:
					return n, last
				}
			}
		}
		n, last := told(2 * unsettled)
		if diff := cmp.Diff([]file.Root{{Path: "/proc/7/root", Container: "a"}}, last); diff != "" || n != int(unsettled/followEvery) {
			t.Errorf("told %d times, differs (-want +got):\n%s", n, diff)
		}
		if n, _ := told(time.Minute); n != 0 {
			t.Errorf("told %d times though nothing changed", n)
		}
		time.Sleep(time.Minute) // nobody listens
		list.Store(new([]process.Inhabitant))
		if n, last := told(time.Second); n == 0 || len(last) != 0 {
			t.Errorf("told %d times, %v last; want that the container is gone", n, last)
		}
		cancel()
		wg.Wait()
	})
}

// TestFigures: every number that a sensor counts has a name, a unit and something to say.
func TestFigures(t *testing.T) {
	x, err := newSensors(&settings{Proc: "/proc", Root: "/", StateDir: t.TempDir(), SpoolDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	reader := sdkmetric.NewManualReader()
	if err := x.register(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")); err != nil {
		t.Fatal(err)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	points := 0
	for _, m := range got.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			points += len(data.DataPoints)
		case metricdata.Gauge[int64]:
			points += len(data.DataPoints)
		}
	}
	if want := len(allFigures()); points != want {
		t.Errorf("got %d points, want %d: two figures have one name", points, want)
	}
	f := figures{process: process.Stats{Created: 9, Full: 1, Partial: 2, ByName: 3, MissedAtMost: 4}, file: file.Stats{Overflows: 5}, network: network.Stats{Closes: 6}}
	want := map[string]int64{"process.created": 9, "full": 1, "partial": 2, "name": 3, "process.missed": 4, "file.overflows": 5, "close": 6}
	for _, one := range allFigures() {
		name := stdcmp.Or(one.value, one.name)
		if n, ok := want[name]; ok && one.of(&f) != n {
			t.Errorf("%s: got %d, want %d", name, one.of(&f), n)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("got no figures %v", want)
	}
}

// TestInAContainer: an agent that runs in a container finds that out before it knows what the node's containers are called.
func TestInAContainer(t *testing.T) {
	proc := t.TempDir()
	id := strings.Repeat("ab", 32)
	for name, text := range map[string]string{
		"cgroup":    "0::/kubepods.slice/kubepods-pod9352e33c_8be8_4ee2_8bd2_ce84181b86e9.slice/cri-containerd-" + id + ".scope\n",
		"mountinfo": "", "stat": fmt.Sprintf("%d (agent) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7 0 0\n", os.Getpid()),
	} {
		file := filepath.Join(proc, strconv.Itoa(os.Getpid()), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := load([]string{"PUBLISHER=stdout", "STATE_DIR=" + t.TempDir(), "HOST_PROC=" + proc})
	if err != nil {
		t.Fatal(err)
	}
	x, err := newSensors(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	containers := pods.NewOwn(pods.Own{Name: "p", Namespace: "n"}, slog.New(slog.DiscardHandler))
	x.sources(containers, func() any { return nil })
	if got := ownContainer(x.where); got != id {
		t.Errorf("got container %q, want %s", got, id)
	}
}
