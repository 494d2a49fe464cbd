package discord

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

func TestServer(t *testing.T) {
	const path = "/api/webhooks/1/secret"
	s := New(path)
	server := httptest.NewServer(s)
	defer server.Close()
	embed := func(fields string) string { return `{"embeds":[{"title":"t",` + fields + `}]}` }
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"check", "GET", path, "", 200, `"name":"APSS"`},
		{"another token", "GET", path + "s", "", 401, "50027"},
		{"message", "POST", path + "?wait=true", embed(`"description":"d"`), 200, `"id":"1000000000000000001"`},
		{"not waited for", "POST", path, embed(`"description":"d"`), 204, ""},
		{"edit", "PATCH", path + "/messages/1000000000000000001", embed(`"description":"a\\: \\@e"`), 200, `"id":"1000000000000000001"`},
		{"edit of none", "PATCH", path + "/messages/1", embed(`"description":"e"`), 404, "10008"},
		{"no JSON", "POST", path, "{", 400, "50035"},
		{"empty", "POST", path, "{}", 400, "empty message"},
		{"long title", "POST", path, `{"embeds":[{"title":"` + long(257) + `"}]}`, 400, "title: must be 256"},
		{"long footer", "POST", path, embed(`"footer":{"text":"` + long(2049) + `"}`), 400, "footer: must be 2048"},
		{"empty field", "POST", path, embed(`"fields":[{"name":"n","value":""}]`), 400, "required"},
		{"too much in all", "POST", path, embed(`"description":"` + long(4000) + `","footer":{"text":"` + long(2000) + `"}`), 400, "6000"},
		{"much content", "POST", path, `{"content":"` + long(2001) + `"}`, 400, "content: must be 2000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, _, body := do(t, tt.method, server.URL+tt.path, tt.body)
			if status != tt.status || !strings.Contains(body, tt.says) {
				t.Errorf("got %d %s, want %d with %q", status, body, tt.status, tt.says)
			}
		})
	}
	if m := s.Board.Messages(); len(m) != 2 || m[0].Text != "t\na: @e" || m[0].Edits != 1 {
		t.Errorf("got the board %+v, want two messages, the first one edited", m)
	}
	s.Set(standin.Faults{Status: http.StatusTooManyRequests, RetryAfter: "2"})
	status, header, body := do(t, "POST", server.URL+path, embed(`"description":"d"`))
	if status != 429 || header.Get("X-RateLimit-Reset-After") != "2.000" || !strings.Contains(body, `"retry_after":2.000`) {
		t.Errorf("got %d %v %s, want 429 with the time in header and body", status, header, body)
	}
}

func do(t *testing.T, method, url, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	said, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, r.Header, string(said)
}
