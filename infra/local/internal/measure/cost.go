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
	fewRounds = 2 // of few programs
)

// costs measures the process pid beside 300 processes that sleep, and then beside 200 that start in a second. The figures are
// of an agent-idle and an agent-200-execs, each with the suffix. Beside 10 and 50 in a second it measures too: the line
// through these and the idle rounds tells what the agent takes where nothing starts, and for each start.
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
	idle, err := measured(ctx, pid, rounds, func(ctx context.Context) error { return pause(ctx, roundFor) })
	if err != nil {
		return err
	}
	idle.print(out, "agent-idle"+suffix)
	for _, every := range []time.Duration{100 * time.Millisecond, 20 * time.Millisecond} {
		few, err := measured(ctx, pid, fewRounds, execs(every))
		if err != nil {
			return err
		}
		idle.shares, idle.started = append(idle.shares, few.shares...), append(idle.started, few.started...)
	}
	alone, each := line(idle.started, idle.shares)
	fmt.Fprintf(out, "BENCH agent-idle%s-cpu-without-forks %.2f %%\n", suffix, alone)
	fmt.Fprintf(out, "BENCH agent%s-cpu-per-fork %.2f ms\n", suffix, each*10) // 1 % of a core is 10 ms a second
	many, err := measured(ctx, pid, rounds, execs(execEvery))
	if err != nil {
		return err
	}
	many.print(out, "agent-200-execs"+suffix)
	return nil
}

// expense is what a process took in some rounds: percent of a core, MiB at the end, and what the machine started in a
// second besides.
type expense struct{ shares, resident, own, started []float64 }

// measured measures the process pid during rounds of do.
func measured(ctx context.Context, pid, rounds int, do func(context.Context) error) (e expense, err error) {
	for range rounds {
		before, err := readUsage(pid)
		if err != nil {
			return e, err
		}
		forksBefore, err := readForks()
		if err != nil {
			return e, err
		}
		start := time.Now()
		if err := do(ctx); err != nil {
			return e, err
		}
		took := time.Since(start).Seconds()
		after, err := readUsage(pid)
		if err != nil {
			return e, err
		}
		forks, err := readForks()
		if err != nil {
			return e, err
		}
		e.shares = append(e.shares, 100*(after.cpu-before.cpu).Seconds()/took)
		e.resident = append(e.resident, float64(after.resident)/(1<<20))
		e.own = append(e.own, float64(after.anon)/(1<<20))
		e.started = append(e.started, float64(forks-forksBefore)/took)
	}
	return e, nil
}

// print prints the medians.
func (e expense) print(out io.Writer, name string) {
	fmt.Fprintf(out, "BENCH %s-cpu %.2f %%\n", name, middle(slices.Clone(e.shares)))
	fmt.Fprintf(out, "BENCH %s-rss %.1f MiB\n", name, middle(e.resident))
	fmt.Fprintf(out, "BENCH %s-rss-anon %.1f MiB\n", name, middle(e.own))
	fmt.Fprintf(out, "BENCH %s-machine-forks %.0f 1/s\n", name, middle(slices.Clone(e.started)))
}

// line is the least squares' line through the points: its value at 0, and how much it rises.
func line(x, y []float64) (at0, rise float64) {
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	n := float64(len(x))
	if d := n*sxx - sx*sx; d > 0 {
		rise = (n*sxy - sx*sy) / d
	}
	return (sy - rise*sx) / n, rise
}

// execs starts a program at that pace for the length of a round.
func execs(every time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for range roundFor / every {
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
