package slack

import (
	"context"
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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

func setting(s string) integration.Secret {
	return integration.Secret{Source: secret.Plain{Value: secret.New(s)}}
}

func build(t *testing.T, s settings) integration.Integration {
	t.Helper()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	i, err := s.New(integration.Env{Name: "oncall", Version: "1.0", Local: true, Timeout: 30 * time.Second, MaxConns: 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newWebhook(t *testing.T, url string) integration.IncidentNotifier {
	t.Helper()
	return build(t, settings{WebhookURL: setting(url + "/services/T000/B000/" + integrationtest.Secret)}).(integration.IncidentNotifier)
}

func newBot(t *testing.T, url string) integration.IncidentNotifier {
	t.Helper()
	return build(t, settings{BotToken: setting(integrationtest.Secret), Channel: "C0123456789", APIURL: url + "/api"}).(integration.IncidentNotifier)
}

// hook is an incoming webhook as Slack documents it.
func hook(w http.ResponseWriter, r *http.Request) {
	var m payload
	switch err := json.NewDecoder(r.Body).Decode(&m); {
	case !strings.HasSuffix(r.URL.Path, integrationtest.Secret):
		http.Error(w, "no_service", http.StatusNotFound)
	case err != nil:
		http.Error(w, "invalid_payload", http.StatusBadRequest)
	case m.Text == "" && len(m.Blocks) == 0:
		http.Error(w, "no_text", http.StatusBadRequest)
	default:
		_, _ = io.WriteString(w, "ok")
	}
}

// api is Slack's API as it documents the three methods.
func api(w http.ResponseWriter, r *http.Request) {
	var m payload
	answer := map[string]any{"ok": true, "channel": "C0123456789", "ts": "1763805600.000100"}
	fail := func(word string) { answer = map[string]any{"ok": false, "error": word} }
	switch err := json.NewDecoder(r.Body).Decode(&m); {
	case r.Header.Get("Authorization") != "Bearer "+integrationtest.Secret:
		fail("invalid_auth")
	case err != nil:
		fail("invalid_json")
	case r.URL.Path == "/api/auth.test":
		answer = map[string]any{"ok": true, "team": "Acme", "user": "apss"}
	case m.Channel != "C0123456789":
		fail("channel_not_found")
	case m.Text == "" && len(m.Blocks) == 0:
		fail("no_text")
	case r.URL.Path == "/api/chat.update" && m.TS != "1763805600.000100":
		fail("message_not_found")
	case r.URL.Path != "/api/chat.update" && r.URL.Path != "/api/chat.postMessage":
		fail("unknown_method")
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(answer)
}

func TestConformance(t *testing.T) {
	for name, s := range map[string]integrationtest.Subject{
		"webhook": {
			New: func(t *testing.T, url string, _ *slog.Logger) integration.Integration {
				t.Helper()
				return newWebhook(t, url).(integration.Integration)
			},
			Accept: hook,
		},
		"bot": {
			New: func(t *testing.T, url string, _ *slog.Logger) integration.Integration {
				t.Helper()
				return newBot(t, url).(integration.Integration)
			},
			Accept: api,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Vague, s.Classes, s.Inspect = outcome.Retry, integrationtest.OneMessage(), inspect
			integrationtest.Run(t, s)
		})
	}
}

func units(s string) int { return len(utf16.Encode([]rune(s))) }

// ours are the only control sequences that a message may have: links that this package makes.
var ours = regexp.MustCompile(`<https?://[^<>| ]+(\|T[\d.]+)?>`)

// inspect holds a message against Slack's limits and looks for control sequences of somebody else.
func inspect(r *http.Request, body []byte) error {
	if strings.HasSuffix(r.URL.Path, "auth.test") || string(body) == "{}" {
		return nil
	}
	var m payload
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	total := 0
	check := func(where string, t text, limit int) {
		n := units(t.Text)
		total += n
		if n == 0 || n > limit {
			fault("%s has %d characters, want 1 to %d", where, n, limit)
		}
		rest := t.Text
		switch t.Type {
		case "mrkdwn":
			rest = ours.ReplaceAllString(rest, "")
			if !t.Verbatim {
				fault("%s lets Slack look for links", where)
			}
			if strings.Count(rest, "`")%2 != 0 {
				fault("%s has an odd number of backticks: %q", where, rest)
			}
		case "plain_text":
		default:
			fault("%s is of type %q", where, t.Type)
		}
		if strings.ContainsAny(rest, "<>") {
			fault("%s has a control sequence: %.200q", where, rest)
		}
	}
	if len(m.Blocks) == 0 || len(m.Blocks) > 50 {
		fault("got %d blocks", len(m.Blocks))
	}
	for n, b := range m.Blocks {
		where := fmt.Sprintf("block %d (%s)", n, b.Type)
		limit := maxSection
		if b.Type == "header" {
			limit = maxHeader
		}
		if b.Text != nil {
			check(where, *b.Text, limit)
		}
		if len(b.Fields)+len(b.Elements) > 10 {
			fault("%s has %d fields or elements", where, len(b.Fields)+len(b.Elements))
		}
		for _, f := range append(b.Fields, b.Elements...) {
			check(where, f, 2000)
		}
	}
	if total > 9600 {
		fault("the blocks have %d characters", total)
	}
	check("text", text{Type: "plain_text", Text: m.Text}, 4000)
	if m.Parse != "none" || m.LinkNames || m.UnfurlLinks || m.UnfurlMedia {
		fault("Slack is let look things up: %+v", m)
	}
	return errors.Join(errs...)
}

// record serves accept and keeps the calls.
func record(t *testing.T, accept http.HandlerFunc) (url string, calls func() []call) {
	t.Helper()
	var mu sync.Mutex
	var list []call
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		list = append(list, call{strings.TrimPrefix(r.URL.Path, "/api/"), body})
		mu.Unlock()
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		accept(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []call { mu.Lock(); defer mu.Unlock(); return list }
}

type call struct {
	path string
	body []byte
}

func cases() map[string]integration.Incident {
	file := eventtest.Alert()
	file.Event, file.RuleName = eventtest.FileModify(), "Account file changed"
	opened := integrationtest.Incident(integration.Opened, "", eventtest.Alert())
	repeated := integrationtest.Incident(integration.Repeated, "C0123456789:1763805600.000100", eventtest.Alert())
	repeated.Count, repeated.LastSeen = 42, eventtest.Time().Add(5*time.Minute)
	resolved := repeated
	resolved.Change = integration.Resolved
	test := integrationtest.Incident(integration.Opened, "", file)
	test.Test = true
	return map[string]integration.Incident{"opened": opened, "repeated": repeated, "resolved": resolved, "file_test": test}
}

func TestMessages(t *testing.T) {
	for mode, build := range map[string]func(*testing.T, string) integration.IncidentNotifier{"webhook": newWebhook, "bot": newBot} {
		accept := map[string]http.HandlerFunc{"webhook": hook, "bot": api}[mode]
		for name, i := range cases() {
			url, calls := record(t, accept)
			if _, err := build(t, url).SendIncident(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			golden(t, mode+"_"+name, calls())
		}
		url, calls := record(t, accept)
		if err := build(t, url).SendDigest(t.Context(), integrationtest.Digest(eventtest.Alert(), 3)); err != nil {
			t.Fatal(err)
		}
		golden(t, mode+"_digest", calls())
	}
}

// golden holds calls against testdata/name.json, and what a person sees of them against name.txt.
func golden(t *testing.T, name string, calls []call) {
	t.Helper()
	var all, seen strings.Builder
	for _, c := range calls {
		var v map[string]any
		var m payload
		if err := errors.Join(json.Unmarshal(c.body, &v), json.Unmarshal(c.body, &m)); err != nil {
			t.Fatal(err)
		}
		e := json.NewEncoder(&all)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if strings.HasPrefix(c.path, "chat.") {
			all.WriteString(c.path + "\n")
			seen.WriteString(c.path + "\n")
		}
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		seen.WriteString(show(m))
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
	for _, k := range m.Blocks {
		switch {
		case k.Type == "header":
			fmt.Fprintf(&b, "## %s\n", k.Text.Text)
		case k.Text != nil:
			fmt.Fprintln(&b, k.Text.Text)
		}
		for _, f := range append(k.Fields, k.Elements...) {
			fmt.Fprintln(&b, "  "+strings.ReplaceAll(f.Text, "\n", " "))
		}
	}
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(b.String())
}

// TestDigestLists: as many incidents as a digest may have are listed, each.
func TestDigestLists(t *testing.T) {
	a := eventtest.Alert()
	for _, name := range []string{"a_name:", "<&>"} {
		a.RuleName = strings.Repeat(name, 40)
		url, calls := record(t, hook)
		if err := newWebhook(t, url).SendDigest(t.Context(), integrationtest.Digest(a, integration.MaxDigest)); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(calls()[0].body), "3× CRITICAL"); n != integration.MaxDigest {
			t.Errorf("%s: got %d incidents listed, want %d", name, n, integration.MaxDigest)
		}
	}
}

func TestWebhookAnswers(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   outcome.Class
	}{
		{200, "ok", outcome.OK}, {200, "ok\n", outcome.OK}, {200, "<html>log in</html>", outcome.Retry},
		{400, "invalid_payload", outcome.Permanent}, {400, "invalid_blocks", outcome.Permanent}, {400, "no_text", outcome.Permanent},
		{400, "user_not_found", outcome.Auth}, {403, "action_prohibited", outcome.Auth}, {403, "invalid_token", outcome.Auth},
		{404, "no_service", outcome.Auth}, {404, "channel_not_found", outcome.Auth}, {410, "channel_is_archived", outcome.Auth},
		{400, "no_team", outcome.Auth}, {405, "", outcome.Retry}, {429, "rate_limited", outcome.Retry}, {500, "rollup_error", outcome.Retry},
	} {
		url, _ := record(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		})
		_, err := newWebhook(t, url).SendIncident(t.Context(), cases()["opened"])
		class(t, fmt.Sprint(tt.status, " ", tt.body), err, tt.want)
	}
}

func class(t *testing.T, name string, err error, want outcome.Class) {
	t.Helper()
	got := outcome.OK
	if err != nil {
		got = outcome.From(err).Class
	}
	if got != want {
		t.Errorf("%s: got %v, want %v", name, err, want)
	}
}

func TestBotErrors(t *testing.T) {
	for word, want := range map[string]outcome.Class{
		"invalid_auth": outcome.Auth, "token_revoked": outcome.Auth, "is_archived": outcome.Auth, "not_in_channel": outcome.Auth,
		"channel_not_found": outcome.Auth, "missing_scope": outcome.Auth, "ratelimited": outcome.Retry, "internal_error": outcome.Retry,
		"fatal_error": outcome.Retry, "message_limit_exceeded": outcome.Retry, "brand_new_error": outcome.Retry, "": outcome.Retry,
		"invalid_blocks": outcome.Permanent, "msg_too_long": outcome.Permanent, "msg_blocks_too_long": outcome.Permanent,
		"too_many_attachments": outcome.Permanent, "no_text": outcome.Permanent, "cannot_reply_to_message": outcome.Permanent,
		"rate_limited": outcome.Retry,
	} {
		url, _ := record(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "30")
			_ = json.NewEncoder(w).Encode(map[string]any{"ok": false, "error": word})
		})
		_, err := newBot(t, url).SendIncident(t.Context(), cases()["opened"])
		class(t, word, err, want)
		slower := slices.Contains([]string{"ratelimited", "rate_limited", "message_limit_exceeded"}, word)
		if e := outcome.From(err); slower && (e.After != 30*time.Second || e.Status != http.StatusTooManyRequests) {
			t.Errorf("%s: got status %d and After %v, want the core told to slow down for 30s", word, e.Status, e.After)
		}
	}
}

// TestEdit: what a bot calls when the message of an incident cannot be edited.
func TestEdit(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		change     integration.Change
		ref        string
		calls      []string
		wantRef    string
		want       outcome.Class
	}{
		{"edited", "", integration.Repeated, "C0123456789:1.1", []string{"chat.update", "chat.postMessage"}, "C0123456789:1.1", outcome.OK},
		{"too old", "edit_window_closed", integration.Resolved, "C0123456789:1.1", []string{"chat.update", "chat.postMessage"}, "C0123456789:1.1", outcome.OK},
		{"deleted", "message_not_found", integration.Repeated, "C0123456789:1.1", []string{"chat.update", "chat.postMessage"}, "C0123456789:2.2", outcome.OK},
		{"deleted and over", "message_not_found", integration.Resolved, "C0123456789:1.1", []string{"chat.update"}, "", outcome.OK},
		{"trouble", "internal_error", integration.Repeated, "C0123456789:1.1", []string{"chat.update"}, "C0123456789:1.1", outcome.Retry},
		{"not known", "", integration.Repeated, "", []string{"chat.postMessage"}, "C0123456789:2.2", outcome.OK},
		{"of a channel that was ours", "", integration.Repeated, "C0OLD:1.1", []string{"chat.update", "chat.postMessage"}, "C0OLD:1.1", outcome.OK},
		{"of one that we left", "not_in_channel", integration.Repeated, "C0OLD:1.1", []string{"chat.update", "chat.postMessage"}, "C0123456789:2.2", outcome.OK},
		{"of one that is gone, over", "channel_not_found", integration.Resolved, "C0OLD:1.1", []string{"chat.update"}, "", outcome.OK},
		{"our channel is gone", "channel_not_found", integration.Repeated, "C0123456789:1.1", []string{"chat.update"}, "C0123456789:1.1", outcome.Auth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, calls := record(t, func(w http.ResponseWriter, r *http.Request) {
				answer := map[string]any{"ok": true, "channel": "C0123456789", "ts": "2.2"}
				if strings.HasSuffix(r.URL.Path, "chat.update") && tt.says != "" {
					answer = map[string]any{"ok": false, "error": tt.says}
				}
				_ = json.NewEncoder(w).Encode(answer)
			})
			ref, err := newBot(t, url).SendIncident(t.Context(), integrationtest.Incident(tt.change, tt.ref, eventtest.Alert()))
			class(t, tt.name, err, tt.want)
			var paths []string
			for _, c := range calls() {
				paths = append(paths, c.path)
			}
			if diff := cmp.Diff(tt.calls, paths); diff != "" || ref != tt.wantRef {
				t.Errorf("got ref %q, want %q; calls (-want +got):\n%s", ref, tt.wantRef, diff)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for name, build := range map[string]func(*testing.T, string) integration.IncidentNotifier{"webhook": newWebhook, "bot": newBot} {
		url, calls := record(t, map[string]http.HandlerFunc{"webhook": hook, "bot": api}[name])
		status, err := build(t, url).(integration.Integration).Check(t.Context())
		if err != nil || status.Latency <= 0 || status.Detail == "" {
			t.Errorf("%s: got %+v, %v", name, status, err)
		}
		if got := string(calls()[0].body); got != "{}" {
			t.Errorf("%s: the check sent %s", name, got)
		}
	}
}

func TestSettings(t *testing.T) {
	const good = "https://hooks.slack.com/services/T000/B000/XXXX"
	for name, tt := range map[string]struct {
		settings settings
		faults   []string
	}{
		"webhook":      {settings{WebhookURL: setting(good)}, nil},
		"bot":          {settings{BotToken: setting("xoxb-1"), Channel: "C0123456789", Gov: true}, nil},
		"none":         {settings{}, []string{"webhook_url"}},
		"both":         {settings{WebhookURL: setting(good), BotToken: setting("x"), Channel: "C0123456789"}, []string{"bot_token", "webhook_url"}},
		"channel name": {settings{BotToken: setting("x"), Channel: "#oncall"}, []string{"#oncall"}},
	} {
		err := tt.settings.Validate()
		if (err == nil) != (len(tt.faults) == 0) {
			t.Errorf("%s: got %v", name, err)
		}
		for _, f := range tt.faults {
			if err != nil && !strings.Contains(err.Error(), f) {
				t.Errorf("%s: got %v, want it to name %q", name, err, f)
			}
		}
	}
	away := settings{BotToken: setting("x"), Channel: "C0123456789", APIURL: "http://127.0.0.1"}
	if _, err := away.New(integration.Env{}); err == nil {
		t.Error("api_url is taken outside of local runs")
	}
	if k := Kind(); k.Settings().Validate() == nil || k.Rate.PerMinute == 0 {
		t.Errorf("got %+v", k)
	}
}

// TestWebhookHost: the credential goes to Slack alone.
func TestWebhookHost(t *testing.T) {
	for url, want := range map[string]bool{
		"https://hooks.slack.com/services/T/B/X": true, "https://hooks.slack-gov.com/services/T/B/X": true,
		"http://hooks.slack.com/services/T/B/X": false, "https://hooks.slack.com.evil.example/services/T/B/X": false,
		"https://hooks.slack.com@evil.example/services/T/B/X": false, "https://hooks.slack.com:8443/services/T/B/X": false,
		"https://hooks.slack.com/triggers/T/B/X": false, "https://discord.com/api/webhooks/1/X": false, "s3cr3t\x00": false, "": false,
	} {
		got, err := (&webhook{}).address(secret.New(url))
		if (err == nil) != want || want && got != url {
			t.Errorf("%q: got %q, %v, want %v", url, got, err, want)
		}
		if err != nil && (outcome.From(err).Class != outcome.Auth || strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "s3cr3t")) {
			t.Errorf("%q: got %v, want an auth that does not quote it", url, err)
		}
	}
}

// rotated is a secret whose second value works.
type rotated struct {
	values []string
	mu     sync.Mutex
}

func (r *rotated) Get(context.Context) (secret.Value, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return secret.New(r.values[0]), nil
}

func (r *rotated) Refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values = r.values[1:]
}

func TestRotation(t *testing.T) {
	url, _ := record(t, hook)
	source := &rotated{values: []string{url + "/services/T/B/old", url + "/services/T/B/" + integrationtest.Secret}}
	w := build(t, settings{WebhookURL: integration.Secret{Source: source}}).(integration.IncidentNotifier)
	if _, err := w.SendIncident(t.Context(), cases()["opened"]); err != nil {
		t.Error(err)
	}
	url, _ = record(t, api)
	source = &rotated{values: []string{"xoxb-old", integrationtest.Secret}}
	b := build(t, settings{BotToken: integration.Secret{Source: source}, Channel: "C0123456789", APIURL: url + "/api"}).(integration.IncidentNotifier)
	if ref, err := b.SendIncident(t.Context(), cases()["opened"]); err != nil || ref != "C0123456789:1763805600.000100" {
		t.Errorf("got %q, %v", ref, err)
	}
}

// FuzzUnderstand: whatever the body says, only a 2xx with Slack's own word accepts, and an error has a class.
func FuzzUnderstand(f *testing.F) {
	f.Add(200, []byte(`{"ok":true,"channel":"C1","ts":"1.2"}`))
	f.Add(200, []byte(`{"ok":false,"error":"ratelimited"}`))
	f.Add(200, []byte(`{"ok":"no"}`))
	f.Add(503, []byte(`{"ok":true}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		answer := &httpx.Response{Status: status, Body: body, Header: http.Header{}}
		_, err := understand(answer, "chat.postMessage", secret.New("xoxb-1"))
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
