package health

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/breaker"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func serve(h *Health, method, target, token string) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	h.Register(mux)
	r := httptest.NewRequest(method, target, http.NoBody)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

// unreadable is a token that cannot be read.
type unreadable struct{}

func (unreadable) Get(context.Context) (secret.Value, error) {
	return secret.Value{}, errors.New("no such secret")
}
func (unreadable) Refresh() {}

func TestAdmission(t *testing.T) {
	token := secret.Plain{Value: secret.New("the-token")}
	for _, tt := range []struct {
		name  string
		token secret.Source
		open  bool
		shown string
		want  int
	}{
		{"open", nil, true, "", 200},
		{"neither open nor a token", nil, false, "", 403},
		{"the token", token, false, "the-token", 200},
		{"another", token, false, "the-toker", 401},
		{"none shown", token, false, "", 401},
		{"none shown, open", token, true, "", 401},
		{"it cannot be read", unreadable{}, true, "the-token", 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := newHealth(t, func(c *Config) { c.Token, c.Open = tt.token, tt.open })
			for _, r := range [][2]string{{"GET", "/health"}, {"POST", "/health/i/test"}} {
				want := tt.want
				if want == 200 && r[0] == "POST" {
					want = 404 // it is let in, and there is none
				}
				w := serve(h, r[0], r[1], tt.shown)
				if w.Code != want || strings.Contains(w.Body.String(), "the-token") {
					t.Errorf("%s: got %d %s, want %d", r[1], w.Code, w.Body, want)
				}
			}
		})
	}
}

// TestShape fixes the shape of GET /health.
func TestShape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		figures := Figures{Accepted: 120, DeadLettered: 1, Breaker: breaker.Status{
			State: breaker.Open, Reason: "auth: the receiver refuses our credentials", Retry: time.Now().Add(time.Minute),
			LastSuccess: time.Now().Add(-time.Minute), LastFailure: time.Now(), LastError: "auth: HTTP 401 from hooks.example",
		}}
		figures.Failures[outcome.Auth] = 3
		chat := &receiver{}
		chat.set(fails(&outcome.Error{Class: outcome.Auth, Status: 401, Reason: "HTTP 401 from hooks.example"}))
		h, _ := newHealth(t, func(c *Config) {
			c.Instances = []Instance{
				{Name: "chat", Kind: "slack", Enabled: true, Canary: true, To: chat, Ways: []Way{{Topic: Alerts, Figures: func() Figures { return figures }}}},
				{Name: "siem", Kind: "sweetsecurity", Enabled: true, To: &receiver{}, Ways: []Way{{Topic: Events, Figures: func() Figures { return Figures{} }}}},
				{Name: "spare", Kind: "sweetsecurity"},
			}
			c.Waiting = func(context.Context) (map[string]Waiting, error) {
				return map[string]Waiting{"chat": {Messages: 17, Oldest: 90 * time.Second, Known: true}}, nil
			}
		})
		a := agentsUnderTest{h, new(topics), t}
		h.cfg.Publish = a.publish
		a.beat("c/a")
		a.pass(5, "c/b")
		arrive := h.Canaries("chat", Alerts, true, func(context.Context) error { return nil }, nil)
		mark := map[string]string{canaryAttribute: time.Now().Add(-2 * time.Second).Format(time.RFC3339Nano)}
		if err := arrive(t.Context(), envelope.Push{Message: envelope.Message{Attributes: mark}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8 * time.Second)
		got := serve(h, "GET", "/health?check=now", "")
		const golden = "testdata/health.json"
		if *update {
			if err := os.WriteFile(golden, got.Body.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.Body.String()); got.Code != 200 || diff != "" {
			t.Errorf("got %d (-want +got):\n%s", got.Code, diff)
		}
		if w := serve(h, "GET", "/health?check=later", ""); w.Code != 400 {
			t.Errorf("got %d for a check that there is not, want 400", w.Code)
		}
	})
}

func TestTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered, leave := make(chan struct{}), make(chan struct{})
		way := func(topic string, f func() (integration.Receipt, error)) Way {
			return Way{Topic: topic, Figures: func() Figures { return Figures{} }, Test: func(context.Context) (integration.Receipt, error) { return f() }}
		}
		ok := way(Events, func() (integration.Receipt, error) {
			return integration.Receipt{Latency: 12 * time.Millisecond, Status: 202, Answer: "thanks"}, nil
		})
		h, _ := newHealth(t, func(c *Config) {
			c.Instances = []Instance{
				{Name: "ok", Enabled: true, Ways: []Way{ok}},
				{Name: "half", Enabled: true, Ways: []Way{ok, way(Alerts, func() (integration.Receipt, error) {
					return integration.Receipt{Latency: time.Millisecond, Status: 403, Answer: "HTTP 403: no"}, &outcome.Error{Class: outcome.Auth, Status: 403, Reason: "HTTP 403: no"}
				})}},
				{Name: "panics", Enabled: true, Ways: []Way{way(Alerts, func() (integration.Receipt, error) { panic("!") })}},
				{Name: "slow", Enabled: true, Ways: []Way{way(Alerts, func() (integration.Receipt, error) {
					close(entered)
					<-leave
					return integration.Receipt{}, nil
				})}},
				{Name: "off"},
			}
		})
		for _, tt := range []struct {
			name string
			code int
			want TestReport
		}{
			{"ok", 200, TestReport{"ok", true, []TestResult{{Topic: Events, OK: true, LatencyMS: 12, HTTP: 202, Answer: "thanks"}}}},
			{"half", 502, TestReport{"half", false, []TestResult{
				{Topic: Events, OK: true, LatencyMS: 12, HTTP: 202, Answer: "thanks"},
				{Topic: Alerts, LatencyMS: 1, HTTP: 403, Answer: "HTTP 403: no", Error: "auth: HTTP 403: no"},
			}}},
			{"panics", 502, TestReport{"panics", false, []TestResult{{Topic: Alerts, Error: "permanent: the integration panicked"}}}},
			{"off", 409, TestReport{}},
			{"none", 404, TestReport{}},
		} {
			w := serve(h, "POST", "/health/"+tt.name+"/test", "")
			var got TestReport
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); w.Code != tt.code || diff != "" {
				t.Errorf("%s: got %d, want %d (-want +got):\n%s", tt.name, w.Code, tt.code, diff)
			}
		}
		done := make(chan int)
		go func() { done <- serve(h, "POST", "/health/slow/test", "").Code }()
		<-entered
		if w := serve(h, "POST", "/health/slow/test", ""); w.Code != 429 {
			t.Errorf("got %d for a second test at the same time, want 429", w.Code)
		}
		close(leave)
		if code := <-done; code != 200 {
			t.Errorf("got %d for the first, want 200", code)
		}
	})
}

// TestCanaries: those who did not opt in never get one, and nobody gets one that is late.
func TestCanaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, p := newHealth(t, func(c *Config) {
			c.Instances = []Instance{{Name: "i", Enabled: true, Canary: true, To: &receiver{}, Ways: []Way{
				{Topic: Events, Figures: func() Figures { return Figures{} }}, {Topic: Alerts, Figures: func() Figures { return Figures{} }},
			}}}
		})
		for range 3 {
			if err := h.Tick(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(tickEvery)
		}
		if len(p.messages[Events]) != 1 || len(p.messages[Alerts]) != 1 {
			t.Fatalf("got %d and %d canaries in 15 s, want one for each topic", len(p.messages[Events]), len(p.messages[Alerts]))
		}
		canary, ordinary := envelope.Push{Message: p.messages[Alerts][0]}, envelope.Push{Message: envelope.Message{Attributes: map[string]string{}}}
		refusal := &outcome.Error{Class: outcome.Retry, Reason: "down"}
		for _, tt := range []struct {
			name          string
			optedIn       bool
			after         time.Duration
			push          envelope.Push
			answer        error
			sent, handled int
			want          error
		}{
			{"ordinary", true, 0, ordinary, nil, 0, 1, nil},
			{"not opted in", false, 0, canary, nil, 0, 0, nil},
			{"refused", true, 0, canary, refusal, 1, 0, refusal},
			{"opted in", true, 0, canary, nil, 1, 0, nil},
			{"late", true, 10 * time.Minute, canary, nil, 0, 0, nil},
		} {
			time.Sleep(tt.after)
			sent, handled := 0, 0
			handle := h.Canaries("i", Alerts, tt.optedIn, func(context.Context) error { sent++; return tt.answer },
				func(context.Context, envelope.Push) error { handled++; return nil })
			if err := handle(t.Context(), tt.push); !errors.Is(err, tt.want) || sent != tt.sent || handled != tt.handled {
				t.Errorf("%s: got %v, sent %d, handled %d", tt.name, err, sent, handled)
			}
		}
		got := report(t, h).Integrations[0]
		if c := got.Canary[Alerts]; c.WaySeconds != 15 || c.AgeSeconds != 615 {
			t.Errorf("got %+v, want the one that came out", c)
		}
		time.Sleep(6 * time.Minute)
		if err := h.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got = report(t, h).Integrations[0]; got.Status != Failing || len(got.Reasons) != 2 {
			t.Errorf("got %s %q, want it to miss the canaries of both topics", got.Status, got.Reasons)
		}
	})
}
