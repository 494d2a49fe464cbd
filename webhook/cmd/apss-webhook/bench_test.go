package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/webhook/internal/admission"
	"github.com/apss-sensor/apss/webhook/internal/audit"
	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/inject"
)

// BenchmarkOverTLS asks as an API server does, by an open loop: a review is due every 2 ms whether or not the last ones are
// answered, over connections that are kept, and what is measured begins when it is due. Server and caller share one core.
func BenchmarkOverTLS(b *testing.B) {
	const every = 2 * time.Millisecond // 500 a second
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s, err := load(environ("RELAY_NAMES=apss-relay"))
	if err != nil {
		b.Fatal(err)
	}
	in, err := inject.New(s.decide(), s.sidecar(""), "v1")
	if err != nil {
		b.Fatal(err)
	}
	told := audit.New(audit.Config{Cluster: "c", AgentID: "a", Queue: s.Queue, Publisher: audit.Nowhere{}, Dropped: none{}, Published: none{}, Log: slog.New(slog.DiscardHandler)})
	h, err := admission.New(admission.Config{
		Injector: func() *inject.Injector { return in }, Cluster: func() decide.Cluster { return decide.Cluster{Minor: 34} },
		Namespace: func(string) (map[string]string, bool) { return map[string]string{decide.LabelInject: "enabled"}, true },
		InFlight:  s.InFlight, Observe: told.Observe, Meter: noop.Meter{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	pair, roots := certificate(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	var serving sync.WaitGroup
	serving.Go(func() { told.Run(ctx, time.Second) })
	serving.Go(func() {
		_ = httpx.Server{Handler: h, Grace: time.Second, Log: slog.New(slog.DiscardHandler)}.Serve(ctx, tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}))
	})
	// A review that finds all connections in use waits, and its wait counts: a machine that is busy with something else must
	// not be made busy with handshakes.
	const connections = 16
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: "apss-webhook.apss.svc"},
		MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections,
	}}
	body := review("shop", strings.Replace(web, `"image"`, `"env":[`+strings.Repeat(`{"name":"SETTING","value":"the value of a setting"},`, 30)+`{"name":"x","value":"y"}],"image"`, 1))
	ask := func() {
		r, err := client.Post("https://"+l.Addr().String()+"/mutate", "application/json", strings.NewReader(body))
		if err != nil {
			b.Error(err)
			return
		}
		_, err = io.Copy(io.Discard, r.Body)
		if r.Body.Close(); err != nil || r.StatusCode != http.StatusOK {
			b.Error(r.Status, err)
		}
	}
	var asking sync.WaitGroup
	for range 10 * connections {
		asking.Go(ask)
	}
	asking.Wait()
	var took []time.Duration
	var mu sync.Mutex
	b.ResetTimer()
	for due := time.Now(); b.Loop(); due = due.Add(every) {
		if wait := time.Until(due); wait > 0 {
			timer := time.NewTimer(wait)
			<-timer.C
		}
		asking.Go(func() {
			ask()
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(due))
		})
	}
	asking.Wait()
	b.StopTimer()
	slices.Sort(took)
	for name, share := range map[string]float64{"p50-ms": .5, "p99-ms": .99} {
		b.ReportMetric(float64(took[int(share*float64(len(took)-1))].Microseconds())/1000, name)
	}
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "reviews/s")
	stop()
	serving.Wait()
}

type none struct{}

func (none) Add(int64) {}

// certificate is one for the webhook's name, with who made it.
func certificate(b *testing.B) (tls.Certificate, *x509.CertPool) {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"apss-webhook.apss.svc"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
