package admission

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/inject"
)

func injector(tb testing.TB) *inject.Injector {
	tb.Helper()
	in, err := inject.New(decide.Settings{OptOut: decide.Never, Tier: decide.Auto, Own: "apss"}, inject.Sidecar{
		Image: "registry.example/apss-agent@sha256:" + strings.Repeat("ab", 32), Cluster: "c", Relay: "https://apss-relay.apss.svc:8444",
		Audience: "apss-relay", Port: 18080, Spool: "64Mi", Request: inject.Amount{CPU: "50m", Memory: "64Mi"}, Limit: inject.Amount{CPU: "1", Memory: "128Mi"},
	}, "v1")
	if err != nil {
		tb.Fatal(err)
	}
	return in
}

// handler knows the namespaces shop, which is labelled, and other.
func handler(tb testing.TB, change func(*Config)) *Handler {
	tb.Helper()
	in := injector(tb)
	c := Config{
		Injector: func() *inject.Injector { return in },
		Namespace: func(name string) (map[string]string, bool) {
			switch name {
			case "shop":
				return map[string]string{decide.LabelInject: "enabled"}, true
			case "other":
				return nil, true
			}
			return nil, false
		},
		Cluster:  func() decide.Cluster { return decide.Cluster{Minor: 34} },
		InFlight: 8, Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{},
	}
	if change != nil {
		change(&c)
	}
	h, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

const web = `{"metadata":{"name":"web"},"spec":{"containers":[{"name":"web","image":"nginx"}]}}`

func review(namespace, more, object string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","kind":{"group":"","version":"v1","kind":"Pod"},`+
		`"resource":{"group":"","version":"v1","resource":"pods"},"namespace":%q,"operation":"CREATE","userInfo":{"username":"jane"},%s"object":%s,"oldObject":null,"dryRun":null}}`, namespace, more, object)
}

func post(h http.Handler, contentType string, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/mutate", body)
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// What the API server reads of an answer.
type response struct {
	APIVersion, Kind string
	Response         struct {
		UID              string
		Allowed          bool
		PatchType        *string
		Patch            []byte
		Warnings         []string
		AuditAnnotations map[string]string
	}
}

func TestReviews(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)
	for _, tt := range []struct {
		name, body string
		decision   decide.Reason
		observed   bool
		warning    string
	}{
		{"a pod", review("shop", "", web), decide.Injected, true, ""},
		{"a dry run", strings.Replace(review("shop", "", web), `"dryRun":null`, `"dryRun":true`, 1), decide.Injected, false, ""},
		{"a nonsense annotation", review("shop", "", strings.Replace(web, `"name":"web"}`, `"annotations":{"apss.dev/tier":"\u001b[31m"}}`, 1)), decide.Injected, true, "apss: annotation apss.dev/tier is"},
		{"a namespace that is not labelled", review("other", "", web), decide.NamespaceNotEnabled, true, ""},
		{"a namespace that is not known", review("new", "", web), decide.NamespaceUnknown, true, ""},
		{"another kind", strings.Replace(review("shop", "", web), `"kind":"Pod"`, `"kind":"Node"`, 1), decide.NotAPod, true, ""},
		{"another group's pods", strings.Replace(review("shop", "", web), `"group":"","version":"v1","kind":"Pod"`, `"group":"x","version":"v1","kind":"Pod"`, 1), decide.NotAPod, true, ""},
		{"a subresource", review("shop", `"subResource":"eviction",`, web), decide.NotAPod, true, ""},
		{"an update", strings.Replace(review("shop", "", web), "CREATE", "UPDATE", 1), decide.NotACreation, true, ""},
		{"no object", review("shop", "", "null"), decide.Unreadable, true, ""},
		{"an object that is none", review("shop", "", "[1,2]"), decide.Unreadable, true, ""},
		{"a pod of null fields", review("shop", "", `{"metadata":null,"spec":null}`), decide.NoContainers, true, ""},
	} {
		observed := false
		h := handler(t, func(c *Config) {
			c.Observe = func(r *Request, d *decide.Decision) {
				observed = r.User.Name == "jane" && d.Reason == tt.decision
			}
		})
		w := post(h, "application/json; charset=utf-8", strings.NewReader(tt.body))
		var got response
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Errorf("%s: %d %s: %v", tt.name, w.Code, w.Body, err)
			continue
		}
		r := got.Response
		if got.APIVersion != "admission.k8s.io/v1" || got.Kind != "AdmissionReview" || r.UID != "u-1" || !r.Allowed || r.AuditAnnotations["decision"] != string(tt.decision) {
			t.Errorf("%s: got %+v want it allowed with %s", tt.name, got, tt.decision)
		}
		if (r.Patch != nil) != (tt.decision == decide.Injected) || (r.PatchType != nil) != (r.Patch != nil) {
			t.Errorf("%s: got patch %s", tt.name, r.Patch)
		}
		if got := strings.Join(r.Warnings, "\n"); !strings.HasPrefix(got, tt.warning) || (got == "") != (tt.warning == "") {
			t.Errorf("%s: got warnings %q want %q", tt.name, got, tt.warning)
		}
		if observed != tt.observed {
			t.Errorf("%s: observed %t want %t", tt.name, observed, tt.observed)
		}
	}
	for _, tt := range []struct {
		name, contentType, body string
		status                  int
	}{
		{"empty", "application/json", "", http.StatusBadRequest},
		{"no JSON", "application/json", "{", http.StatusBadRequest},
		{"deep", "application/json", review("shop", "", deep), http.StatusBadRequest},
		{"two documents", "application/json", "{}{}", http.StatusBadRequest},
		{"v1beta1", "application/json", strings.Replace(review("shop", "", web), "k8s.io/v1", "k8s.io/v1beta1", 1), http.StatusBadRequest},
		{"another type", "application/json", `{"apiVersion":"v1","kind":"Pod"}`, http.StatusBadRequest},
		{"no request", "application/json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, http.StatusBadRequest},
		{"no uid", "application/json", strings.Replace(review("shop", "", web), "u-1", "", 1), http.StatusBadRequest},
		{"a form", "application/x-www-form-urlencoded", "a=b", http.StatusUnsupportedMediaType},
		{"huge", "application/json", strings.Repeat(" ", MaxBody+1), http.StatusRequestEntityTooLarge},
	} {
		if w := post(handler(t, nil), tt.contentType, strings.NewReader(tt.body)); w.Code != tt.status || w.Body.Len() == 0 {
			t.Errorf("%s: got %d %q want %d and why", tt.name, w.Code, w.Body, tt.status)
		}
	}
	w := httptest.NewRecorder()
	handler(t, nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/mutate", nil))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodPost {
		t.Errorf("GET: got %d", w.Code)
	}
}

// Who does not know the path gets nowhere: the pod is allowed, nothing is read, done or told.
func TestElsewhere(t *testing.T) {
	const path = "/mutate/secret"
	asked := 0
	h := handler(t, func(c *Config) {
		c.Path = func(p string) bool { asked++; return p == path }
		c.Namespace = func(string) (map[string]string, bool) { t.Error("it is decided about"); return nil, false }
		c.Observe = func(*Request, *decide.Decision) { t.Error("it is told of") }
	})
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"a forged review", http.MethodPost, "/mutate", review("shop", "", web), http.StatusOK, `"uid":"u-1","allowed":true,"auditAnnotations":{"decision":"elsewhere"}`},
		{"likewise, large", http.MethodPost, "/", review("shop", "", web) + strings.Repeat(" ", MaxBody), http.StatusOK, `"uid":"u-1","allowed":true`},
		{"a part of the path", http.MethodPost, path[:len(path)-1], review("shop", "", web), http.StatusOK, `"decision":"elsewhere"`},
		{"more than the path", http.MethodPost, path + "/", review("shop", "", web), http.StatusOK, `"decision":"elsewhere"`},
		{"nothing", http.MethodPost, "/mutate", "", http.StatusNotFound, ""},
		{"no review", http.MethodGet, "/", "", http.StatusNotFound, ""},
		{"a uid that is none", http.MethodPost, "/", `{"request":{"uid":"a\"b"}}`, http.StatusNotFound, ""},
		{"a uid without an end", http.MethodPost, "/", `{"request":{"uid":"` + strings.Repeat("a", headSize), http.StatusNotFound, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) || strings.Contains(w.Body.String(), "patch") {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, w.Code, w.Body, tt.status, tt.want)
		}
	}
	if asked != 8 || len(h.senders.known) > 0 {
		t.Errorf("%d were asked about", asked)
	}
}

// The audit log has what the agent sees, and why it is no more.
func TestTierIsTold(t *testing.T) {
	for object, want := range map[string]string{
		web: `"auditAnnotations":{"decision":"injected","tier":"pod-full"}`,
		strings.Replace(web, `"containers"`, `"securityContext":{"runAsUser":7},"containers"`, 1): `"auditAnnotations":{"decision":"injected","tier":"pod-same-uid","tier-reason":"one-user"}`,
	} {
		if got := post(handler(t, nil), "application/json", strings.NewReader(review("shop", "", object))).Body.String(); !strings.Contains(got, want) {
			t.Errorf("got %s want %s", got, want)
		}
	}
}

// Before the cluster is known, reviews are answered.
func TestStarting(t *testing.T) {
	h := handler(t, func(c *Config) { c.Ready = func() error { return errors.New("not yet") } })
	if got := post(h, "application/json", strings.NewReader(review("shop", "", web))).Body.String(); !strings.Contains(got, `"allowed":true,"auditAnnotations":{"decision":"starting"}`) {
		t.Errorf("got %s", got)
	}
}

// What Observe is told of may be kept, whatever the next review is read into.
func TestObservedStays(t *testing.T) {
	var kept []*Request
	h := handler(t, func(c *Config) { c.Observe = func(r *Request, _ *decide.Decision) { kept = append(kept, r) } })
	for range 3 {
		post(h, "application/json", strings.NewReader(review("shop", "", web)))
		post(h, "application/json", strings.NewReader(review("shop", "", strings.ReplaceAll(web, "web", "bad"))))
	}
	for i, r := range kept {
		if want := []string{web, strings.ReplaceAll(web, "web", "bad")}[i%2]; string(r.Object) != want {
			t.Errorf("review %d: got %s want %s", i, r.Object, want)
		}
	}
}

// slow is a body that does not come.
type slow struct {
	reading chan<- struct{}
	end     <-chan struct{}
}

func (s slow) Read([]byte) (int, error) {
	s.reading <- struct{}{}
	<-s.end
	return 0, io.ErrUnexpectedEOF
}

// Who sends slowly, on however many connections, keeps no review of others waiting.
func TestSlowSenders(t *testing.T) {
	const inFlight = 4
	h := handler(t, func(c *Config) { c.InFlight = inFlight })
	reading, end := make(chan struct{}, 3*inFlight), make(chan struct{})
	var senders sync.WaitGroup
	for range 3 * inFlight {
		senders.Go(func() {
			r := httptest.NewRequest(http.MethodPost, "/mutate", slow{reading, end})
			r.RemoteAddr = "10.0.0.66:1234"
			r.Header.Set("Content-Type", "application/json")
			h.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	for range inFlight {
		<-reading
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/mutate", strings.NewReader(review("shop", "", web)))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if !strings.Contains(w.Body.String(), `"decision":"injected"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if n := len(reading); n != 0 {
		t.Errorf("%d requests more than %d of one address are read at the same time", n, inFlight)
	}
	close(end)
	senders.Wait()
	if n := len(h.senders.known); n != 0 {
		t.Errorf("%d addresses are remembered", n)
	}
}

// A panic costs the pod its agent, not its start.
func TestPanic(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"deciding":  func(c *Config) { c.Cluster = func() decide.Cluster { panic("a bug") } },
		"observing": func(c *Config) { c.Observe = func(*Request, *decide.Decision) { panic("a bug") } },
	} {
		var log bytes.Buffer
		w := post(handler(t, func(c *Config) {
			change(c)
			c.Log = slog.New(slog.NewTextHandler(&log, nil))
		}), "application/json", strings.NewReader(review("shop", "", web)))
		if got := w.Body.String(); !strings.Contains(got, `"uid":"u-1","allowed":true,"auditAnnotations":{"decision":"failed"}`) || !strings.Contains(log.String(), "a bug") {
			t.Errorf("%s: got %s, log %s", name, got, &log)
		}
	}
}

func FuzzReview(f *testing.F) {
	f.Add(review("shop", "", web))
	f.Add(review("shop", `"subResource":"exec",`, `{"command":["sh"]}`))
	f.Add("{}")
	h, other := handler(f, nil), handler(f, func(c *Config) { c.Path = func(string) bool { return false } })
	f.Fuzz(func(t *testing.T, body string) {
		if w := post(other, "application/json", strings.NewReader(body)); w.Code != http.StatusNotFound {
			var got response
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || !got.Response.Allowed || got.Response.UID == "" || got.Response.Patch != nil {
				t.Errorf("elsewhere, %s: got %d %s", body, w.Code, w.Body)
			}
		}
		w := post(h, "application/json", strings.NewReader(body))
		if w.Code == http.StatusBadRequest {
			return
		}
		var got response
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK || !got.Response.Allowed || got.Response.AuditAnnotations["decision"] == string(decide.Failed) {
			t.Errorf("%s: got %d %s", body, w.Code, w.Body)
		}
	})
}

// sink is a client that is not there.
type sink struct {
	header http.Header
	n      int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { s.n += len(p); return len(p), nil }
func (s *sink) WriteHeader(int)             {}

func BenchmarkReview(b *testing.B) {
	for _, size := range []int{2 << 10, 400 << 10} {
		var env strings.Builder
		for i := 0; env.Len() < size-len(web)-500; i++ {
			fmt.Fprintf(&env, `{"name":"SETTING_%d","value":"the value of setting %d"},`, i, i)
		}
		object := strings.Replace(web, `"image"`, `"env":[`+env.String()+`{"name":"x","value":"y"}],"image"`, 1)
		for _, namespace := range []string{"shop", "other"} {
			body := []byte(review(namespace, "", object))
			name := map[string]string{"shop": "inject", "other": "skip"}[namespace]
			b.Run(fmt.Sprintf("%s-%dKiB", name, size>>10), func(b *testing.B) {
				h := handler(b, nil)
				b.ReportAllocs()
				b.SetBytes(int64(len(body)))
				reader, w := bytes.NewReader(body), &sink{header: http.Header{}}
				r := httptest.NewRequest(http.MethodPost, "/mutate", nil)
				r.Header.Set("Content-Type", "application/json")
				for b.Loop() {
					reader.Reset(body)
					r.Body, r.ContentLength = io.NopCloser(reader), int64(len(body))
					h.ServeHTTP(w, r)
				}
				if w.n == 0 {
					b.Fatal("no answer")
				}
			})
		}
	}
}

// A flood from who does not know the path costs little beside what it costs itself.
func BenchmarkReviewElsewhere(b *testing.B) {
	h := handler(b, func(c *Config) { c.Path = func(string) bool { return false } })
	body := []byte(review("shop", "", web))
	reader, w := bytes.NewReader(body), &sink{header: http.Header{}}
	r := httptest.NewRequest(http.MethodPost, "/mutate", nil)
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		r.Body = io.NopCloser(reader)
		h.ServeHTTP(w, r)
	}
	if w.n == 0 {
		b.Fatal("no answer")
	}
}

func TestPatchIsBase64(t *testing.T) {
	w := post(handler(t, nil), "application/json", strings.NewReader(review("shop", "", web)))
	_, rest, _ := strings.Cut(w.Body.String(), `"patch":"`)
	text, _, _ := strings.Cut(rest, `"`)
	patch, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !bytes.HasPrefix(patch, []byte(`[{"op":"add","path":`)) {
		t.Errorf("got %s, %v", patch, err)
	}
}
