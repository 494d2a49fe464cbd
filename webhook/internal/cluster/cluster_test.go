package cluster

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// server is an API server with what a watch of namespaces and nodes asks.
type server struct {
	version    string
	namespaces []corev1.Namespace
	nodes      []corev1.Node
	news       chan metav1.WatchEvent // of namespaces

	mu    sync.Mutex
	asked map[string]bool
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked[r.Method+" "+r.URL.Path] = true
	s.mu.Unlock()
	q := r.URL.Query()
	write := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
		w.(http.Flusher).Flush()
	}
	switch {
	case r.URL.Path == "/version":
		write(map[string]string{"gitVersion": s.version})
	case q.Has("sendInitialEvents"): // an older server
		w.WriteHeader(http.StatusUnprocessableEntity)
		write(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: 422})
	case q.Get("watch") != "" && r.URL.Path == "/api/v1/namespaces":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case e := <-s.news:
				write(e)
			case <-r.Context().Done():
				return
			}
		}
	case q.Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case r.URL.Path == "/api/v1/namespaces":
		write(corev1.NamespaceList{TypeMeta: metav1.TypeMeta{Kind: "NamespaceList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: s.namespaces})
	case r.URL.Path == "/api/v1/nodes":
		write(corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: s.nodes})
	default:
		http.NotFound(w, r)
	}
}

func node(name, os, version string) (n corev1.Node) {
	n.Name, n.Status.NodeInfo = name, corev1.NodeSystemInfo{OperatingSystem: os, KubeletVersion: version}
	return n
}

func namespace(name string, labels map[string]string) (n corev1.Namespace) {
	n.TypeMeta = metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}
	n.Name, n.Labels, n.ResourceVersion = name, labels, "2"
	return n
}

// watch returns a running cluster that s serves.
func (s *server) watch(t *testing.T) *Cluster {
	t.Helper()
	s.asked, s.news = map[string]bool{}, make(chan metav1.WatchEvent)
	h := httptest.NewServer(s)
	client, err := kube.New(&rest.Config{Host: h.URL})
	if err != nil {
		t.Fatal(err)
	}
	c := New(client, slog.New(slog.DiscardHandler))
	if c.Ready() == nil || c.Cluster() != (decide.Cluster{}) {
		t.Error("it is ready before it was told anything")
	}
	done := make(chan struct{})
	go func() { defer close(done); c.Run(t.Context()) }()
	t.Cleanup(func() { <-done; h.Close() })
	await(t, "readiness", func() error { return c.Ready() })
	return c
}

func await(t *testing.T, what string, ask func() error) {
	t.Helper()
	const within, every = 30 * time.Second, 5 * time.Millisecond
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

func TestTheOldestKubeletCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		nodes []corev1.Node
		want  int
	}{
		"one":               {[]corev1.Node{node("a", "linux", "v1.34.1-gke.1829001")}, 34},
		"several":           {[]corev1.Node{node("a", "linux", "v1.34.1"), node("b", "linux", "v1.28.9"), node("c", "linux", "v1.30.0")}, 28},
		"Windows":           {[]corev1.Node{node("a", "linux", "v1.34.1"), node("b", "windows", "v1.20.0")}, 34},
		"one that is new":   {[]corev1.Node{node("a", "linux", "v1.34.1"), node("b", "", "")}, 34},
		"one of no version": {[]corev1.Node{node("a", "linux", "v1.34.1"), node("b", "linux", "dirty")}, 0},
		"no nodes":          {nil, 33 - skew},
	} {
		c := (&server{version: "v1.33.5", nodes: tt.nodes}).watch(t)
		if got := c.Cluster().Minor; got != tt.want {
			t.Errorf("%s: got 1.%d want 1.%d", name, got, tt.want)
		}
	}
}

func TestNamespacesAreWatched(t *testing.T) {
	s := &server{version: "v1.34.1", namespaces: []corev1.Namespace{
		namespace("shop", map[string]string{decide.LabelInject: "enabled", "team": "a"}), namespace("other", map[string]string{"team": "b"}),
	}}
	c := s.watch(t)
	labels := func(name string) any {
		got, known := c.Namespace(name)
		return fmt.Sprint(got, known)
	}
	if diff := cmp.Diff([]any{"map[apss.dev/inject:enabled] true", "map[] true", "map[] false"}, []any{labels("shop"), labels("other"), labels("new")}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	tell := func(kind string, ns corev1.Namespace, want string) {
		t.Helper()
		raw, err := json.Marshal(ns)
		if err != nil {
			t.Fatal(err)
		}
		e := metav1.WatchEvent{Type: kind}
		e.Object.Raw = raw
		s.news <- e
		await(t, kind, func() error {
			if got := labels(ns.Name); got != want {
				return fmt.Errorf("%s: got %v want %s", ns.Name, got, want)
			}
			return nil
		})
	}
	tell("ADDED", namespace("new", map[string]string{decide.LabelInject: "disabled"}), "map[apss.dev/inject:disabled] true")
	tell("MODIFIED", namespace("shop", nil), "map[] true")
	tell("DELETED", namespace("other", nil), "map[] false")
	n := 0
	c.Each(func(decide.Namespace) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("Each went on: %d", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[string]bool{"GET /version": true, "GET /api/v1/namespaces": true, "GET /api/v1/nodes": true}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Errorf("what was asked (-want +got):\n%s", diff)
	}
}

func TestMinor(t *testing.T) {
	for version, want := range map[string]int{"v1.34.1": 34, "v1.29": 29, "1.30.2+k3s1": 30, "v1.31.0-alpha.1": 31} {
		if got, err := kube.Minor(version); err != nil || got != want {
			t.Errorf("%s: got %d, %v want %d", version, got, err, want)
		}
	}
	for _, version := range []string{"", "v", "v2.1.0", "v1.x", "v1.-3.0", "latest"} {
		if got, err := kube.Minor(version); err == nil {
			t.Errorf("%q: got %d, want an error", version, got)
		}
	}
}
