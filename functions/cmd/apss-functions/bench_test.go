package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	benchEvents  = flag.Int("events", 1_000_000, "events that BenchmarkForward sends; 10000000 shows that memory is flat")
	benchProfile = flag.String("childprofile", "", "file for a CPU profile of the program under BenchmarkForward")
)

// BenchmarkForward measures the whole path of an event over loopback TCP, without a route, with one that looks at the
// leading members of an event, and with one that looks at all of them: each takes every event, so that the difference is
// the routing's. The program runs on one core in a process of its own (GOMAXPROCS=1), the pushes come from here and a fast
// receiver here takes the batches. It reports
//
//	events/cpu-s  events for each second of the program's CPU time, user and system, start and end included
//	events/s      events for each second of the clock, on a machine that others share
//	rss-1M-MiB    resident memory of the program after a million events, and at the end
func BenchmarkForward(b *testing.B) {
	for _, bb := range []struct{ name, route string }{
		{"no route", "{}"},
		{"by place", "{types: ['*'], namespaces: ['*'], clusters: ['prod-*']}"},
		{"by a rule", "{types: ['*'], namespaces: ['*'], clusters: ['prod-*'], rules: ['*']}"},
	} {
		b.Run(bb.name, func(b *testing.B) { benchmarkForward(b, bb.route) })
	}
}

func benchmarkForward(b *testing.B, route string) {
	b.Helper()
	const perPush, callers = 100, 64
	receiver := newCounter(b)
	env := []string{"GOMAXPROCS=1", "APSS_INTEGRATIONS=- {name: routed, kind: sweetsecurity, enabled: true, route: " + route +
		", endpoint: 'env://SWEET_SECURITY_ENDPOINT', api_key: 'env://SWEET_SECURITY_API_KEY'}"}
	if *benchProfile != "" {
		env = append(env, "APSS_TEST_PROFILE="+*benchProfile)
	}
	var bodies [][]byte // one for each caller: a message is not delivered twice at the same time
	for i := range callers {
		bodies = append(bodies, pushBody(b, strconv.Itoa(i), perPush, uint64(i)))
	}
	for b.Loop() {
		p := start(b, receiver.url, env...)
		receiver.calls.Store(0)
		receiver.events.Store(0)
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true}}
		pushes := int64(*benchEvents / perPush)
		var sent atomic.Int64
		var rss1M float64
		var wg sync.WaitGroup
		begin := time.Now()
		for _, body := range bodies {
			wg.Go(func() {
				for n := sent.Add(1); n <= pushes; n = sent.Add(1) {
					r, err := client.Post(p.url+"/events/routed", "application/json", bytes.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					_ = r.Body.Close()
					if r.StatusCode != http.StatusNoContent {
						b.Errorf("push %d: got %d", n, r.StatusCode)
						return
					}
					if n == 1_000_000/perPush {
						rss1M = rss(b, p.Process.Pid)
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(begin)
		if b.Failed() {
			b.Fatalf("log:\n%s", p.logged())
		}
		if got, want := receiver.events.Load(), pushes*perPush; got != want {
			b.Fatalf("%d events arrived, want %d", got, want)
		}
		events := float64(pushes * perPush)
		atEnd := rss(b, p.Process.Pid)
		client.CloseIdleConnections()
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		if code, log := p.end(b); code != 0 {
			b.Fatalf("got exit code %d; log:\n%s", code, log)
		}
		cpu := p.ProcessState.UserTime() + p.ProcessState.SystemTime()
		b.ReportMetric(events/cpu.Seconds(), "events/cpu-s")
		b.ReportMetric(events/took.Seconds(), "events/s")
		b.ReportMetric(events/float64(receiver.calls.Load()), "events/call")
		if rss1M > 0 {
			b.ReportMetric(rss1M, "rss-1M-MiB")
		}
		b.ReportMetric(atEnd, "rss-end-MiB")
	}
	b.ReportMetric(0, "ns/op")
}

// counter is a receiver that counts events and does little else.
type counter struct {
	url           string
	calls, events atomic.Int64
}

func newCounter(b *testing.B) *counter {
	b.Helper()
	c := new(counter)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	c.url = "http://" + l.Addr().String()
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			return
		}
		buffer := buffers.Get().(*bytes.Buffer)
		defer buffers.Put(buffer)
		buffer.Reset()
		if _, err := buffer.ReadFrom(r.Body); err == nil {
			c.calls.Add(1)
			c.events.Add(int64(bytes.Count(buffer.Bytes(), []byte(`,"agent_id":`)))) // once in each event
		}
	})}
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close() })
	return c
}

// rss is the resident memory of a process in MiB (proc_pid_status(5)); 0 where there is no /proc.
func rss(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Logf("no figure for memory: %v", err)
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
