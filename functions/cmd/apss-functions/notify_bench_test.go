package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// BenchmarkNotify measures the whole path of an alert over loopback TCP: the program runs on one core in a process of its
// own (GOMAXPROCS=1), with an integration for programs. It reports
//
//	alerts/cpu-s  alerts for each second of the program's CPU time, user and system, start and end included
//	alerts/s      alerts for each second of the clock, on a machine that others share
func BenchmarkNotify(b *testing.B) {
	const alerts, callers = 20_000, 64
	for b.Loop() {
		receiver := newCounter(b)
		env := []string{"GOMAXPROCS=1"}
		if *benchProfile != "" {
			env = append(env, "APSS_TEST_PROFILE="+*benchProfile)
		}
		p := start(b, receiver.url, env...)
		receiver.calls.Store(0)
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers, DisableCompression: true}}
		a := eventtest.Alert()
		data := a.AppendJSON(nil)
		id := bytes.Index(data, []byte(a.ID))
		var sent atomic.Int64
		var wg sync.WaitGroup
		begin := time.Now()
		for range callers {
			wg.Go(func() {
				own := bytes.Clone(data)
				for n := sent.Add(1); n <= alerts; n = sent.Add(1) {
					copy(own[id:], fmt.Sprintf("%08x", n)) // the id's first digits
					body := fmt.Appendf(nil, `{"message":{"attributes":{"ce-type":%q,"ce-specversion":"1.0"},"messageId":"%d","data":"`, envelope.TypeAlert, n)
					body = append(base64.StdEncoding.AppendEncode(body, own), `"},"subscription":"projects/p/subscriptions/s"}`...)
					r, err := client.Post(p.url+"/alerts/sweetsecurity", "application/json", bytes.NewReader(body))
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
				}
			})
		}
		wg.Wait()
		took := time.Since(begin)
		if got := receiver.calls.Load(); got != alerts {
			b.Fatalf("%d alerts arrived, want %d; log:\n%s", got, alerts, p.logged())
		}
		client.CloseIdleConnections()
		if err := p.Process.Signal(syscall.SIGTERM); err != nil {
			b.Fatal(err)
		}
		if code, log := p.end(b); code != 0 {
			b.Fatalf("got exit code %d; log:\n%s", code, log)
		}
		cpu := p.ProcessState.UserTime() + p.ProcessState.SystemTime()
		b.ReportMetric(alerts/cpu.Seconds(), "alerts/cpu-s")
		b.ReportMetric(alerts/took.Seconds(), "alerts/s")
	}
	b.ReportMetric(0, "ns/op")
}
