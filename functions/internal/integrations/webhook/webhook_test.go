package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

func setting(s string) integration.Secret {
	return integration.Secret{Source: secret.Plain{Value: secret.New(s)}}
}

// key is a signing secret of n bytes.
func key(n int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(integrationtest.Secret, 3)[:n]))
}

var local = integration.Env{Name: "siem", Version: "1.0", Local: true, MaxConns: 20, Log: slog.New(slog.DiscardHandler)}

// settings are valid ones; change may be nil.
func settings(url string, change func(*Settings)) *Settings {
	s := Kind().Settings().(*Settings)
	s.URL, s.Secret = setting(url+"/hook/"+integrationtest.Secret), setting(key(32))
	s.Timeout = 5 * time.Second
	if change != nil {
		change(s)
	}
	return s
}

func newWebhook(t *testing.T, url string, change func(*Settings)) integration.Integration {
	t.Helper()
	s := settings(url, change)
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	i, err := s.New(local)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// verify holds a message against the specification, by its own library.
func verify(r *http.Request, body []byte, secret string) error {
	v, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	if err := v.Verify(body, r.Header); err != nil {
		return err
	}
	if id := r.Header.Get("webhook-id"); strings.Contains(id, ".") || r.Header.Get("Content-Type") != "application/json" {
		return fmt.Errorf("webhook-id %q, content type %q", id, r.Header.Get("Content-Type"))
	}
	var m struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      struct {
			ID     string            `json:"id"`
			Events []json.RawMessage `json:"events"`
		} `json:"data"`
	}
	switch err := json.Unmarshal(body, &m); {
	case err != nil:
		return err
	case m.Type != typeAlert && m.Type != typeEvents:
		return fmt.Errorf("type %q", m.Type)
	}
	return nil
}

func subject(change func(*Settings)) integrationtest.Subject {
	checks := map[int]outcome.Class{501: outcome.OK}
	for code := 400; code < 500; code++ {
		if !slices.Contains([]int{401, 407, 408, 410, 425, 429}, code) {
			checks[code] = outcome.OK
		}
	}
	return integrationtest.Subject{
		New: func(t *testing.T, url string, _ *slog.Logger) integration.Integration {
			t.Helper()
			return newWebhook(t, url, func(s *Settings) {
				s.MaxBody = maxMaxBody
				s.SecretHeaders = map[string]integration.Secret{"X-Api-Key": setting(integrationtest.Secret)}
				change(s)
			})
		},
		Classes: map[int]outcome.Class{404: outcome.Auth, 409: outcome.Permanent, 410: outcome.Auth}, CheckClasses: checks,
		Inspect: func(r *http.Request, body []byte) error {
			if r.Header.Get("X-Api-Key") != integrationtest.Secret || r.Method != http.MethodPost {
				return fmt.Errorf("%s with the key %q", r.Method, r.Header.Get("X-Api-Key"))
			}
			return verify(r, body, key(32))
		},
		IDs: func(body []byte) (ids []string, err error) {
			var m struct {
				Data struct{ Events []struct{ ID string } }
			}
			err = json.Unmarshal(body, &m)
			for _, e := range m.Data.Events {
				ids = append(ids, e.ID)
			}
			return ids, err
		},
	}
}

func TestConformance(t *testing.T) {
	integrationtest.Run(t, subject(func(s *Settings) { s.Events = true }))
}

// TestConformanceOfTemplates: what is in an alert never breaks the body that a template makes.
func TestConformanceOfTemplates(t *testing.T) {
	s := subject(func(s *Settings) { s.Body, s.MaxBody = example, 64<<10 })
	s.Inspect = func(_ *http.Request, body []byte) error {
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil || len(m) != 6 || m["source"] != "apss" {
			return fmt.Errorf("got %.200s: %w", body, err)
		}
		return nil
	}
	integrationtest.Run(t, s)
}

// example is a template as people write it.
const example = `{
  "source": "apss",
  "severity": {{lower .severity | json}},
  "text": {{printf "%s in %s: %s" .rule_name .cluster (cut 500 .description) | json}},
  "command": {{get . "event" "process" "cmdline" | json}},
  "actions": [{{range $i, $a := list .metadata "recommended_actions"}}{{if $i}}, {{end}}{{json $a}}{{end}}],
  "repeated": {{if gt .count 1}}true{{else}}false{{end}}
}`

// record serves a receiver that accepts, and keeps what it got.
type record struct {
	header http.Header
	body   []byte
}

func receiver(t *testing.T, got *record) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got.header = r.Header.Clone()
		got.body, _ = io.ReadAll(r.Body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestMessages(t *testing.T) {
	file := eventtest.Alert()
	file.Event = eventtest.FileModify()
	for name, c := range map[string]struct {
		change func(*Settings)
		send   func(integration.Integration) error
	}{
		"alert": {nil, func(i integration.Integration) error {
			return i.(integration.Notifier).SendAlert(t.Context(), eventtest.Alert())
		}},
		"template": {func(s *Settings) { s.Body = example }, func(i integration.Integration) error {
			return i.(integration.Notifier).SendAlert(t.Context(), eventtest.Alert())
		}},
		"file": {func(s *Settings) { s.Body = example }, func(i integration.Integration) error { return i.(integration.Notifier).SendAlert(t.Context(), file) }},
		"events": {func(s *Settings) { s.Events = true }, func(i integration.Integration) error {
			s := i.(sink)
			s.now = eventtest.Time
			return s.SendEvents(t.Context(), []event.Raw{eventtest.Exec().AppendJSON(nil), eventtest.FileModify().AppendJSON(nil)})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var got record
			i := newWebhook(t, receiver(t, &got), c.change)
			switch i := i.(type) {
			case sink:
				i.now = eventtest.Time
			case *client:
				i.now = eventtest.Time
			}
			if err := c.send(i); err != nil {
				t.Fatal(err)
			}
			golden(t, name, got)
		})
	}
}

// golden holds headers and body against testdata/name.txt. The body stands as it was sent: its bytes are signed.
func golden(t *testing.T, name string, r record) {
	t.Helper()
	var got bytes.Buffer
	for _, h := range []string{"Content-Type", "User-Agent", "Webhook-Id", "Webhook-Signature", "Webhook-Timestamp"} {
		fmt.Fprintf(&got, "%s: %s\n", h, r.header.Get(h))
	}
	fmt.Fprintf(&got, "\n%s\n", r.body)
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestTries: a message keeps its id and has the time of each try. While keys change both sign.
func TestTries(t *testing.T) {
	var got record
	now := time.Now().Truncate(time.Second)
	c := newWebhook(t, receiver(t, &got), func(s *Settings) { s.PreviousSecret = setting(key(24)) }).(*client)
	for try := range 3 {
		at := now.Add(time.Duration(try) * time.Second)
		c.now = func() time.Time { return at }
		a := eventtest.Alert()
		if err := c.SendAlert(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		h := got.header
		if h.Get("webhook-id") != a.ID || h.Get("webhook-timestamp") != strconv.FormatInt(at.Unix(), 10) || strings.Count(h.Get("webhook-signature"), "v1,") != 2 {
			t.Errorf("try %d: got %v", try, h)
		}
		for _, k := range []string{key(32), key(24)} {
			if err := verify(&http.Request{Header: h}, got.body, k); err != nil {
				t.Errorf("try %d: %v", try, err)
			}
		}
		if err := verify(&http.Request{Header: h}, got.body, key(64)); err == nil {
			t.Error("another key verifies")
		}
	}
}

func TestMessageID(t *testing.T) {
	data := []byte(`{"id":""}`)
	seen := map[string]bool{}
	for _, id := range []string{"", "a.b", "a\r\nX: y", strings.Repeat("x", 129), "é", "0199f0a2-4e13-7b21-a7d8-6c90f1e3d504"} {
		got := messageID(id, data)
		if seen[got] || !idPattern.MatchString(got) || got != messageID(id, data) {
			t.Errorf("%q: got %q", id, got)
		}
		seen[got] = true
	}
}

// TestRotation: whichever secret is refused, one that was changed meanwhile is taken at once; 410 waits, and says why.
func TestRotation(t *testing.T) {
	var calls int
	accepted := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if r.Header.Get("Authorization") != accepted {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "token")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("Bearer first-token")
	source, err := secret.Parse("file://" + path)
	if err != nil {
		t.Fatal(err)
	}
	accepted = "Bearer first-token"
	c := newWebhook(t, server.URL, func(s *Settings) {
		s.SecretHeaders = map[string]integration.Secret{"Authorization": {Source: &onRefresh{Source: source, then: func() { write("Bearer second-token-now") }}}}
	}).(*client)
	for _, want := range []int{1, 3} {
		if err := c.SendAlert(t.Context(), eventtest.Alert()); err != nil || calls != want {
			t.Errorf("got %v after %d calls, want %d", err, calls, want)
		}
		accepted = "Bearer second-token-now"
	}
	accepted = "Bearer third"
	if err := c.SendAlert(t.Context(), eventtest.Alert()); outcome.From(err).Class != outcome.Auth || strings.Contains(err.Error(), "second-token") {
		t.Errorf("got %v, want an auth without the token", err)
	}
}

// onRefresh is a source whose secret changes right before it is read anew.
type onRefresh struct {
	secret.Source
	then func()
}

func (s *onRefresh) Refresh() { s.then(); s.Source.Refresh() }

func TestGone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }))
	defer server.Close()
	err := newWebhook(t, server.URL, nil).(*client).SendAlert(t.Context(), eventtest.Alert())
	if e := outcome.From(err); e == nil || e.Class != outcome.Auth || !strings.Contains(e.Reason, "switched this webhook off") {
		t.Errorf("got %v, want an auth that says what happened", err)
	}
}

// TestPrivateAddresses: only a local run, or who says so, gets there.
func TestPrivateAddresses(t *testing.T) {
	var got record
	url := receiver(t, &got)
	outside := local
	outside.Local = false
	for _, c := range []struct {
		url   string
		env   integration.Env
		allow bool
		want  string
	}{
		{url, local, false, ""}, {url, outside, true, ""}, {url, outside, false, "must be https"},
		{strings.Replace(url, "http:", "https:", 1), outside, false, "not one of the public internet"},
		{strings.Replace(url, "http://127.0.0.1", "https://localhost", 1), outside, false, "not one of the public internet"},
	} {
		got = record{}
		i, err := settings(c.url, func(s *Settings) { s.AllowPrivate = c.allow }).New(c.env)
		if err != nil {
			t.Fatal(err)
		}
		err = i.(*client).SendAlert(t.Context(), eventtest.Alert())
		if (err == nil) != (c.want == "") || (got.header != nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

// TestCut: an alert that is too large is cut until it fits, and says so; what cannot be cut is refused.
func TestCut(t *testing.T) {
	large := eventtest.Alert()
	large.Description = strings.Repeat("long ", 1<<18)
	for range 5000 {
		large.Metadata.References = append(large.Metadata.References, "https://example.com/"+strings.Repeat("x", 200))
	}
	for name, change := range map[string]func(*Settings){
		"envelope": func(s *Settings) { s.MaxBody = minMaxBody * 2 },
		"template": func(s *Settings) {
			s.MaxBody, s.Body = minMaxBody*2, `{"data":{{json .}},"truncated":{{json .truncated}}}`
		},
	} {
		var got record
		if err := newWebhook(t, receiver(t, &got), change).(*client).SendAlert(t.Context(), large); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var m struct {
			Truncated string
			Data      event.Alert
		}
		if err := json.Unmarshal(got.body, &m); err != nil || len(got.body) > minMaxBody*2 || !strings.Contains(m.Truncated, "max_body is 8192 bytes") ||
			m.Data.ID != large.ID || m.Data.Fingerprint != large.Fingerprint || !strings.Contains(m.Data.Description, "characters)") {
			t.Errorf("%s: got %d bytes, %v: %.300s", name, len(got.body), err, got.body)
		}
	}
	large.Metadata.References = nil
	large.Event.Process.Ancestors = slices.Repeat([]event.Ancestor{{Exe: strings.Repeat("x", 100), Cmdline: strings.Repeat("y", 100)}}, 100)
	large.Metadata.RecommendedActions = slices.Repeat([]string{strings.Repeat("x", 100)}, 100)
	i := newWebhook(t, "http://127.0.0.1:1", func(s *Settings) { s.MaxBody, s.Events = minMaxBody, true })
	if e := outcome.From(i.(sink).SendAlert(t.Context(), large)); e == nil || e.Class != outcome.Permanent {
		t.Errorf("an alert that cannot be cut: got %v, want a permanent", e)
	}
	if e := outcome.From(i.(sink).SendEvents(t.Context(), integrationtest.Events(1000))); e == nil || e.Class != outcome.Split || e.Status != 413 {
		t.Errorf("events above max_body: got %v, want a split", e)
	}
}

func TestHeaders(t *testing.T) {
	var got record
	c := newWebhook(t, receiver(t, &got), func(s *Settings) {
		s.Headers = map[string]string{"X-Tenant": "acme"}
		s.SecretHeaders = map[string]integration.Secret{"B": setting("2"), "Authorization": setting("Bearer 1")}
		s.PreviousSecret = setting(key(24))
	}).(*client)
	if err := c.SendAlert(t.Context(), eventtest.Alert()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"X-Tenant": "acme", "B": "2", "Authorization": "Bearer 1", "User-Agent": "apss-functions/1.0"} {
		if h := got.header.Get(name); h != want {
			t.Errorf("%s: got %q, want %q", name, h, want)
		}
	}
}
