package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// server is an API server with pods; what is decided about one is its annotation.
type server struct {
	mu      sync.Mutex
	pods    []map[string]any
	listed  []string // namespaces
	fails   bool
	budget  bool
	events  map[string]corev1.Event
	posts   int // of events
	evicted []string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(code int, reason metav1.StatusReason) {
		answer(code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code)})
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/")
	switch {
	case s.fails:
		refuse(http.StatusForbidden, metav1.StatusReasonForbidden)
	case r.Method == http.MethodGet && len(parts) == 2 && parts[1] == "pods":
		const two = 2 // a page
		begin := 0
		if next := r.URL.Query().Get("continue"); next != "" {
			_, _ = fmt.Sscan(next, &begin)
		} else {
			s.listed = append(s.listed, parts[0])
		}
		if got := r.URL.Query().Get("fieldSelector"); got != "status.phase!=Succeeded,status.phase!=Failed" {
			refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest)
			return
		}
		end := min(begin+two, len(s.pods))
		meta := map[string]any{}
		if end < len(s.pods) {
			meta["continue"] = fmt.Sprint(end)
		}
		answer(http.StatusOK, map[string]any{"metadata": meta, "items": s.pods[begin:end]})
	case r.Method == http.MethodPost && parts[1] == "events":
		var e corev1.Event
		s.posts++
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest)
		} else if _, there := s.events[e.Name]; there {
			refuse(http.StatusConflict, metav1.StatusReasonAlreadyExists)
		} else {
			s.events[e.Name] = e
			answer(http.StatusCreated, e)
		}
	case r.Method == http.MethodPost && len(parts) == 4 && parts[3] == "eviction":
		var e policyv1.Eviction
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.DeleteOptions.Preconditions.UID == nil {
			refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest)
		} else if s.budget {
			refuse(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests)
		} else {
			s.evicted = append(s.evicted, parts[2])
			answer(http.StatusCreated, metav1.Status{Status: "Success"})
		}
	default:
		refuse(http.StatusNotFound, metav1.StatusReasonNotFound)
	}
}

func pod(name string, reason decide.Reason, owner string, age time.Duration) map[string]any {
	m := map[string]any{"name": name, "uid": "uid-" + name, "creationTimestamp": time.Now().Add(-age).UTC().Format(time.RFC3339), "annotations": map[string]any{"reason": string(reason)}}
	if kind, of, ok := strings.Cut(owner, "/"); ok {
		m["ownerReferences"] = []any{map[string]any{"apiVersion": "apps/v1", "kind": kind, "name": of, "uid": "uid-" + of, "controller": true}}
	}
	return map[string]any{"metadata": m}
}

type count struct{ atomic.Int64 }

func (c *count) Add(n int64) { c.Int64.Add(n) }

type harness struct {
	*Reconciler
	server                    *server
	told                      []*event.Event
	evicted, budgeted, failed count
}

func start(t *testing.T, restart bool) *harness {
	t.Helper()
	h := &harness{server: &server{events: map[string]corev1.Event{}}}
	s := httptest.NewServer(h.server)
	t.Cleanup(s.Close)
	client, err := kube.New(&rest.Config{Host: s.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	h.Reconciler = New(Config{
		Client: client, Ready: func() error { return nil }, Every: time.Hour, Restart: restart,
		Namespaces: func(f func(decide.Namespace) bool) {
			_ = f(decide.Namespace{Name: "other"}) && f(decide.Namespace{Name: "shop"})
		},
		Injected: func(ns decide.Namespace) bool { return ns.Name == "shop" },
		Pod: func(object []byte, _ decide.Namespace) (decide.Decision, error) {
			var p struct {
				Metadata struct{ Annotations map[string]string }
			}
			if err := json.Unmarshal(object, &p); err != nil {
				return decide.Decision{}, err
			}
			if r := decide.Reason(p.Metadata.Annotations["reason"]); r != "" {
				return decide.Decision{Reason: r, Workload: "Deployment/web"}, nil
			}
			return decide.Decision{}, errors.New("unreadable")
		},
		Tell:    func(e *event.Event) { h.told = append(h.told, e) },
		Evicted: &h.evicted, Budgeted: &h.budgeted, Failed: &h.failed, Log: slog.New(slog.DiscardHandler),
	})
	return h
}

func (h *harness) look(t *testing.T) {
	t.Helper()
	if err := h.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPodsWithoutTheAgentAreTold(t *testing.T) {
	h := start(t, false)
	going := pod("going", decide.Injected, "ReplicaSet/web", time.Hour)
	going["metadata"].(map[string]any)["deletionTimestamp"] = "2026-01-01T00:00:00Z"
	h.server.pods = []map[string]any{
		pod("a", decide.Injected, "ReplicaSet/web", time.Hour), pod("b", decide.AlreadyInjected, "ReplicaSet/web", time.Hour), pod("c", decide.Injected, "ReplicaSet/web", time.Hour),
		pod("alone", decide.Injected, "", time.Hour), pod("net", decide.HostNetwork, "", time.Hour), pod("old", decide.Foreign, "", time.Hour), going,
	}
	h.look(t)
	h.look(t) // another replica, or the next look: what was told is not told again
	if diff := cmp.Diff(Counts{Covered: 1, Differs: 1, Missing: 3, Excused: 1}, h.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if !slices.Equal(h.server.listed, []string{"shop", "shop"}) {
		t.Errorf("listed %v", h.server.listed)
	}
	type kubernetes struct{ Kind, Name, UID, Reason, Type, Message string }
	got := map[string]kubernetes{}
	for name, e := range h.server.events {
		message, _, _ := strings.Cut(e.Message, ":")
		got[name] = kubernetes{e.InvolvedObject.Kind, e.InvolvedObject.Name, string(e.InvolvedObject.UID), e.Reason, e.Type, message}
	}
	if diff := cmp.Diff(map[string]kubernetes{
		"apss-agent-missing.uid-web":   {"ReplicaSet", "web", "uid-web", reason, "Warning", "2 of its pods run without the agent, for instance a"},
		"apss-agent-missing.uid-alone": {"Pod", "alone", "uid-alone", reason, "Warning", "it runs without the agent"},
	}, got); diff != "" {
		t.Errorf("Kubernetes Events (-want +got):\n%s", diff)
	}
	var told []string
	for _, e := range h.told {
		told = append(told, fmt.Sprint(e.Type, e.Severity, e.PodNamespace, e.Workload, e.Metadata["owner"], e.Metadata["missing"], e.Metadata["pods"]))
	}
	if diff := cmp.Diff([]string{"agent_coverageMEDIUMshopDeployment/webPod/alone1 [alone]", "agent_coverageMEDIUMshopDeployment/webReplicaSet/web2 [a c]"}, told); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(h.server.evicted) != 0 {
		t.Errorf("evicted %v", h.server.evicted)
	}
}

func TestRestarting(t *testing.T) {
	h := start(t, true)
	h.server.pods = []map[string]any{
		pod("younger", decide.Injected, "ReplicaSet/web", time.Hour), pod("older", decide.Injected, "ReplicaSet/web", 2*time.Hour),
		pod("job", decide.Injected, "Job/once", time.Hour), pod("alone", decide.Injected, "", time.Hour), pod("covered", decide.AlreadyInjected, "ReplicaSet/other", time.Hour),
	}
	h.look(t)
	if len(h.server.evicted) != 0 {
		t.Errorf("evicted %v at the first look", h.server.evicted)
	}
	h.server.budget = true
	h.look(t)
	if len(h.server.evicted) != 0 || h.budgeted.Load() != 1 {
		t.Errorf("a budget: evicted %v, %d refused", h.server.evicted, h.budgeted.Load())
	}
	h.server.budget = false
	h.look(t)
	if !slices.Equal(h.server.evicted, []string{"older"}) || h.evicted.Load() != 1 {
		t.Errorf("got %v, want the oldest of those that are made anew", h.server.evicted)
	}
	// What came in its place has none either: the webhook is not asked, and restarting does not help.
	h.server.pods[1] = pod("anew", decide.Injected, "ReplicaSet/web", -time.Minute)
	h.look(t)
	if len(h.server.evicted) != 1 {
		t.Errorf("got %v, want no more of them", h.server.evicted)
	}
	// After a while it is tried again.
	h.server.pods[1] = pod("anew", decide.AlreadyInjected, "ReplicaSet/web", time.Minute)
	h.look(t)
	if len(h.server.evicted) != 1 {
		t.Errorf("got %v, want a pause", h.server.evicted)
	}
	e := h.Reconciler.evicted["uid-web"]
	e.pause = time.Time{}
	h.Reconciler.evicted["uid-web"] = e
	h.look(t)
	if !slices.Equal(h.server.evicted, []string{"older", "younger"}) {
		t.Errorf("got %v", h.server.evicted)
	}
	h.server.pods = nil
	h.look(t)
	if len(h.Reconciler.evicted) != 0 {
		t.Errorf("it remembers %v", h.Reconciler.evicted)
	}
}

// A look that does not come to its end counts nothing, and the next one does.
func TestRun(t *testing.T) {
	h := start(t, false)
	h.server.pods = []map[string]any{pod("a", decide.AlreadyInjected, "", 0), {"metadata": map[string]any{"name": "odd"}}}
	h.server.fails = true
	if err := h.Look(t.Context()); err == nil || !strings.Contains(err.Error(), "namespace shop") || h.Counts() != (Counts{}) {
		t.Errorf("got %v, %+v", err, h.Counts())
	}
	h.server.fails = false
	h.look(t)
	if want := (Counts{Covered: 1, Excused: 1}); h.Counts() != want { // a pod that cannot be read hides no other
		t.Errorf("got %+v want %+v", h.Counts(), want)
	}
	h.server.fails = true
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	ready := make(chan struct{}, 2)
	h.cfg.Ready = func() error {
		select {
		case ready <- struct{}{}:
		default:
		}
		return nil
	}
	go func() { h.Run(ctx); close(done) }()
	<-ready
	for end := time.Now().Add(30 * time.Second); h.failed.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	stop()
	<-done
	if h.failed.Load() == 0 {
		t.Error("the look's failure was not counted")
	}
}

// An outage that left many pods without an agent is told of in parts, each owner once.
func TestManyAreToldOfInParts(t *testing.T) {
	h := start(t, false)
	const owners = 2*tellAtMost + 7
	for i := range owners {
		h.server.pods = append(h.server.pods, pod(fmt.Sprintf("web-%d", i), decide.Injected, "", time.Hour))
	}
	for look, want := range []int{tellAtMost, 2 * tellAtMost, owners, owners} {
		if err := h.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(h.server.events); got != want || h.server.posts != want || len(h.told) != want {
			t.Errorf("look %d: got %d Kubernetes Events by %d requests, %d told; want %d", look, got, h.server.posts, len(h.told), want)
		}
	}
	if got := h.Counts().Missing; got != owners {
		t.Errorf("got %d missing want %d", got, owners)
	}
}
