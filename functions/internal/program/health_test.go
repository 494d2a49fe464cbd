package program

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/apss-sensor/apss/functions/internal/health"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// ask makes a request of a person and decodes the answer into v.
func (h *house) ask(t *testing.T, method, path string, v any) int {
	t.Helper()
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest(method, path, http.NoBody))
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatalf("%s %s: got %d %s: %v", method, path, w.Code, w.Body, err)
	}
	return w.Code
}

// topic makes one in the house's Pub/Sub.
func (h *house) topic(t *testing.T, name string) {
	t.Helper()
	client, err := pubsub.NewClient(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/" + name}); err != nil {
		t.Fatal(err)
	}
}

// TestHealthOfTheWay: a canary that a tick publishes reaches the receiver of who opted in and nobody else, deliveries are
// counted, a test is a message that says so, and a heartbeat is an agent.
func TestHealthOfTheWay(t *testing.T) {
	var mu sync.Mutex
	got := map[string][]string{} // bodies by key
	h := newHouse(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost {
			mu.Lock()
			defer mu.Unlock()
			got[r.Header.Get("Authorization")] = append(got[r.Header.Get("Authorization")], string(body))
		}
	}, "APSS_LOCAL=true", "HEALTH_CANARY_EVERY=1m", `APSS_INTEGRATIONS=
- {name: asked, kind: sweetsecurity, enabled: true, canary: true, route: {min_severity: CRITICAL}, endpoint: env://APSS_TEST_RECEIVER, api_key: asked}
- {name: off, kind: sweetsecurity}
`)
	h.topic(t, "apss-events")
	h.topic(t, "apss-alerts")
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/tick", http.NoBody))
	if w.Code != 204 {
		t.Fatalf("got %d %s for a tick, want 204", w.Code, w.Body)
	}
	var published []*pstest.Message
	for _, m := range h.pubsub.Messages() {
		if m.Attributes["ce-canary"] != "" {
			published = append(published, m)
		}
	}
	if len(published) != 2 {
		t.Fatalf("got %d canaries, want one for each topic", len(published))
	}
	for _, m := range published {
		topic := events
		if m.Attributes["ce-type"] == envelope.TypeAlert {
			topic = alerts
		}
		for _, name := range []string{"asked", "sweetsecurity"} {
			if w := h.pushTo(t, "/"+topic+"/"+name, m.ID, envelope.Message{Data: m.Data, Attributes: m.Attributes}); w.Code != 204 {
				t.Errorf("%s: got %d %s, want 204", name, w.Code, w.Body)
			}
		}
	}
	if len(got["Bearer asked"]) != 2 || len(got["Bearer the-key"]) != 0 {
		t.Fatalf("got %d and %d calls, want two for who opted in, and none", len(got["Bearer asked"]), len(got["Bearer the-key"]))
	}
	beat := &event.Event{ID: event.NewID(), AgentID: "c1/n1", Type: event.AgentHeartbeat, Timestamp: eventtest.Time(), Metadata: map[string]any{"interval": "1m"}}
	if w := h.pushTo(t, agentsPath, "9", seal(eventtest.Exec(), beat)); w.Code != 204 {
		t.Errorf("got %d for a heartbeat, want 204", w.Code)
	}
	if w := h.pushTo(t, "/events/sweetsecurity", "10", seal(eventtest.Many(7, 1)...)); w.Code != 204 {
		t.Errorf("got %d, want 204", w.Code)
	}
	var test health.TestReport
	if code := h.ask(t, "POST", "/health/asked/test", &test); code != 200 || !test.OK || len(test.Results) != 2 {
		t.Errorf("got %d %+v, want a test of events and of alerts", code, test)
	}
	for _, body := range got["Bearer asked"] {
		if !strings.Contains(body, string(event.IntegrationTest)) {
			t.Errorf("got %s, want it marked as a test", body)
		}
	}
	var r health.Report
	if code := h.ask(t, "GET", "/health?check=now", &r); code != 200 || len(r.Integrations) != 3 {
		t.Fatalf("got %d %+v", code, r)
	}
	asked, off, shortcut := r.Integrations[0], r.Integrations[1], r.Integrations[2]
	if asked.Status != health.Healthy || asked.Canary[events].AgeSeconds < 0 || asked.Canary[alerts].AgeSeconds < 0 || !asked.Check.OK {
		t.Errorf("got %+v, want it healthy and its canaries there", asked)
	}
	if shortcut.PerHour != 7 || shortcut.LastSuccess.IsZero() || shortcut.Canary != nil || off.Status != health.Disabled {
		t.Errorf("got %+v and %+v, want seven events and no canary, and one that is disabled", shortcut, off)
	}
	if r.Agents.Live != 1 || r.State.Shared {
		t.Errorf("got %+v %+v, want one agent, and that the state is not shared", r.Agents, r.State)
	}
}

// TestHealthAlone: the function Health tests what others serve, and takes dead letters that are brought again.
func TestHealthAlone(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	var called atomic.Int64 // tests of events and alerts come at the same time
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			called.Add(1)
		}
	}))
	defer server.Close()
	p, err := New(t.Context(), []string{
		"PUBSUB_PROJECT_ID=p", "SWEET_SECURITY_API_KEY=k", "SWEET_SECURITY_ENDPOINT=" + server.URL, "K_SERVICE=health", "HEALTH_CANARY_EVERY=0s",
	}, "test", io.Discard, Health)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/health/sweetsecurity/test", 200}, {"GET", "/health", 200}, {"POST", "/tick", 204}, {"POST", "/events/_agents", 400},
		{"POST", "/events/sweetsecurity", 400}, {"POST", "/events/nobody", 404},
	} {
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, http.NoBody))
		if w.Code != tt.status {
			t.Errorf("%s %s: got %d %s, want %d", tt.method, tt.path, w.Code, w.Body, tt.status)
		}
	}
	h := &house{Program: p}
	if w := h.pushTo(t, "/events/sweetsecurity", "1", seal(eventtest.Exec())); w.Code/100 != 2 {
		t.Errorf("an event that is brought again: got %d %s", w.Code, w.Body)
	}
	if w := h.pushTo(t, "/alerts/sweetsecurity", "2", envelope.SealAlert(eventtest.Alert(), envelope.Source{AgentID: "c1/n1"}, eventtest.Time())); w.Code/100 != 2 {
		t.Errorf("an alert that is brought again: got %d %s", w.Code, w.Body)
	}
	if got := called.Load(); got != 4 {
		t.Errorf("got %d calls, want the two of the test and two of what was brought again", got)
	}
}

// TestAdminToken: in a container that nobody guards /health is shut until it has a token.
func TestAdminToken(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	t.Setenv("APSS_TEST_TOKEN", "the-token")
	for _, tt := range []struct {
		env    []string
		shown  string
		status int
	}{
		{nil, "", 403}, {[]string{"K_SERVICE=x"}, "", 200}, {[]string{"APSS_LOCAL=true"}, "", 200},
		{[]string{"APSS_ADMIN_TOKEN=env://APSS_TEST_TOKEN"}, "the-token", 200}, {[]string{"APSS_ADMIN_TOKEN=env://APSS_TEST_TOKEN", "K_SERVICE=x"}, "", 401},
	} {
		p, err := New(t.Context(), environ(tt.env...), "test", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/health", http.NoBody)
		if tt.shown != "" {
			r.Header.Set("Authorization", "Bearer "+tt.shown)
		}
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%v: got %d, want %d", tt.env, w.Code, tt.status)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	_, err := New(t.Context(), environ("APSS_ADMIN_TOKEN=vault://x", "HEALTH_CHECK_EVERYY=1m"), "test", io.Discard)
	if err == nil || !strings.Contains(err.Error(), "HEALTH_CHECK_EVERYY") {
		t.Errorf("got %v, want it to name the key that there is not", err)
	}
}
