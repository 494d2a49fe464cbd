package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/apss-sensor/apss/shared/telemetry"
	"github.com/apss-sensor/apss/webhook/internal/audit"
	"github.com/apss-sensor/apss/webhook/internal/certs"
)

// replica is a webhook on listeners of its own.
type replica struct {
	*program
	reviews, probes string
	listener        net.Listener // of reviews
	stop            context.CancelFunc
	done            chan error
}

func (s *apiServer) replica(t *testing.T, change func(*settings)) *replica {
	t.Helper()
	set, err := load(environ("INJECT_TIER=pod-limited"))
	if err != nil {
		t.Fatal(err)
	}
	set.Delay, set.Grace = 500*time.Millisecond, 0
	if change != nil {
		change(set)
	}
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "apss-webhook", Log: io.Discard, Level: slog.LevelError})
	if err != nil {
		t.Fatal(err)
	}
	p, err := build(set, s.client(t), tel, audit.Nowhere{})
	if err != nil {
		t.Fatal(err)
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	reviews, probes := listen(), listen()
	ctx, stop := context.WithCancel(t.Context())
	r := &replica{p, reviews.Addr().String(), "http://" + probes.Addr().String(), reviews, stop, make(chan error, 1)}
	go func() {
		err := p.serve(ctx, reviews, probes)
		r.done <- errors.Join(err, tel.Shutdown(context.WithoutCancel(ctx)))
	}()
	t.Cleanup(stop)
	return r
}

func (r *replica) get(path string) (status int, body string) {
	client := http.Client{Timeout: 30 * time.Second}
	answer, err := client.Get(r.probes + path)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	b, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b)
}

func await(t *testing.T, what string, ask func() error) {
	t.Helper()
	const within, every = 30 * time.Second, 10 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for end := time.Now().Add(within); ; <-tick.C {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

func (r *replica) ready(t *testing.T) {
	t.Helper()
	await(t, "readiness", func() error {
		if status, body := r.get("/readyz"); status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

func review(namespace, object string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","kind":{"group":"","version":"v1","kind":"Pod"},`+
		`"namespace":%q,"operation":"CREATE","userInfo":{"username":"jane"},"object":%s}}`, namespace, object)
}

const web = `{"metadata":{"name":"web"},"spec":{"containers":[{"name":"web","image":"nginx"}]}}`

// caller is an API server as far as it calls webhooks: it keeps connections, and verifies by the bundle that is published.
type caller struct {
	server    *apiServer
	addresses func() []string // the Service's
	bundle    []byte
	client    *http.Client
}

// call returns why a review failed.
func (c *caller) call(body string) error {
	if b := c.server.bundle(); c.client == nil || !bytes.Equal(b, c.bundle) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(b)
		c.bundle = b
		c.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "apss-webhook.apss.svc"},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				all := c.addresses()
				if len(all) == 0 {
					return nil, errors.New("the Service has no endpoint")
				}
				return new(net.Dialer).DialContext(ctx, network, all[rand.IntN(len(all))])
			},
		}}
	}
	r, err := c.client.Post("https://apss-webhook.apss.svc/mutate", "application/json", strings.NewReader(body))
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

// Two replicas are asked 200 times a second while their authority is replaced and they are, one after the other.
func TestRotationAndRollingRestartFailNoReview(t *testing.T) {
	s := newAPIServer(t)
	var mu sync.Mutex
	late := func(s *settings) { s.Delay = 6 * time.Second }
	running := []*replica{s.replica(t, late), s.replica(t, late)}
	for _, r := range running {
		r.ready(t)
	}
	// Endpoints are those that say that they are ready, seen a little late.
	var endpoints atomic.Pointer[[]string]
	look := func() {
		mu.Lock()
		all := append([]*replica(nil), running...)
		mu.Unlock()
		var ready []string
		for _, r := range all {
			if status, _ := r.get("/readyz"); status == http.StatusOK {
				ready = append(ready, r.reviews)
			}
		}
		if len(ready) > 0 {
			endpoints.Store(&ready)
		}
	}
	look()
	ctx, stop := context.WithCancel(t.Context())
	var loading sync.WaitGroup
	loading.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			look()
		}
	})
	var reviews, failed atomic.Int64
	const workers, each = 8, 40 * time.Millisecond // together 200 a second
	for range workers {
		loading.Go(func() {
			c := &caller{server: s, addresses: func() []string { return *endpoints.Load() }}
			for tick := time.NewTicker(each); ctx.Err() == nil; <-tick.C {
				reviews.Add(1)
				if err := c.call(review("shop", web)); err != nil {
					failed.Add(1)
					t.Errorf("a review failed: %v", err)
				}
			}
		})
	}
	asked := func(n int64) { // so many more reviews
		t.Helper()
		until := reviews.Load() + n
		await(t, "reviews", func() error {
			if reviews.Load() < until {
				return fmt.Errorf("%d of %d", reviews.Load(), until)
			}
			return nil
		})
	}
	asked(100)
	before := s.bundle()
	s.edit(t, "/api/v1/namespaces/apss/secrets/apss-webhook-certs", `{"metadata":{"annotations":{"apss.dev/rotate-ca":"1"}}}`)
	for range 4 { // heir, everyone has it, it signs, it is served
		for _, r := range running {
			if err := r.certs.(*certs.Self).Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		asked(40)
	}
	old, err := certs.ParseCerts(before)
	if err != nil {
		t.Fatal(err)
	}
	if served, err := running[0].certs.Certificate(nil); err != nil || served.Leaf.CheckSignatureFrom(old[0]) == nil {
		t.Errorf("the authority was not replaced: %v", err)
	}
	var going []*replica // which serve on for their delay, longer than this machine stalls
	for i := range running {
		r := s.replica(t, nil)
		r.ready(t)
		mu.Lock()
		gone := running[i]
		running[i] = r
		mu.Unlock()
		gone.stop()
		going = append(going, gone)
		asked(40)
	}
	for _, gone := range going {
		if err := <-gone.done; err != nil {
			t.Errorf("draining: %v", err)
		}
	}
	asked(40)
	stop()
	loading.Wait()
	t.Logf("%d reviews, %d failed", reviews.Load(), failed.Load())
	for _, r := range running {
		r.stop()
	}
	for _, r := range running {
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	}
}

// The chart's roles are what is asked for, no more and no less.
func TestRights(t *testing.T) {
	s := newAPIServer(t)
	r := s.replica(t, func(s *settings) { s.Restart, s.Coverage = true, 100*time.Millisecond })
	r.ready(t)
	wanted := map[string]bool{}
	b, err := os.ReadFile("../../../infra/helm/apss/files/webhook-rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(string(b), "\n---\n") {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(document), &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					right := verb + " " + rule.APIGroups[0] + "/" + resource
					if len(rule.ResourceNames) == 0 {
						wanted[right] = true
					}
					for _, name := range rule.ResourceNames {
						wanted[right+" "+name] = true
					}
				}
			}
		}
	}
	await(t, "all of the rights to be used", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if diff := cmp.Diff(wanted, s.used); diff != "" {
			return fmt.Errorf("(-granted +used):\n%s", diff)
		}
		return nil
	})
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestMetricsAndDrain(t *testing.T) {
	s := newAPIServer(t)
	r := s.replica(t, func(s *settings) { s.Delay = 5 * time.Minute })
	r.ready(t)
	c := &caller{server: s, addresses: func() []string { return []string{r.reviews} }}
	if err := c.call(review("shop", web)); err != nil {
		t.Fatal(err)
	}
	await(t, "metrics", func() error {
		_, body := r.get("/metrics")
		for _, want := range []string{
			`apss_admission_reviews_total{`, `reason="injected"`, `apss_certificate_expiry_seconds{certificate="webhook"`, `apss_certificate_expiry_seconds{certificate="relay"`,
			`apss_coverage_pods{`, `state="missing"`, `apss_events_dropped_total`,
		} {
			if !strings.Contains(body, want) {
				return fmt.Errorf("%s is not in\n%s", want, body)
			}
		}
		return nil
	})
	// While it drains it is not ready, and answers.
	r.stop()
	await(t, "the drain", func() error {
		if status, _ := r.get("/readyz"); status != http.StatusServiceUnavailable {
			return fmt.Errorf("got %d", status)
		}
		return nil
	})
	if err := c.call(review("shop", web)); err != nil {
		t.Errorf("draining: %v", err)
	}
	r.listener.Close() // and so it need not wait for minutes
	if err := <-r.done; err == nil {
		t.Error("serving ended well without a listener")
	}
}
