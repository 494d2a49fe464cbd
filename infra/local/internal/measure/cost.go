package measure

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

const (
	sleepers  = 300
	calmDown  = 10 * time.Second // until the agent has read the new processes and given back what its start took
	rounds    = 3                // of which the median counts
	roundFor  = 15 * time.Second
	execEvery = 5 * time.Millisecond
)

// costs measures the process pid beside 300 processes that sleep, and then beside 200 that start in a second. The figures are
// of an agent-idle and an agent-200-execs, each with the suffix.
func costs(ctx context.Context, pid int, suffix string, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var asleep []*exec.Cmd
	defer func() {
		cancel() // kills them
		for _, cmd := range asleep {
			_ = cmd.Wait() // killed, as meant
		}
	}()
	for range sleepers {
		cmd := exec.CommandContext(ctx, "sleep", "600")
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("starting a process that sleeps: %w", err)
		}
		asleep = append(asleep, cmd)
	}
	if err := pause(ctx, calmDown); err != nil {
		return err
	}
	if err := cost(ctx, pid, "agent-idle"+suffix, out, func(ctx context.Context) error { return pause(ctx, roundFor) }); err != nil {
		return err
	}
	return cost(ctx, pid, "agent-200-execs"+suffix, out, execs)
}

// cost measures the process pid during rounds of do and prints the medians.
func cost(ctx context.Context, pid int, name string, out io.Writer, do func(context.Context) error) error {
	var shares, resident, started []float64
	for range rounds {
		before, err := readUsage(pid)
		if err != nil {
			return err
		}
		forksBefore, err := readForks()
		if err != nil {
			return err
		}
		start := time.Now()
		if err := do(ctx); err != nil {
			return err
		}
		took := time.Since(start).Seconds()
		after, err := readUsage(pid)
		if err != nil {
			return err
		}
		forks, err := readForks()
		if err != nil {
			return err
		}
		shares = append(shares, 100*(after.cpu-before.cpu).Seconds()/took)
		resident = append(resident, float64(after.resident)/(1<<20))
		started = append(started, float64(forks-forksBefore)/took)
	}
	fmt.Fprintf(out, "BENCH %s-cpu %.2f %%\n", name, middle(shares))
	fmt.Fprintf(out, "BENCH %s-rss %.1f MiB\n", name, middle(resident))
	fmt.Fprintf(out, "BENCH %s-machine-forks %.0f 1/s\n", name, middle(started))
	return nil
}

// execs starts a program every 5 ms for the length of a round.
func execs(ctx context.Context) error {
	tick := time.NewTicker(execEvery)
	defer tick.Stop()
	for range roundFor / execEvery {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := exec.CommandContext(ctx, "true").Run(); err != nil {
			return fmt.Errorf("running true: %w", err)
		}
	}
	return nil
}

// readForks returns how many processes and threads the machine has started.
func readForks() (int64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("measuring the machine: %w", err)
	}
	return parseForks(b)
}

// parseForks finds the line "processes N" of proc_stat(5).
func parseForks(stat []byte) (int64, error) {
	for line := range bytes.Lines(stat) {
		if value, ok := bytes.CutPrefix(line, []byte("processes ")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("reading /proc/stat: %w", err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("reading /proc/stat: it has no line of processes")
}

// middle sorts v, of an odd length, and returns its middle.
func middle(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
