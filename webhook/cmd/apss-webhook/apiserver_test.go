package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// apiServer has what the webhook asks of one: a namespace that is injected with one pod, a node, Secrets, the webhook
// configuration. It notes which rights were used.
type apiServer struct {
	url    string
	passed atomic.Int64 // how far the clock of its cluster is ahead

	mu      sync.Mutex
	version int
	objects map[string][]byte // by path
	ours    string            // the pods of our namespace
	used    map[string]bool   // "<verb> <group>/<resource> <name where it is one of ours>"
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{objects: map[string][]byte{}, used: map[string]bool{}, ours: podOf("apss-webhook-1", "new")}
	called := admissionv1.MutatingWebhook{ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "apss", Name: "apss-webhook"}}}
	for path, o := range map[string]any{
		"/api/v1/namespaces/apss/secrets/apss-webhook-certs": corev1.Secret{TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}},
		"/api/v1/namespaces/apss/secrets/apss-relay-certs":   corev1.Secret{TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}},
		configurationPath: admissionv1.MutatingWebhookConfiguration{
			TypeMeta: metav1.TypeMeta{Kind: "MutatingWebhookConfiguration", APIVersion: "admissionregistration.k8s.io/v1"}, Webhooks: []admissionv1.MutatingWebhook{called, called},
		},
	} {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if s.objects[path], err = s.stamp(b); err != nil {
			t.Fatal(err)
		}
	}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

const configurationPath = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/apss-webhook"

// client is a replica's.
func (s *apiServer) client(t *testing.T) *kube.Client {
	t.Helper()
	c, err := kube.New(&rest.Config{Host: s.url})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// stamp gives an object the next version.
func (s *apiServer) stamp(b []byte) ([]byte, error) {
	s.version++
	return jsonpatch.MergePatch(b, fmt.Appendf(nil, `{"metadata":{"resourceVersion":"%d"}}`, s.version))
}

func versionOf(b []byte) string {
	var o metav1.PartialObjectMetadata
	_ = json.Unmarshal(b, &o) // none is none
	return o.ResourceVersion
}

// edit changes an object as a person does.
func (s *apiServer) edit(t *testing.T, path, merge string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := jsonpatch.MergePatch(s.objects[path], []byte(merge))
	if err == nil {
		s.objects[path], err = s.stamp(b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// now is the time in its cluster.
func (s *apiServer) now() time.Time { return time.Now().Add(time.Duration(s.passed.Load())) }

// podOf is a pod of the webhook's Deployment, made by the ReplicaSet of this hash.
func podOf(name, hash string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"pod-template-hash":%q},"ownerReferences":[{"kind":"ReplicaSet","name":"apss-webhook-%s","controller":true}]},"spec":{}}`, name, hash, hash)
}

// run says which pods there are in our namespace.
func (s *apiServer) run(pods ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ours = strings.Join(pods, ",")
}

// called is how the webhook is called: what it is verified by, and the path.
func (s *apiServer) called() (bundle []byte, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var m admissionv1.MutatingWebhookConfiguration
	_ = json.Unmarshal(s.objects[configurationPath], &m) // nothing is verified by nothing
	c := m.Webhooks[0].ClientConfig
	if c.Service.Path != nil {
		path = *c.Service.Path
	}
	return c.CABundle, path
}

// note keeps which right a request used.
func (s *apiServer) note(r *http.Request) {
	group, rest := "", strings.TrimPrefix(r.URL.Path, "/api/v1/")
	if apis, ok := strings.CutPrefix(r.URL.Path, "/apis/"); ok {
		group, rest, _ = strings.Cut(apis, "/v1/")
	}
	parts := strings.Split(rest, "/")
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	verb := map[string]string{"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create"}[r.Method]
	if verb == "get" && len(parts) == 1 {
		verb = "list"
		if r.URL.Query().Get("watch") != "" {
			verb = "watch"
		}
	}
	if parts[0] == "version" || rest == r.URL.Path {
		return // everyone may
	}
	right := verb + " " + group + "/" + parts[0]
	if len(parts) == 3 {
		right += "/" + parts[2]
	} else if len(parts) == 2 {
		right += " " + parts[1]
	}
	s.used[right] = true
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.note(r)
	answer, code := s.answer(r, body)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if answer == nil { // a watch without news
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	_, _ = w.Write(answer)
}

func (s *apiServer) answer(r *http.Request, body []byte) ([]byte, int) {
	status := func(code int, reason metav1.StatusReason) ([]byte, int) {
		return fmt.Appendf(nil, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code), code
	}
	q, old := r.URL.Query(), s.objects[r.URL.Path]
	switch {
	case q.Has("sendInitialEvents"):
		return status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
	case q.Get("watch") != "":
		return nil, http.StatusOK
	case r.URL.Path == "/version":
		return []byte(`{"gitVersion":"v1.34.1"}`), http.StatusOK
	case r.URL.Path == "/api/v1/namespaces":
		return fmt.Appendf(nil, `{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"shop","labels":{%q:"enabled"}}}]}`, decide.LabelInject), http.StatusOK
	case r.URL.Path == "/api/v1/nodes":
		return []byte(`{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"n"},"status":{"nodeInfo":{"operatingSystem":"linux","kubeletVersion":"v1.34.1"}}}]}`), http.StatusOK
	case r.URL.Path == "/api/v1/namespaces/apss/pods":
		return []byte(`{"kind":"PodList","apiVersion":"v1","items":[` + s.ours + `]}`), http.StatusOK
	case strings.HasSuffix(r.URL.Path, "/pods"):
		return []byte(`{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"web-1","uid":"1","creationTimestamp":"2026-01-01T00:00:00Z",
			"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"2","controller":true}]},"spec":{"containers":[{"name":"web"}]}}]}`), http.StatusOK
	case r.Method == http.MethodPost:
		return body, http.StatusCreated // events, evictions
	case old == nil:
		return status(http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodGet:
		return old, http.StatusOK
	}
	next := body
	if r.Method == http.MethodPatch {
		p, err := jsonpatch.DecodePatch(body)
		if err == nil {
			next, err = p.Apply(old)
		}
		if err != nil {
			return status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
		}
	}
	if versionOf(next) != versionOf(old) {
		return status(http.StatusConflict, metav1.StatusReasonConflict)
	}
	next, err := s.stamp(next)
	if err != nil {
		return status(http.StatusBadRequest, metav1.StatusReasonBadRequest)
	}
	s.objects[r.URL.Path] = next
	return next, http.StatusOK
}
