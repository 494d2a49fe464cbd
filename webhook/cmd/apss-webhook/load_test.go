package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apss-sensor/apss/webhook/internal/certs"
)

// caller is an API server as far as it calls webhooks: it keeps connections, calls the path that is published, and verifies by
// the bundle that is.
type caller struct {
	server    *apiServer
	addresses func() []string // the Service's
	bundle    []byte
	client    *http.Client
}

// call returns why a review failed.
func (c *caller) call(body string) error {
	bundle, path := c.server.called()
	if c.client == nil || !bytes.Equal(bundle, c.bundle) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		c.bundle = bundle
		c.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "apss-webhook.apss.svc", Time: c.server.now},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				all := c.addresses()
				if len(all) == 0 {
					return nil, errors.New("the Service has no endpoint")
				}
				return new(net.Dialer).DialContext(ctx, network, all[rand.IntN(len(all))])
			},
		}}
	}
	return c.post(path, body)
}

// post sends a review to a path.
func (c *caller) post(path, body string) error {
	r, err := c.client.Post("https://apss-webhook.apss.svc"+path, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK || !bytes.Contains(b, []byte(`"decision":"injected"`)) {
		return fmt.Errorf("%d %.300s: %w", r.StatusCode, b, err)
	}
	return nil
}

// traffic asks replicas 200 times a second, and fails the test for each review that is not answered with the agent.
type traffic struct {
	t         *testing.T
	server    *apiServer
	endpoints atomic.Pointer[[]string] // those that say that they are ready, seen a little late
	reviews   atomic.Int64
	failed    atomic.Int64
	calm      sync.RWMutex // held for reading by each review

	mu      sync.Mutex
	running []*replica
	going   []*replica // which serve on for their delay

	stop    context.CancelFunc
	loading sync.WaitGroup
}

func (s *apiServer) load(t *testing.T, replicas ...*replica) *traffic {
	t.Helper()
	l := &traffic{t: t, server: s, running: replicas}
	for _, r := range replicas {
		r.ready(t)
	}
	l.look()
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	l.loading.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			l.look()
		}
	})
	const workers, each = 8, 40 * time.Millisecond // together 200 a second
	for range workers {
		l.loading.Go(func() {
			c := &caller{server: s, addresses: func() []string { return *l.endpoints.Load() }}
			for tick := time.NewTicker(each); ctx.Err() == nil; <-tick.C {
				l.calm.RLock()
				err := c.call(review("shop", web))
				l.calm.RUnlock()
				l.reviews.Add(1)
				if err != nil {
					l.failed.Add(1)
					t.Errorf("a review failed: %v", err)
				}
			}
		})
	}
	return l
}

// look finds the replicas that are ready.
func (l *traffic) look() {
	l.mu.Lock()
	all := append([]*replica(nil), l.running...)
	l.mu.Unlock()
	var ready []string
	for _, r := range all {
		if status, _ := r.get("/readyz"); status == http.StatusOK {
			ready = append(ready, r.reviews)
		}
	}
	if len(ready) > 0 {
		l.endpoints.Store(&ready)
	}
}

// asked waits for so many more reviews.
func (l *traffic) asked(n int64) {
	l.t.Helper()
	until := l.reviews.Load() + n
	await(l.t, "reviews", func() error {
		if l.reviews.Load() < until {
			return fmt.Errorf("%d of %d", l.reviews.Load(), until)
		}
		return nil
	})
}

// pass lets time pass, while no review is under way: it takes less than that.
func (l *traffic) pass(d time.Duration) {
	l.calm.Lock()
	defer l.calm.Unlock()
	l.server.passed.Add(int64(d))
}

// sync has each replica look at the state.
func (l *traffic) sync() {
	l.t.Helper()
	for _, r := range l.running {
		if err := r.self().Sync(l.t.Context()); err != nil {
			l.t.Fatal(err)
		}
	}
}

// late lets a replica that is to be replaced serve on for longer than this machine stalls.
func late(p *program) { p.settings.Delay = 6 * time.Second }

// replace puts r, when it is ready, in the place of the i-th replica, which drains.
func (l *traffic) replace(i int, r *replica) {
	l.t.Helper()
	r.ready(l.t)
	l.mu.Lock()
	gone := l.running[i]
	l.running[i] = r
	l.mu.Unlock()
	gone.stop()
	l.going = append(l.going, gone)
}

// gone waits for the end of those that were replaced.
func (l *traffic) gone() {
	l.t.Helper()
	for _, r := range l.going {
		if err := <-r.done; err != nil {
			l.t.Errorf("draining: %v", err)
		}
	}
	l.going = nil
}

// end stops all.
func (l *traffic) end() {
	l.t.Helper()
	l.gone()
	l.asked(40)
	l.stop()
	l.loading.Wait()
	l.t.Logf("%d reviews, %d failed", l.reviews.Load(), l.failed.Load())
	for _, r := range l.running {
		r.stop()
	}
	for _, r := range l.running {
		if err := <-r.done; err != nil {
			l.t.Error(err)
		}
	}
}

// Two replicas are asked 200 times a second while their authority and their path are replaced and they are, one after the
// other.
func TestRotationAndRollingRestartFailNoReview(t *testing.T) {
	s := newAPIServer(t)
	l := s.load(t, s.replica(t, late), s.replica(t, late))
	l.asked(100)
	before, path := s.called()
	s.edit(t, "/api/v1/namespaces/apss/secrets/apss-webhook-certs", `{"metadata":{"annotations":{"apss.dev/rotate-ca":"1"}}}`)
	for range 5 { // heir, everyone has it, another path, it signs, it is served
		l.sync()
		l.asked(40)
		l.pass(time.Hour)
	}
	old, err := certs.ParseCerts(before)
	if err != nil {
		t.Fatal(err)
	}
	if served, err := l.running[0].certs.Certificate(nil); err != nil || served.Leaf.CheckSignatureFrom(old[0]) == nil {
		t.Errorf("the authority was not replaced: %v", err)
	}
	if _, now := s.called(); now == path || l.running[0].certs.Served(path) {
		t.Errorf("the path was not replaced: it was %s and is %s", path, now)
	}
	for i := range l.running {
		l.replace(i, s.replica(t, nil))
		l.asked(40)
	}
	l.end()
}

// plain are the certificates of a version that serves the path that everyone knows, and no other.
type plain struct{ *certs.Self }

func (plain) Served(path string) bool { return path == certs.PlainPath }

// An upgrade from such a version, one replica after the other: no review meets a replica that does not serve its path, and in
// the end the plain one is nobody's.
func TestUpgradeFromThePlainPathFailsNoReview(t *testing.T) {
	s := newAPIServer(t)
	s.edit(t, configurationPath, `{"webhooks":[{"clientConfig":{"service":{"namespace":"apss","name":"apss-webhook","path":"/mutate"}}}]}`)
	s.run(podOf("apss-webhook-1", "new"), podOf("apss-webhook-old", "old"))
	old := func() *replica {
		return s.replica(t, func(p *program) {
			late(p)
			p.certs = plain{p.certs.(*certs.Self)}
		})
	}
	l := s.load(t, old(), old())
	l.asked(40)
	for i := range l.running {
		l.replace(i, s.replica(t, nil))
		for range 2 {
			l.sync()
			l.asked(20)
			l.pass(time.Hour)
		}
		if _, path := s.called(); path != certs.PlainPath {
			t.Fatalf("reviews are sent to %s while the old version runs", path)
		}
	}
	l.gone()
	s.run(podOf("apss-webhook-1", "new"))
	for range 3 {
		l.sync()
		l.asked(20)
		l.pass(time.Hour)
	}
	_, path := s.called()
	c := &caller{server: s, addresses: func() []string { return *l.endpoints.Load() }}
	if err := c.call(review("shop", web)); err != nil || path == certs.PlainPath {
		t.Errorf("reviews are sent to %s: %v", path, err)
	}
	if err := c.post(certs.PlainPath, review("shop", web)); err == nil || !strings.Contains(err.Error(), `"allowed":true,"auditAnnotations":{"decision":"elsewhere"}`) {
		t.Errorf("a forged review: got %v", err)
	}
	l.end()
}

// Who opens as many connections as there may be, and says nothing on them, keeps no review out.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	s := newAPIServer(t)
	r := s.replica(t, func(p *program) { p.settings.Connections, p.settings.EachConnections = 24, 20 })
	r.ready(t)
	for i := range 60 {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%2))}}
		c, err := from.Dial("tcp", r.reviews)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c := &caller{server: s, addresses: func() []string { return []string{r.reviews} }}
	if err := c.call(review("shop", web)); err != nil {
		t.Error(err)
	}
	await(t, "a count of them", func() error {
		if _, body := r.get("/metrics"); !regexp.MustCompile(`apss_admission_connections_closed_total\S* [1-9]`).MatchString(body) {
			return errors.New(body)
		}
		return nil
	})
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}
