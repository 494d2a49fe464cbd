package discord

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

const hookPath = "/api/webhooks/1234567890/" + integrationtest.Secret

func newWebhook(t *testing.T, url string) *webhook {
	t.Helper()
	s := settings{WebhookURL: setting(url)}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	i, err := s.New(integration.Env{Name: "oncall", Version: "1.0", Local: true, Timeout: 30 * time.Second, MaxConns: 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return i.(*webhook)
}

func setting(s string) integration.Secret {
	return integration.Secret{Source: secret.Plain{Value: secret.New(s)}}
}

// channel is a webhook as Discord documents it, with one message that can be edited.
func channel(w http.ResponseWriter, r *http.Request) {
	say := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	body, _ := io.ReadAll(r.Body)
	switch {
	case !strings.HasPrefix(r.URL.Path, hookPath):
		say(404, map[string]any{"message": "Unknown Webhook", "code": 10015})
	case r.Method == http.MethodGet && r.URL.Path == hookPath:
		say(200, map[string]any{"id": "1234567890", "type": 1, "name": "apss", "token": integrationtest.Secret})
	case faults(body) != nil:
		say(400, map[string]any{"message": "Invalid Form Body " + faults(body).Error(), "code": 50035})
	case r.Method == http.MethodPost && r.URL.Path == hookPath && r.URL.Query().Get("wait") != "true":
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost && r.URL.Path == hookPath, r.Method == http.MethodPatch && r.URL.Path == hookPath+"/messages/987654321":
		say(200, map[string]any{"id": "987654321"})
	case r.Method == http.MethodPatch:
		say(404, map[string]any{"message": "Unknown Message", "code": 10008})
	default:
		say(405, map[string]any{"message": "405: Method Not Allowed", "code": 0})
	}
}

// harmless is what a text may hold of Markdown: escapes, code, and what this package writes itself.
var harmless = regexp.MustCompile("(?s)```.*?```|`[^`]*`|\\\\.|… \\(\\+\\d+ characters\\)|\\[T[\\d.]+\\]\\(https://attack\\.mitre\\.org/[A-Za-z0-9/]+\\)|<https?://[^<>| ]+>|" +
	regexp.QuoteMeta("**"+message.TestNote+"**"))

// faults holds a message against Discord's limits and looks for Markdown of somebody else.
func faults(body []byte) error {
	var m struct {
		payload
		AllowedMentions map[string][]string `json:"allowed_mentions"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	var errs []error
	total := 0
	check := func(where, s string, limit int, markdown bool) {
		n := len(utf16.Encode([]rune(s)))
		total += n
		if n == 0 || n > limit {
			errs = append(errs, fmt.Errorf("%s has %d characters, want 1 to %d", where, n, limit))
		}
		if rest := harmless.ReplaceAllString(s, ""); markdown && strings.ContainsAny(rest, "*_~|<>[]`@\\") {
			errs = append(errs, fmt.Errorf("%s has Markdown in it: %.200q", where, rest))
		}
	}
	if len(m.Embeds) == 0 || len(m.Embeds) > 10 || m.Embeds[0].Title == "" {
		return fmt.Errorf("got %d embeds", len(m.Embeds))
	}
	if parse, ok := m.AllowedMentions["parse"]; !ok || parse == nil || len(parse) > 0 {
		errs = append(errs, fmt.Errorf("mentions are allowed: %v", m.AllowedMentions))
	}
	for _, e := range m.Embeds {
		if e.Title != "" {
			check("title", e.Title, 256, true)
		}
		if e.Description != "" {
			check("description", e.Description, 4096, true)
		}
		if len(e.Fields) > 25 {
			errs = append(errs, fmt.Errorf("got %d fields", len(e.Fields)))
		}
		for _, f := range e.Fields {
			check("field's name", f.Name, 256, true)
			check(f.Name, f.Value, 1024, true)
		}
		if e.Footer != nil {
			check("footer", e.Footer.Text, 2048, false)
		}
		if _, err := time.Parse(time.RFC3339, e.Timestamp); e.Timestamp != "" && err != nil {
			errs = append(errs, err)
		}
	}
	if total > 6000 {
		errs = append(errs, fmt.Errorf("%d characters in all", total))
	}
	return errors.Join(errs...)
}

func TestConformance(t *testing.T) {
	integrationtest.Run(t, integrationtest.Subject{
		New: func(t *testing.T, url string, _ *slog.Logger) integration.Integration {
			t.Helper()
			return newWebhook(t, url+hookPath)
		},
		Accept:  channel,
		Vague:   outcome.Retry,
		Classes: integrationtest.OneMessage(),
		Inspect: func(_ *http.Request, body []byte) error { return faults(body) },
	})
}

type call struct {
	what string
	body []byte
}

func record(t *testing.T, accept http.HandlerFunc) (url string, calls func() []call) {
	t.Helper()
	var mu sync.Mutex
	var list []call
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		list = append(list, call{strings.Replace(r.Method+" "+r.URL.String(), hookPath, "", 1), body})
		mu.Unlock()
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		accept(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + hookPath, func() []call { mu.Lock(); defer mu.Unlock(); return list }
}

func TestMessages(t *testing.T) {
	file := eventtest.Alert()
	file.Event, file.RuleName = eventtest.FileModify(), "Account file changed"
	repeated := integrationtest.Incident(integration.Repeated, "987654321", eventtest.Alert())
	repeated.Count, repeated.LastSeen = 42, eventtest.Time().Add(5*time.Minute)
	resolved := repeated
	resolved.Change = integration.Resolved
	test := integrationtest.Incident(integration.Opened, "", file)
	test.Test = true
	for name, i := range map[string]integration.Incident{
		"opened": integrationtest.Incident(integration.Opened, "", eventtest.Alert()), "repeated": repeated, "resolved": resolved, "file_test": test,
	} {
		url, calls := record(t, channel)
		if ref, err := newWebhook(t, url).SendIncident(t.Context(), i); err != nil || ref != "987654321" {
			t.Fatalf("%s: got %q, %v", name, ref, err)
		}
		golden(t, name, calls())
	}
	url, calls := record(t, channel)
	if err := newWebhook(t, url+"?thread_id=77").SendDigest(t.Context(), integrationtest.Digest(eventtest.Alert(), 3)); err != nil {
		t.Fatal(err)
	}
	golden(t, "digest", calls())
}

// golden holds calls against testdata/name.json, and what a person sees of them against name.txt.
func golden(t *testing.T, name string, calls []call) {
	t.Helper()
	var all, seen strings.Builder
	for _, c := range calls {
		var v any
		var m payload
		if err := errors.Join(json.Unmarshal(c.body, &v), json.Unmarshal(c.body, &m)); err != nil {
			t.Fatal(err)
		}
		all.WriteString(c.what + "\n")
		e := json.NewEncoder(&all)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		seen.WriteString(c.what + "\n" + show(m))
	}
	for ext, got := range map[string]string{".json": all.String(), ".txt": seen.String()} {
		path := filepath.Join("testdata", name+ext)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// show is a message as a person sees it.
func show(m payload) string {
	var b strings.Builder
	for _, e := range m.Embeds {
		if e.Title != "" {
			fmt.Fprintf(&b, "## %s\n", e.Title)
		}
		fmt.Fprintln(&b, e.Description)
		for _, f := range e.Fields {
			fmt.Fprintf(&b, "# %s\n%s\n", f.Name, f.Value)
		}
		if e.Footer != nil {
			fmt.Fprintln(&b, e.Footer.Text)
		}
	}
	return regexp.MustCompile(`\\([^\w\s])`).ReplaceAllString(b.String(), "$1")
}

// TestDigestLists: as many incidents as a digest may have are listed, each.
func TestDigestLists(t *testing.T) {
	a := eventtest.Alert()
	a.RuleName = strings.Repeat("a_name:", 40)
	url, calls := record(t, channel)
	if err := newWebhook(t, url).SendDigest(t.Context(), integrationtest.Digest(a, integration.MaxDigest)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(calls()[0].body), "3× CRITICAL"); n != integration.MaxDigest {
		t.Errorf("got %d incidents listed, want %d", n, integration.MaxDigest)
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  int
		headers map[string]string
		body    string
		want    outcome.Class
		after   time.Duration
	}{
		{"message", 200, nil, `{"id":"1"}`, outcome.OK, 0},
		{"no message", 204, nil, "", outcome.Retry, 0},
		{"bad form", 400, nil, `{"code":50035,"message":"Invalid Form Body"}`, outcome.Permanent, 0},
		{"deleted", 404, nil, `{"code":10015,"message":"Unknown Webhook"}`, outcome.Auth, 0},
		{"token", 401, nil, `{"code":50027,"message":"Invalid Webhook Token"}`, outcome.Auth, 0},
		{"of this webhook", 429, map[string]string{"X-RateLimit-Reset-After": "1.337"}, `{"retry_after":1.337}`, outcome.Retry, 1337 * time.Millisecond},
		{"both", 429, map[string]string{"X-RateLimit-Reset-After": "0.5", "Retry-After": "65"}, "", outcome.Retry, 65 * time.Second},
		{"global", 429, map[string]string{"Retry-After": "3", "X-RateLimit-Global": "true"}, `{"retry_after":3000,"global":true}`, outcome.Retry, 3 * time.Second},
		{"endless", 429, map[string]string{"X-RateLimit-Reset-After": "1e300"}, "", outcome.Retry, time.Hour},
		{"no number", 429, map[string]string{"X-RateLimit-Reset-After": "NaN"}, "", outcome.Retry, 0},
		{"negative", 429, map[string]string{"X-RateLimit-Reset-After": "-1"}, "", outcome.Retry, 0},
		{"down", 502, map[string]string{"X-RateLimit-Reset-After": "9"}, "", outcome.Retry, 0},
	} {
		url, _ := record(t, func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range tt.headers {
				w.Header().Set(k, v)
			}
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		})
		_, err := newWebhook(t, url).SendIncident(t.Context(), integrationtest.Incident(integration.Opened, "", eventtest.Alert()))
		got, after := outcome.OK, time.Duration(0)
		if err != nil {
			got, after = outcome.From(err).Class, outcome.From(err).After
		}
		if got != tt.want || after != tt.after {
			t.Errorf("%s: got %v after %v, want %v after %v", tt.name, err, after, tt.want, tt.after)
		}
	}
}

// TestEdit: what is called for the message of an incident that goes on.
func TestEdit(t *testing.T) {
	const edit, post = "PATCH /messages/5", "POST ?wait=true"
	for _, tt := range []struct {
		name   string
		change integration.Change
		ref    string
		answer string // to the edit
		status int
		calls  []string
		want   string
		fails  bool
	}{
		{"edited", integration.Repeated, "5", `{"id":"5"}`, 200, []string{edit}, "5", false},
		{"deleted", integration.Repeated, "5", `{"code":10008}`, 404, []string{edit, post}, "6", false},
		{"deleted and over", integration.Resolved, "5", `{"code":10008}`, 404, []string{edit}, "", false},
		{"of the webhook before", integration.Repeated, "5", `{"code":50005}`, 403, []string{edit, post}, "6", false},
		{"webhook gone", integration.Resolved, "5", `{"code":10015}`, 404, []string{edit}, "5", true},
		{"not known", integration.Resolved, "", "", 200, []string{post}, "6", false},
		{"strange reference", integration.Repeated, "../5", "", 200, []string{post}, "6", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, calls := record(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch {
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.answer)
					return
				}
				_, _ = io.WriteString(w, `{"id":"6"}`)
			})
			ref, err := newWebhook(t, url).SendIncident(t.Context(), integrationtest.Incident(tt.change, tt.ref, eventtest.Alert()))
			if ref != tt.want || (err != nil) != tt.fails {
				t.Errorf("got %q, %v, want %q", ref, err, tt.want)
			}
			var got []string
			for _, c := range calls() {
				got = append(got, c.what)
			}
			if diff := cmp.Diff(tt.calls, got); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	url, calls := record(t, channel)
	status, err := newWebhook(t, url).Check(t.Context())
	if err != nil || status.Detail != "the webhook is live: apss" || status.Latency <= 0 {
		t.Errorf("got %+v, %v", status, err)
	}
	if c := calls(); len(c) != 1 || c[0].what != "GET " || len(c[0].body) != 0 {
		t.Errorf("got %s, want a GET without a body", c)
	}
}

func TestAddress(t *testing.T) {
	for url, want := range map[string]bool{
		"https://discord.com/api/webhooks/1/a-B_c": true, "https://discord.com/api/v10/webhooks/1/x?thread_id=5": true,
		"https://ptb.discord.com/api/webhooks/1/x": true, "https://discordapp.com/api/webhooks/1/x": true,
		"http://discord.com/api/webhooks/1/x": false, "https://discord.com.evil.example/api/webhooks/1/x": false,
		"https://discord.com@evil.example/api/webhooks/1/x": false, "https://discord.com/api/webhooks/1/x/slack": false,
		"https://discord.com/api/users/@me": false, "s3cr3t\x00": false, "": false,
	} {
		_, err := (&webhook{}).address(secret.New(url))
		if (err == nil) != want {
			t.Errorf("%q: got %v, want %v", url, err, want)
		}
		if err != nil && (outcome.From(err).Class != outcome.Auth || strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "s3cr3t")) {
			t.Errorf("%q: got %v, want an auth that does not quote it", url, err)
		}
	}
}

func TestSettings(t *testing.T) {
	if err := Kind().Settings().Validate(); err == nil || !strings.HasPrefix(err.Error(), "webhook_url: ") {
		t.Errorf("got %v, want a fault of webhook_url", err)
	}
	if err := (&settings{WebhookURL: setting("x")}).Validate(); err != nil {
		t.Error(err)
	}
}

// FuzzUnderstand: whatever the body says, only a 2xx with Discord's own word accepts, and an error has a class.
func FuzzUnderstand(f *testing.F) {
	f.Add(200, []byte(`{"id":"1"}`), "")
	f.Add(429, []byte(`{"retry_after":1}`), "1.337")
	f.Add(429, []byte(``), "1e300")
	f.Add(404, []byte(`{"code":10008}`), "-0")
	f.Fuzz(func(t *testing.T, status int, body []byte, reset string) {
		answer := &httpx.Response{Status: status, Body: body, Header: http.Header{}}
		answer.Header.Set("X-RateLimit-Reset-After", reset)
		_, err := understand(answer)
		if err == nil && (status < 200 || status > 299 || !json.Valid(body)) {
			t.Errorf("%d %q is taken for a success", status, body)
		}
		if err != nil {
			if e := outcome.From(err); e.Class == outcome.OK || e.Class == outcome.Split || e.After < 0 || e.After > time.Hour {
				t.Errorf("got %+v", e)
			}
		}
	})
}
