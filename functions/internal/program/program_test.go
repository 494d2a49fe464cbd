package program

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// environ is what is required, and more.
func environ(more ...string) []string {
	return append([]string{
		"PUBSUB_PROJECT_ID=p", "SWEET_SECURITY_API_KEY=the-key", "SWEET_SECURITY_ENDPOINT=https://sweet.example",
	}, more...)
}

func TestSettings(t *testing.T) {
	tests := []struct {
		name string
		env  []string
		want []string // what the error names; none when it is nil
	}{
		{"defaults", environ(), nil},
		{"all set", environ("PORT=9000", "FORWARD_LINGER=0s", "FORWARD_MAX_EVENTS=1", "FORWARD_TIMEOUT=9m", "FORWARD_ACK_DEADLINE=600s",
			"DEAD_LETTERS_TOPIC=projects/p/topics/dead", "LOG_LEVEL=debug", "K_SERVICE=f", "FUNCTION_TARGET=Forward"), nil},
		{"nothing", nil, []string{"PUBSUB_PROJECT_ID"}},
		{"no integration", []string{"PUBSUB_PROJECT_ID=p"}, nil},
		{"half a shortcut", []string{"PUBSUB_PROJECT_ID=p", "SWEET_SECURITY_API_KEY=the-key"}, []string{"SWEET_SECURITY_ENDPOINT: is required"}},
		{"the other half", []string{"PUBSUB_PROJECT_ID=p", "SWEET_SECURITY_ENDPOINT=https://sweet.example"}, []string{"SWEET_SECURITY_API_KEY: is required"}},
		{"a document", environ("APSS_INTEGRATIONS=- {name: second, kind: sweetsecurity, enabled: true, endpoint: 'https://a.example', api_key: 'env://KEY'}"), nil},
		{"a document that is wrong, and settings", environ("FORWARD_LINGER=2s", "APSS_INTEGRATIONS=- {name: sweetsecurity, kind: sweetsecurity,\n  api_key: hunter2, endpiont: x}"),
			[]string{"FORWARD_LINGER", "APSS_INTEGRATIONS: line 2: sweetsecurity: api_key: a secret is written here",
				"APSS_INTEGRATIONS: line 2: sweetsecurity: endpiont: an integration of kind sweetsecurity has no such key; did you mean endpoint?",
				"name: sweetsecurity is taken by the one in line 1"}},
		{"a document that is not there", environ("APSS_INTEGRATIONS=missing.yaml"), []string{"APSS_INTEGRATIONS: reading the document: open missing.yaml"}},
		{"a secret in a local document", []string{"PUBSUB_PROJECT_ID=p", "APSS_LOCAL=true",
			"APSS_INTEGRATIONS=- {kind: sweetsecurity, enabled: true, endpoint: 'https://a.example', api_key: hunter2}"}, nil},
		{"local on Cloud Run", environ("APSS_LOCAL=true", "K_SERVICE=f"), []string{"APSS_LOCAL: is for a developer's machine"}},
		{"a stand-in for Cloud Monitoring in the cloud", environ("HEALTH_MONITORING=127.0.0.1:9"), []string{"HEALTH_MONITORING: is the address of a stand-in"}},
		{"health", environ("HEALTH_MONITORING=clod", "HEALTH_AGENT_SILENCE=0s", "HEALTH_CANARY_EVERY=1s", "HEALTH_CHECK_EVERY=1s"),
			[]string{"HEALTH_MONITORING: \"clod\" is none of cloud, off", "HEALTH_AGENT_SILENCE", "HEALTH_CANARY_EVERY", "HEALTH_CHECK_EVERY"}},
		{"health, as in a local run", environ("APSS_LOCAL=true", "HEALTH_MONITORING=127.0.0.1:9", "HEALTH_AGENT_SILENCE=1s"), nil},
		{"misspelt", environ("APSS_INTEGRATION=x", "NOTIFY_CALL=3"), []string{"did you mean APSS_INTEGRATIONS?", "did you mean NOTIFY_CALLS?"}},
		{"out of range", environ("PORT=0", "FORWARD_LINGER=2s", "FORWARD_MAX_EVENTS=0", "FORWARD_MAX_BYTES=1", "FORWARD_FLUSHES=0",
			"FORWARD_MAX_IN_HAND=1", "NOTIFY_CALLS=0", "FORWARD_CALL_TIMEOUT=0s", "DEAD_LETTERS_TIMEOUT=1h", "FORWARD_ACK_DEADLINE=601s", "DEAD_LETTERS_TOPIC=a b"),
			[]string{"PORT", "FORWARD_LINGER", "FORWARD_MAX_EVENTS", "FORWARD_MAX_BYTES", "FORWARD_FLUSHES", "FORWARD_MAX_IN_HAND",
				"FORWARD_CALL_TIMEOUT", "DEAD_LETTERS_TIMEOUT", "FORWARD_ACK_DEADLINE", "DEAD_LETTERS_TOPIC"}},
		{"no numbers", environ("PORT=x", "FORWARD_LINGER=fast"), []string{"PORT", "FORWARD_LINGER"}},
		{"a chain that is too long inside", environ("FORWARD_CALL_TIMEOUT=20s"), []string{"FORWARD_TIMEOUT: is 45s, want more than 50.05s"}},
		{"a chain that is too long outside", environ("FORWARD_ACK_DEADLINE=45s"), []string{"want less than FORWARD_ACK_DEADLINE"}},
		{"unknown", environ("FORWARD_LINGERS=1s", "SWEET_SECURITY_KEY=x", "DEAD_LETTERS=x"), []string{"FORWARD_LINGERS", "SWEET_SECURITY_KEY"}},
		{"in the clear", environ("SWEET_SECURITY_ENDPOINT=http://sweet.example"), []string{"SWEET_SECURITY_ENDPOINT: the endpoint on sweet.example must be https"}},
		{"in the clear, allowed", environ("SWEET_SECURITY_ENDPOINT=http://sweet.example", "SWEET_SECURITY_ALLOW_HTTP=true"), nil},
		{"a reference of no kind", environ("SWEET_SECURITY_API_KEY=vault://key"), []string{"SWEET_SECURITY_API_KEY"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1") // the client asks for no credentials
			p, err := New(t.Context(), tt.env, "test", io.Discard)
			if (err != nil) != (tt.want != nil) {
				t.Fatalf("got %v, want faults %q", err, tt.want)
			}
			if err == nil {
				if err := p.Close(t.Context()); err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrSettings) {
				t.Errorf("got %v, want it to be ErrSettings", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the secret:\n%v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	p, err := New(t.Context(), environ("HEALTH_CANARY_EVERY=0s"), "test", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	tests := []struct {
		method, path string
		status       int
		text         string
	}{
		{"GET", "/healthz", 200, ""},
		{"GET", "/readyz", 200, ""},
		{"GET", "/metrics", 200, ""},
		{"GET", "/", 404, "/events/<integration>"},
		{"POST", "/", 404, "/events/<integration>"},
		{"POST", "/", 404, "/alerts/<integration>"},
		{"POST", "/alerts/slack", 404, `"slack" that takes alerts`},
		{"GET", "/events/slack", 404, `"slack"`},
		{"POST", "/tick", 204, ""},
		{"POST", "/events/slack", 404, `"slack"`},
		{"POST", "/events/", 404, ""},
		{"POST", "/events/sweetsecurity/x", 404, ""},
		{"GET", "/events/sweetsecurity", 405, ""},
		{"POST", "/events/sweetsecurity", 400, ""},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, http.NoBody))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.text) {
			t.Errorf("%s %s: got %d %q, want %d %q", tt.method, tt.path, w.Code, w.Body, tt.status, tt.text)
		}
	}
}
