package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/supervise"
	"github.com/apss-sensor/apss/infra/local/internal/system"
)

const (
	loadEvery   = 50 * time.Millisecond // 20 a second of each kind
	loadFiles   = 50
	sampleEvery = time.Minute
	samplesMin  = 9 // three for each third of a short soak
	readyWithin = 30 * time.Second
)

// holding is what the agent holds at a moment, as its /metrics say (process_* and go_* of Prometheus' client), and of what
// is resident how much is its own and how much its program's, as the kernel says. The heap's goal is what its last
// collection found to be in use, and half of that: it is the same at any time between two collections.
type holding struct {
	resident, anon, file, heap, goal, fds, goroutines, cpuSeconds, events float64
	at                                                                    time.Duration
}

// Soak runs the agent alone for d, its events thrown away, under a steady load: 20 programs, 20 file changes and 20
// connections a second. It prints what the agent holds as time goes by, then the medians of the first third, the second
// and the last, and how fast memory grew in the last two thirds, and returns an error when it holds more goroutines or files in the last third than in the first, or
// clearly more memory in the last than in the second: a heap settles in its first minutes, and the pages of the program
// itself, half of what is resident, come in as they are first used.
func Soak(ctx context.Context, c system.Config, d time.Duration, out io.Writer) (err error) {
	log, err := os.OpenFile(c.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	addr, agent, err := startAlone(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.Stop(readyWithin)) }()
	loading, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	failed := make(chan error, 3)
	for _, work := range []func(context.Context, string) error{programs, changesOf, connections} {
		load.Go(func() {
			if err := work(loading, c.Demo()); err != nil && loading.Err() == nil {
				failed <- fmt.Errorf("making load: %w", err)
			}
		})
	}
	defer load.Wait()
	defer stop()
	every := min(sampleEvery, d/samplesMin)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var all []holding
	began := time.Now()
	for len(all) < int(d/every) {
		select {
		case <-tick.C:
		case err := <-failed:
			return err
		case <-agent.Done():
			return fmt.Errorf("the agent ended: %w", agent.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
		h, err := ask(ctx, addr)
		if err != nil {
			return err
		}
		u, err := readUsage(agent.PID())
		if err != nil {
			return err
		}
		h.anon, h.file, h.at = float64(u.anon), float64(u.file), time.Since(began)
		all = append(all, h)
		const mib = 1 << 20
		fmt.Fprintf(out, "soak %v: %.1f MiB resident, %.1f of them its own, %.1f of files; heap %.1f, its goal %.1f; "+
			"%.0f goroutines, %.0f files open, %.1f s of CPU, %.0f events\n", h.at.Round(time.Second), h.resident/mib, h.anon/mib, h.file/mib,
			h.heap/mib, h.goal/mib, h.goroutines, h.fds, h.cpuSeconds, h.events)
	}
	return verdict(all, time.Since(began), out)
}

// verdict prints the figures of at least three samples.
func verdict(all []holding, took time.Duration, out io.Writer) error {
	third := len(all) / 3
	parts := []holding{median(all[:third]), median(all[third : len(all)-third]), median(all[len(all)-third:])}
	for i, name := range []string{"begin", "middle", "end"} {
		fmt.Fprintf(out, "BENCH agent-soak-rss-%s %.1f MiB\n", name, parts[i].resident/(1<<20))
		fmt.Fprintf(out, "BENCH agent-soak-heap-%s %.1f MiB\n", name, parts[i].heap/(1<<20))
		fmt.Fprintf(out, "BENCH agent-soak-goroutines-%s %.0f goroutines\n", name, parts[i].goroutines)
		fmt.Fprintf(out, "BENCH agent-soak-files-%s %.0f files\n", name, parts[i].fds)
	}
	for _, s := range []struct {
		name string
		of   func(holding) float64
	}{
		{"rss-anon", func(h holding) float64 { return h.anon }},
		{"rss-file", func(h holding) float64 { return h.file }},
		{"heap-goal", func(h holding) float64 { return h.goal }},
	} {
		fmt.Fprintf(out, "BENCH agent-soak-%s-slope %.2f MiB/h\n", s.name, slope(all[third:], s.of)/(1<<20))
	}
	fmt.Fprintf(out, "BENCH agent-soak-cpu %.2f %%\n", 100*all[len(all)-1].cpuSeconds/took.Seconds())
	const (
		few        = 10  // goroutines and files come and go with what happens
		growth     = 1.2 // the collector lets a heap of a few MiB breathe
		heapGrowth = 1.5 // as it stands anywhere between two collections
	)
	var errs []error
	for _, g := range []struct {
		what         string
		before, most float64
		now          float64
	}{
		{"goroutines", parts[0].goroutines, parts[0].goroutines + few, parts[2].goroutines},
		{"open files", parts[0].fds, parts[0].fds + few, parts[2].fds},
		{"bytes resident", parts[1].resident, parts[1].resident * growth, parts[2].resident},
		{"bytes of heap", parts[1].heap, parts[1].heap * heapGrowth, parts[2].heap},
	} {
		if g.now > g.most {
			errs = append(errs, fmt.Errorf("the agent grows: %.0f %s in the last third, %.0f before", g.now, g.what, g.before))
		}
	}
	return errors.Join(errs...)
}

// slope is how much the least squares' line through what of tells rises in an hour.
func slope(all []holding, of func(holding) float64) float64 {
	x, y := make([]float64, len(all)), make([]float64, len(all))
	for i, h := range all {
		x[i], y[i] = h.at.Hours(), of(h)
	}
	_, rise := line(x, y)
	return rise
}

func median(all []holding) (m holding) {
	for _, field := range []func(*holding) *float64{
		func(h *holding) *float64 { return &h.resident },
		func(h *holding) *float64 { return &h.heap },
		func(h *holding) *float64 { return &h.fds },
		func(h *holding) *float64 { return &h.goroutines },
	} {
		values := make([]float64, len(all))
		for i := range all {
			values[i] = *field(&all[i])
		}
		slices.Sort(values)
		*field(&m) = values[len(values)/2]
	}
	return m
}

// startAlone starts the agent without the rest of the system and waits until it watches. It returns where it serves.
func startAlone(ctx context.Context, c system.Config, log io.Writer) (addr string, p *supervise.Process, err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr = l.Addr().String()
	if err := l.Close(); err != nil { // the agent takes the port
		return "", nil, err
	}
	p, err = supervise.Start(supervise.Program{
		Name: "apss-agent", Path: "/bin/sh", Args: []string{"-c", `exec "$0" >/dev/null`, c.Program("apss-agent")}, Log: log,
		Env: []string{
			"PUBLISHER=stdout", "HTTP_ADDR=" + addr, "SPOOL_DIR=" + c.SpoolDir(), "STATE_DIR=" + c.StateDir(),
			"WATCH_PATHS=" + strings.Join(append(slices.Clone(c.Watch), c.Demo()), ","),
		},
	})
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		if err = get(ctx, "http://"+addr+"/readyz", io.Discard); err == nil {
			return addr, p, nil
		}
		select {
		case <-p.Done():
			return "", nil, fmt.Errorf("the agent ended: %w", errors.Join(p.Err(), errors.New(strings.Join(p.Tail(), "\n"))))
		case <-ctx.Done():
			return "", nil, errors.Join(fmt.Errorf("the agent is not ready after %v: %w", readyWithin, err), p.Stop(readyWithin))
		case <-time.After(loadEvery):
		}
	}
}

// ask asks the agent at addr for what it holds.
func ask(ctx context.Context, addr string) (holding, error) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var text strings.Builder
	if err := get(ctx, "http://"+addr+"/metrics", &text); err != nil {
		return holding{}, fmt.Errorf("asking the agent: %w", err)
	}
	return parseHolding(text.String())
}

func parseHolding(text string) (h holding, err error) {
	wanted := map[string]*float64{
		"process_resident_memory_bytes": &h.resident, "go_memstats_heap_inuse_bytes": &h.heap, "go_memstats_next_gc_bytes": &h.goal,
		"process_open_fds": &h.fds, "go_goroutines": &h.goroutines, "process_cpu_seconds_total": &h.cpuSeconds, "apss_agent_events_total": &h.events,
	}
	seen := map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if _, labels, is := strings.Cut(lines.Text(), "{"); is {
			name, _, _ = strings.Cut(name, "{")
			value = strings.TrimSpace(labels[strings.LastIndexByte(labels, '}')+1:])
		}
		field := wanted[name]
		if field == nil {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return h, fmt.Errorf("reading metrics: %s: %w", name, err)
		}
		*field += v
		seen[name] = true
	}
	for name := range wanted {
		if !seen[name] {
			err = errors.Join(err, fmt.Errorf("reading metrics: there is no %s", name))
		}
	}
	return h, err
}

func get(ctx context.Context, url string, to io.Writer) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{}).Do(req) // ctx bounds it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	const most = 4 << 20
	if _, err := io.Copy(to, io.LimitReader(resp.Body, most)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// steadily does f every loadEvery until ctx ends or f fails.
func steadily(ctx context.Context, f func(i int) error) error {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f(i); err != nil {
			return err
		}
	}
}

func programs(ctx context.Context, _ string) error {
	return steadily(ctx, func(int) error {
		return exec.CommandContext(ctx, "true").Run()
	})
}

// changesOf creates, changes, chmods and deletes files in dir.
func changesOf(ctx context.Context, dir string) error {
	return steadily(ctx, func(i int) error {
		path := filepath.Join(dir, "soak-"+strconv.Itoa(i%loadFiles))
		switch i / loadFiles % 4 {
		case 0, 1:
			return os.WriteFile(path, []byte("line "+strconv.Itoa(i)+"\n"), 0o600)
		case 2:
			return os.Chmod(path, 0o400)
		default:
			return os.Remove(path)
		}
	})
}

func connections(ctx context.Context, _ string) (err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var server sync.WaitGroup
	server.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			_, _ = io.Copy(io.Discard, conn) // until the client is done
			_ = conn.Close()
		}
	})
	defer server.Wait()
	defer func() { err = errors.Join(err, l.Close()) }()
	dialer := net.Dialer{}
	return steadily(ctx, func(int) error {
		conn, err := dialer.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return err
		}
		_, err = io.WriteString(conn, "hello\n")
		return errors.Join(err, conn.Close())
	})
}
