package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
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

// replica runs one, which change may change before it serves.
func (s *apiServer) replica(t *testing.T, change func(*program)) *replica {
	t.Helper()
	set, err := load(environ("INJECT_TIER=pod-limited", "DRAIN_DELAY=500ms", "CA_GRACE=2h"))
	if err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "apss-webhook", Log: io.Discard, Level: slog.LevelError})
	if err != nil {
		t.Fatal(err)
	}
	p, err := build(set, s.client(t), tel, audit.Nowhere{}, s.now)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(p)
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

// self are its certificates.
func (r *replica) self() *certs.Self {
	switch c := r.certs.(type) {
	case *certs.Self:
		return c
	case plain:
		return c.Self
	}
	return nil
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

// The chart's roles are what is asked for, no more and no less.
func TestRights(t *testing.T) {
	s := newAPIServer(t)
	r := s.replica(t, func(p *program) { p.settings.Restart, p.settings.Coverage = true, 100*time.Millisecond })
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
	r := s.replica(t, func(p *program) { p.settings.Delay = 5 * time.Minute })
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
