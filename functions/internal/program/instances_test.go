package program

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/notify"
	"github.com/apss-sensor/apss/functions/internal/registry"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/outcome"
)

const document = `APSS_INTEGRATIONS=
- name: severe
  kind: sweetsecurity
  enabled: true
  route: {min_severity: CRITICAL}
  endpoint: env://APSS_TEST_RECEIVER
  api_key: env://APSS_TEST_RECEIVER
- name: asleep
  kind: sweetsecurity
`

// TestInstances: each instance of the document has its own path, route and key, beside the shortcut's.
func TestInstances(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{} // events by key
	h := newHouse(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got[r.Header.Get("Authorization")[:len("Bearer http")]] += strings.Count(string(body), `"agent_id"`)
	}, document)
	exec, connect := eventtest.Exec(), eventtest.Connect() // HIGH and CRITICAL
	for _, path := range []string{"/events/severe", "/events/sweetsecurity"} {
		if w := h.pushTo(t, path, "1", seal(exec, connect)); w.Code != 204 {
			t.Errorf("%s: got %d, want 204", path, w.Code)
		}
	}
	if diff := cmp.Diff(map[string]int{"Bearer http": 1, "Bearer the-": 2}, got); diff != "" {
		t.Errorf("events that arrived (-want +got):\n%s", diff)
	}
	if _, letters := h.dead(t); len(letters) > 0 {
		t.Errorf("got dead letters %v for what is not routed, want none", letters)
	}
}

// TestLost: a push for what is not there ends in the dead letters, whole, and says where it was to go.
func TestLost(t *testing.T) {
	h := newHouse(t, func(http.ResponseWriter, *http.Request) { t.Error("the receiver was called") }, document)
	m := seal(eventtest.Exec())
	m.Attributes["their-own"] = "x"
	tests := []struct{ path, integration, topic, reason string }{
		{"/events/nobody", "nobody", "events", `there is no integration "nobody" that takes events`},
		{"/events/asleep", "asleep", "events", "the integration asleep is disabled"},
		{"/alerts/nobody", "nobody", "alerts", `there is no integration "nobody" that takes alerts`},
		{"/events/" + strings.Repeat("x", 5000), strings.Repeat("x", 1021) + "...", "events", "there is no integration"},
		{"/events/%0a%00", "  ", "events", `there is no integration "\n\x00"`},
	}
	for i, tt := range tests {
		if w := h.pushTo(t, tt.path, "1", m); w.Code != 204 {
			t.Errorf("%.40s: got %d %s, want 204", tt.path, w.Code, w.Body)
		}
		messages := h.pubsub.Messages()
		if len(messages) != i+1 {
			t.Fatalf("%.40s: got %d letters, want %d", tt.path, len(messages), i+1)
		}
		letter := messages[i]
		if a := letter.Attributes; a["apss-integration"] != tt.integration || a["apss-topic"] != tt.topic || !strings.Contains(a["apss-reason"], tt.reason) {
			t.Errorf("%.40s: got %v", tt.path, a)
		}
		for k, v := range m.Attributes {
			if letter.Attributes[k] != v {
				t.Errorf("%.40s: attribute %s is %q, want %q", tt.path, k, letter.Attributes[k], v)
			}
		}
		if !bytes.Equal(letter.Data, m.Data) {
			t.Errorf("%.40s: the letter's data is not the message's", tt.path)
		}
	}
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/events/nobody", strings.NewReader("no push")))
	if w.Code != 400 || len(h.pubsub.Messages()) != len(tests) {
		t.Errorf("got %d for what is no push, want 400 and no letter", w.Code)
	}
}

// TestLostWithoutDeadLetters: nothing is acknowledged that is not safe.
func TestLostWithoutDeadLetters(t *testing.T) {
	h := newHouse(t, func(http.ResponseWriter, *http.Request) {}, "DEAD_LETTERS_TOPIC=missing", "DEAD_LETTERS_TIMEOUT=1s")
	if w := h.pushTo(t, "/events/nobody", "1", seal(eventtest.Exec())); w.Code != 503 {
		t.Errorf("got %d, want 503", w.Code)
	}
}

func TestNothingEnabled(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	var log bytes.Buffer
	p, err := New(t.Context(), []string{"PUBSUB_PROJECT_ID=p", "APSS_INTEGRATIONS=- {kind: sweetsecurity}"}, "test", &log)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "no integration is enabled here") {
		t.Errorf("the log does not say that nothing is enabled:\n%s", &log)
	}
}

// pager is a kind that takes alerts, and the handler of them.
type pager struct {
	mu     sync.Mutex
	alerts []string
	ticks  int
	closed bool
	err    error
}

func (*pager) Validate() error                                                    { return nil }
func (p *pager) New(integration.Env) (integration.Integration, error)             { return p, nil }
func (*pager) Check(context.Context) (integration.Status, error)                  { return integration.Status{}, nil }
func (*pager) SendDigest(context.Context, integration.Digest) error               { return nil }
func (*pager) SendIncident(context.Context, integration.Incident) (string, error) { return "", nil }

func (p *pager) Handle(_ context.Context, m envelope.Push) error {
	a, err := m.Alert()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alerts = append(p.alerts, a.ID)
	return p.err
}

func (p *pager) Tick(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ticks++
	return p.err
}

func (*pager) Test(context.Context) (integration.Receipt, error) { return integration.Receipt{}, nil }
func (*pager) Canary(context.Context) error                      { return nil }
func (*pager) Stats() notify.Stats                               { return notify.Stats{} }

func (p *pager) Close(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// TestAlerts: alerts come to the instance that the path names, and what is due is done when a scheduler asks.
func TestAlerts(t *testing.T) {
	one := new(pager)
	with := parts{
		kinds: append(registry.Kinds(), integration.Kind{Name: "pager", Settings: func() integration.Settings { return one }}),
		alerts: func(_ *Program, in integration.Instance, to integration.Integration) (alertHandler, error) {
			if in.Kind != "pager" {
				return new(pager), nil
			}
			return to.(*pager), nil
		},
	}
	h := newHouseOf(t, with, func(http.ResponseWriter, *http.Request) {}, "APSS_INTEGRATIONS=- {name: oncall, kind: pager, enabled: true}")
	a := eventtest.Alert()
	m := envelope.SealAlert(a, envelope.Source{AgentID: a.ID}, eventtest.Time())
	tick := func() int {
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/tick", http.NoBody))
		return w.Code
	}
	if w := h.pushTo(t, "/alerts/oncall", "1", m); w.Code != 204 {
		t.Errorf("got %d, want 204", w.Code)
	}
	if w := h.pushTo(t, "/alerts/sweetsecurity", "1", m); w.Code != 204 {
		t.Errorf("got %d, want 204", w.Code)
	}
	if code := tick(); code != 204 {
		t.Errorf("got %d for a tick, want 204", code)
	}
	if w := h.pushTo(t, "/events/oncall", "1", m); w.Code != 204 { // it takes no events
		t.Errorf("got %d, want 204", w.Code)
	}
	one.err = &outcome.Error{Class: outcome.Retry, Status: 429, After: 9, Err: errors.New("slow")}
	if w := h.pushTo(t, "/alerts/oncall", "1", m); w.Code != 429 {
		t.Errorf("got %d, want 429", w.Code)
	}
	if code := tick(); code != 503 {
		t.Errorf("got %d for a tick that fails, want 503", code)
	}
	h.flush(t.Context())
	if !slices.Equal(one.alerts, []string{a.ID, a.ID}) || one.ticks != 2 || !one.closed {
		t.Errorf("got %+v, want the alert twice, two ticks, and the end", one)
	}
	if _, letters := h.dead(t); len(letters) != 1 || letters[0]["apss-reason"] != `there is no integration "oncall" that takes events` {
		t.Errorf("got letters %v, want one", letters)
	}
}

// TestAlertsAreNotSentTwice: alerts reach a program's API, and a push that comes again does not.
func TestAlertsAreNotSentTwice(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{} // alerts by path
	h := newHouse(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got[r.URL.Path]++
	}, document)
	a := eventtest.Alert()
	m := envelope.SealAlert(a, envelope.Source{AgentID: a.ID}, eventtest.Time())
	for range 2 {
		if w := h.pushTo(t, "/alerts/sweetsecurity", "1", m); w.Code != 204 {
			t.Errorf("got %d %s, want 204", w.Code, w.Body)
		}
	}
	if diff := cmp.Diff(map[string]int{"/api/v1/alerts": 1}, got); diff != "" {
		t.Errorf("calls by path (-want +got):\n%s", diff)
	}
}
