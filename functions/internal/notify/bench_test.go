package notify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/apss-sensor/apss/functions/internal/budget"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/push"
	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/httpx"
)

// TestMain makes the test binary a function when it is started as a child of a benchmark.
func TestMain(m *testing.M) {
	if receiver := os.Getenv("APSS_TEST_RECEIVER"); receiver != "" {
		if err := serveChild(receiver, os.Getenv("APSS_TEST_PROFILE")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// poster is a program that takes alerts over HTTP, as an integration does it.
type poster struct {
	client *httpx.Client
	url    string
}

func (poster) Check(context.Context) (integration.Status, error) { return integration.Status{}, nil }

func (p poster) SendAlert(ctx context.Context, a *event.Alert) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(a.AppendJSON(nil)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	r, err := p.client.Do(ctx, req)
	if err != nil {
		return err
	}
	return r.Outcome()
}

// childConns is how many calls each of the child's integrations makes at once.
const childConns = 512

// serveChild serves two integrations on a port of the kernel's choice, which it prints, until its input ends.
func serveChild(receiver, profile string) error {
	if profile != "" {
		out, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	inHand, log := budget.New(64<<20), slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	for _, name := range []string{"one", "two"} {
		n, err := New(Config{
			Name: name, To: poster{httpx.New(httpx.Options{MaxConns: childConns}), receiver + "/" + name}, Dead: &graveyard{},
			State: state.NewMemory(100_000, 64<<20), MaxConns: childConns, Deliver: 30 * time.Second, Bury: 5 * time.Second,
			InHand: inHand, Log: log, Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{},
		})
		if err != nil {
			return err
		}
		h, err := push.New(push.Config{
			Name: name, Handle: n.Handle, Timeout: 45 * time.Second, InHand: inHand, Log: log, Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{},
		})
		if err != nil {
			return err
		}
		mux.Handle("/alerts/"+name, h)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return httpx.Server{Handler: mux, Grace: 15 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute, Log: log}.Serve(ctx, l)
}

// child is the function in a process of its own, on one core.
type child struct {
	cmd   *exec.Cmd
	url   string
	input io.Closer
}

func startChild(b *testing.B, receiver string) *child {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "APSS_TEST_RECEIVER="+receiver)
	cmd.Stderr = os.Stderr
	input, err1 := cmd.StdinPipe()
	output, err2 := cmd.StdoutPipe()
	if err := firstOf(err1, err2, cmd.Start()); err != nil {
		b.Fatal(err)
	}
	address, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return &child{cmd, "http://" + strings.TrimSpace(address), input}
}

func firstOf(errs ...error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// end waits for the child's end and returns the CPU time that it took.
func (c *child) end(b *testing.B) time.Duration {
	b.Helper()
	_ = c.input.Close()
	if err := c.cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
}

// peak is the most memory that the child had resident, in MiB (proc_pid_status(5)); 0 where there is no /proc.
func (c *child) peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		b.Logf("no figure for memory: %v", err)
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// sink is a receiver that waits what delay says before it accepts.
type sink struct {
	url    string
	calls  atomic.Int64
	asleep atomic.Int64 // calls that wait right now
}

func newSink(b *testing.B, delay func(path string) time.Duration) *sink {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &sink{url: "http://" + l.Addr().String()}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if d := delay(r.URL.Path); d > 0 {
			s.asleep.Add(1)
			defer s.asleep.Add(-1)
			select {
			case <-time.After(d):
			case <-r.Context().Done():
				return
			}
		}
		s.calls.Add(1)
	})}
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close() })
	return s
}

// pusher makes pushes of alerts with ids of their own.
type pusher struct {
	client *http.Client
	data   []byte // of the alert
	id     int    // where its id is
	next   atomic.Int64
}

func newPusher(conns int, a *event.Alert) *pusher {
	data := a.AppendJSON(nil)
	return &pusher{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns, DisableCompression: true}},
		data:   data, id: bytes.Index(data, []byte(a.ID)),
	}
}

// push pushes one to url and returns the status.
func (p *pusher) push(ctx context.Context, url string) (int, error) {
	n := p.next.Add(1)
	data := bytes.Clone(p.data)
	copy(data[p.id:], fmt.Sprintf("%08x", n)) // the id's first digits
	body := fmt.Appendf(nil, `{"message":{"attributes":{"ce-type":%q,"ce-specversion":"1.0"},"messageId":"%d","data":"`, envelope.TypeAlert, n)
	body = base64.StdEncoding.AppendEncode(body, data)
	body = append(body, `"},"subscription":"projects/p/subscriptions/s"}`...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	r, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode, r.Body.Close()
}

// BenchmarkNotify measures the whole path of an alert over loopback TCP: the function runs on one core in a process of its
// own (GOMAXPROCS=1) with real HTTP on both sides. It reports
//
//	alerts/cpu-s  alerts for each second of the function's CPU time, start and end included
//	alerts/s      alerts for each second of the clock, on a machine that others share
func BenchmarkNotify(b *testing.B) {
	for _, bb := range []struct {
		name    string
		delay   time.Duration
		callers int
	}{{"fast receiver, 64 pushes at once", 0, 64}, {"receiver of 50 ms, 512 pushes at once", 50 * time.Millisecond, 512}} {
		b.Run(bb.name, func(b *testing.B) {
			const alerts = 20_000
			for b.Loop() {
				s := newSink(b, func(string) time.Duration { return bb.delay })
				c := startChild(b, s.url)
				p := newPusher(bb.callers, eventtest.Alert())
				var wg sync.WaitGroup
				var left atomic.Int64
				left.Store(alerts)
				begin := time.Now()
				for range bb.callers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if status, err := p.push(b.Context(), c.url+"/alerts/one"); err != nil || status != http.StatusNoContent {
								b.Errorf("got %d, %v", status, err)
								return
							}
						}
					})
				}
				wg.Wait()
				took := time.Since(begin)
				if got := s.calls.Load(); got != alerts {
					b.Errorf("%d alerts arrived, want %d", got, alerts)
				}
				p.client.CloseIdleConnections()
				rss := c.peak(b)
				cpu := c.end(b)
				b.ReportMetric(alerts/cpu.Seconds(), "alerts/cpu-s")
				b.ReportMetric(alerts/took.Seconds(), "alerts/s")
				b.ReportMetric(rss, "peak-MiB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkLargePushes makes 1,000 pushes of alerts of 1 MiB at once, to a receiver of 50 ms, until each is delivered, and
// reports the function's peak of resident memory and how often a push was told to come again.
func BenchmarkLargePushes(b *testing.B) {
	const pushes = 1000
	a := eventtest.Alert()
	a.Description = strings.Repeat("d", 1<<20)
	for b.Loop() {
		s := newSink(b, func(string) time.Duration { return 50 * time.Millisecond })
		c := startChild(b, s.url)
		p := newPusher(pushes, a)
		var wg sync.WaitGroup
		var again atomic.Int64
		ready := make(chan struct{}, 100) // bodies that the load itself holds
		for range pushes {
			wg.Go(func() {
				for {
					ready <- struct{}{}
					status, err := p.push(b.Context(), c.url+"/alerts/one")
					<-ready
					switch {
					case status == http.StatusNoContent:
						return
					case status == http.StatusTooManyRequests || err != nil: // an answer before the body was read ends the connection
						again.Add(1)
						time.Sleep(100 * time.Millisecond)
					default:
						b.Errorf("got %d", status)
						return
					}
				}
			})
		}
		wg.Wait()
		if got := s.calls.Load(); got != pushes {
			b.Errorf("%d alerts arrived, want %d", got, pushes)
		}
		b.ReportMetric(c.peak(b), "peak-MiB")
		b.ReportMetric(float64(again.Load()), "refusals")
		p.client.CloseIdleConnections()
		c.end(b)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIsolation measures the time of pushes to one integration at a steady rate, while nothing else happens and while
// another integration's receiver hangs, in turns. It reports the medians of both p99 and their ratio.
func BenchmarkIsolation(b *testing.B) {
	const rounds, perRound, pause = 5, 1000, 2 * time.Millisecond
	s := newSink(b, func(path string) time.Duration {
		if path == "/two" {
			return time.Hour
		}
		return 0
	})
	for b.Loop() {
		c := startChild(b, s.url)
		p := newPusher(256, eventtest.Alert())
		measure := func() time.Duration {
			took := make([]time.Duration, perRound)
			var wg sync.WaitGroup
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for i := range took {
				<-tick.C
				wg.Go(func() {
					begin := time.Now()
					if status, err := p.push(b.Context(), c.url+"/alerts/one"); err != nil || status != http.StatusNoContent {
						b.Errorf("got %d, %v", status, err)
					}
					took[i] = time.Since(begin)
				})
			}
			wg.Wait()
			slices.Sort(took)
			return took[perRound*99/100]
		}
		measure() // connections
		var alone, beside []time.Duration
		for range rounds {
			alone = append(alone, measure())
			ctx, stop := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			const hanging = 50
			for range hanging { // Pub/Sub's pushes, each again after a while
				wg.Go(func() {
					for ctx.Err() == nil {
						_, _ = p.push(ctx, c.url+"/alerts/two")
						select {
						case <-time.After(time.Second):
						case <-ctx.Done():
						}
					}
				})
			}
			// Their connections are made first, which costs whatever the receiver does; once the breaker is open, fewer hang.
			for end := time.Now().Add(3 * time.Second); s.asleep.Load() < hanging && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			beside = append(beside, measure())
			stop()
			wg.Wait()
			for s.asleep.Load() > 0 {
				time.Sleep(10 * time.Millisecond)
			}
			measure() // connections
		}
		slices.Sort(alone)
		slices.Sort(beside)
		b.ReportMetric(float64(alone[rounds/2].Microseconds()), "p99-alone-us")
		b.ReportMetric(float64(beside[rounds/2].Microseconds()), "p99-beside-hang-us")
		b.ReportMetric(float64(beside[rounds/2])/float64(alone[rounds/2]), "ratio")
		p.client.CloseIdleConnections()
		c.end(b)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHandle measures an alert without HTTP: to a program, and a repeat of a known incident.
func BenchmarkHandle(b *testing.B) {
	for _, to := range []string{"program", "people"} {
		b.Run(to, func(b *testing.B) {
			_, receiver := receivers(to)
			if p, ok := receiver.(*program); ok {
				receiver = quiet{p}
			}
			s := start(b, receiver, nil)
			a := eventtest.Alert()
			p := pushOf(a)
			at := bytes.Index(p.Data, []byte(a.ID))
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				copy(p.Data[at:], fmt.Sprintf("%08x", n))
				n++
				if err := s.Handle(b.Context(), p); err != nil {
					b.Fatal(err)
				}
			}
			s.closes(b)
		})
	}
}

// quiet is a program that keeps nothing.
type quiet struct{ *program }

func (quiet) SendAlert(context.Context, *event.Alert) error { return nil }
