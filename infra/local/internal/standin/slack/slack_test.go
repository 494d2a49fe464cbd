package slack

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

const hook = "/services/T0/B0/secret"

func start(t *testing.T) (*Server, func(path, token, body string) (int, string, http.Header)) {
	t.Helper()
	s := New(Options{Token: "xoxb-1", Channel: "C0", Webhook: hook})
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, func(path, token, body string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := h.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(answer), resp.Header
	}
}

func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", maxSection+1)
	for name, tt := range map[string]struct {
		path, token, body string
		faults            standin.Faults
		status            int
		answer            string
	}{
		"webhook":                  {path: hook, body: `{"text":"hello"}`, status: 200, answer: "ok"},
		"webhook, its check":       {path: hook, body: `{}`, status: 400, answer: "no_text"},
		"webhook, no JSON":         {path: hook, body: `payload`, status: 400, answer: "invalid_payload"},
		"webhook, another path":    {path: hook + "x", body: `{"text":"hello"}`, status: 403, answer: "invalid_token"},
		"webhook, a long section":  {path: hook, body: `{"blocks":[{"type":"section","text":{"type":"mrkdwn","text":"` + long + `"}}]}`, status: 400, answer: "invalid_blocks"},
		"webhook, fault":           {path: hook, body: `{"text":"a"}`, faults: standin.Faults{Status: 503}, status: 503, answer: "rollup_error"},
		"webhook, refuse":          {path: hook, body: `{"text":"bad"}`, faults: standin.Faults{Refuse: "bad"}, status: 400, answer: "invalid_payload"},
		"webhook, garbage":         {path: hook, body: `{"text":"a"}`, faults: standin.Faults{Garbage: true}, status: 200, answer: "\x00\xff<html>{\"rejected\":[{"},
		"test":                     {path: "/api/auth.test", token: "xoxb-1", body: `{}`, status: 200, answer: `{"ok":true,"team":"stand-in","user":"apss"}`},
		"no token":                 {path: "/api/auth.test", body: `{}`, status: 200, answer: `{"ok":false,"error":"not_authed"}`},
		"another token":            {path: "/api/auth.test", token: "xoxb-2", body: `{}`, status: 200, answer: `{"ok":false,"error":"invalid_auth"}`},
		"another channel":          {path: "/api/chat.postMessage", token: "xoxb-1", body: `{"channel":"C1","text":"a"}`, status: 200, answer: `{"ok":false,"error":"channel_not_found"}`},
		"no text":                  {path: "/api/chat.postMessage", token: "xoxb-1", body: `{"channel":"C0"}`, status: 200, answer: `{"ok":false,"error":"no_text"}`},
		"no such thread":           {path: "/api/chat.postMessage", token: "xoxb-1", body: `{"channel":"C0","text":"a","thread_ts":"1"}`, status: 200, answer: `{"ok":false,"error":"thread_not_found"}`},
		"an edit of nothing":       {path: "/api/chat.update", token: "xoxb-1", body: `{"channel":"C0","text":"a","ts":"1"}`, status: 200, answer: `{"ok":false,"error":"message_not_found"}`},
		"slow down":                {path: "/api/auth.test", token: "xoxb-1", body: `{}`, faults: standin.Faults{Status: 429, RetryAfter: "30"}, status: 429, answer: `{"ok":false,"error":"ratelimited"}`},
		"a method that is not one": {path: "/api/chat.delete", token: "xoxb-1", body: `{}`, status: 404, answer: "404 page not found\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s, send := start(t)
			s.Set(tt.faults)
			status, answer, header := send(tt.path, tt.token, tt.body)
			if status != tt.status || answer != tt.answer || header.Get("Retry-After") != tt.faults.RetryAfter {
				t.Errorf("got %d %s, Retry-After %q\nwant %d %s", status, answer, header.Get("Retry-After"), tt.status, tt.answer)
			}
		})
	}
}

// TestWhatAPersonSees: messages as they look when edits and replies have been applied.
func TestWhatAPersonSees(t *testing.T) {
	s, send := start(t)
	var changes int
	s.Board.Changed = func(standin.Message) { changes++ }
	blocks := func(header string, times int) string {
		return fmt.Sprintf(`"blocks":[{"type":"header","text":{"type":"plain_text","text":%q}},
			{"type":"section","text":{"type":"mrkdwn","text":"*Why*\n<https://a.example/T1|T1> `+"`Impact`"+`"}},
			{"type":"section","fields":[{"type":"mrkdwn","text":"*Pod*\n`+"`a&lt;b`"+`"}]},
			{"type":"context","elements":[{"type":"plain_text","text":"seen %d times &amp; more"}]}]`, header, times)
	}
	var posted reply
	_, answer, _ := send("/api/chat.postMessage", "xoxb-1", `{"channel":"C0","text":"for notifications",`+blocks("A shell", 1)+`}`)
	if err := json.Unmarshal([]byte(answer), &posted); err != nil || !posted.OK || posted.Channel != "C0" {
		t.Fatalf("got %s, %v", answer, err)
	}
	send("/api/chat.update", "xoxb-1", `{"channel":"C0","ts":"`+posted.TS+`",`+blocks("A shell!", 3)+`}`)
	send("/api/chat.postMessage", "xoxb-1", `{"channel":"C0","thread_ts":"`+posted.TS+`","text":"again"}`)
	send(hook, "", `{"text":"*another* one"}`)
	want := []standin.Message{
		{
			ID: posted.TS, Title: "A shell!", Edits: 1, Thread: []string{"again"},
			Text: "A shell!\nWhy\nT1 (https://a.example/T1) Impact\nPod: a<b\nseen 3 times & more",
		},
		{Title: "another one", Text: "another one"},
	}
	got := s.Board.Messages()
	if len(got) == 2 {
		want[1].ID = got[1].ID // the webhook does not say it
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(standin.Message{}, "At", "Changed"), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if changes != 4 || s.Board.Posted() != 2 || s.Counts().Accepted != 4 {
		t.Errorf("got %d changes, %d messages, %+v; want 4, 2, 4 accepted", changes, s.Board.Posted(), s.Counts())
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"text":"*a* <b|c> ` + "```\\nx\\n```" + ` &amp;"}`))
	f.Add([]byte(`{"blocks":[{"type":"header","text":{"type":"plain_text","text":"a"}},{"type":"section","fields":[{"type":"mrkdwn","text":"*a*\nb"}]}]}`))
	f.Add([]byte(`{"blocks":[{"type":"header"},{"type":"section"},{"type":"context"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var m message
		if json.Unmarshal(body, &m) == nil && m.fault() == "" {
			if m.title(); strings.Count(m.shown(), "\n") > len(body) {
				t.Errorf("got more lines than bytes of %q", body)
			}
		}
	})
}
