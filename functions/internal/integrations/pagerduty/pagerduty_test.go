package pagerduty

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
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

func setting(s string) integration.Secret {
	return integration.Secret{Source: secret.Plain{Value: secret.New(s)}}
}

func newClient(t *testing.T, url string) *client {
	t.Helper()
	s := settings{RoutingKey: setting(integrationtest.Secret), Region: "us", APIURL: url}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	i, err := s.New(integration.Env{Name: "oncall", Version: "1.0", Local: true, Timeout: 30 * time.Second, MaxConns: 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return i.(*client)
}

// service is /v2/enqueue as PagerDuty documents it.
func service(w http.ResponseWriter, r *http.Request) {
	refuse := func(errs ...string) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "invalid event", "message": "Event object is invalid", "errors": errs})
	}
	body, _ := io.ReadAll(r.Body)
	var e enqueued
	switch err := json.Unmarshal(body, &e); {
	case r.URL.Path != "/v2/enqueue":
		http.NotFound(w, r)
	case err != nil:
		refuse("JSON is invalid")
	case len(e.Key) != 32:
		refuse("Length of 'routing_key' is incorrect (should be 32 characters)")
	case e.Key != integrationtest.Secret:
		refuse("Invalid routing key")
	case faults(body) != nil:
		refuse(faults(body).Error())
	default:
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "message": "Event processed", "dedup_key": e.Dedup})
	}
}

// faults holds an event against PagerDuty's documents.
func faults(body []byte) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var e enqueued
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	if len(body) > 512_000 {
		fault("%d bytes", len(body))
	}
	if n := utf8.RuneCountInString(e.Dedup); n == 0 || n > 255 {
		fault("dedup_key of %d characters", n)
	}
	if !slices.Contains([]string{"trigger", "resolve"}, e.Action) {
		fault("event_action %q", e.Action)
	}
	if p := e.Payload; e.Action == "trigger" && p != nil {
		if n := utf8.RuneCountInString(p.Summary); n == 0 || n > 1024 {
			fault("summary of %d characters", n)
		}
		if p.Source == "" || !slices.Contains([]string{"critical", "error", "warning", "info"}, p.Severity) {
			fault("source %q, severity %q", p.Source, p.Severity)
		}
		if _, err := time.Parse(time.RFC3339, p.Timestamp); p.Timestamp != "" && err != nil {
			fault("timestamp: %w", err)
		}
		for _, l := range e.Links {
			if !message.IsLink(l.Href) {
				fault("a link to %q", l.Href)
			}
		}
	} else if e.Action == "trigger" {
		fault("a trigger without a payload")
	}
	return errors.Join(errs...)
}

func TestConformance(t *testing.T) {
	integrationtest.Run(t, integrationtest.Subject{
		New: func(t *testing.T, url string, _ *slog.Logger) integration.Integration {
			t.Helper()
			return newClient(t, url)
		},
		Accept:  service,
		Vague:   outcome.Retry,
		Classes: integrationtest.OneMessage(),
		Inspect: func(_ *http.Request, body []byte) error {
			if strings.Contains(string(body), `"routing_key":"forged"`) {
				return errors.New("a routing key was forged")
			}
			return faults(body)
		},
	})
}

func TestMessages(t *testing.T) {
	file := eventtest.Alert()
	file.Event, file.RuleName, file.Severity = eventtest.FileModify(), "Account file changed", event.High
	repeated := integrationtest.Incident(integration.Repeated, "apss/32ada12b", eventtest.Alert())
	repeated.Count, repeated.LastSeen = 42, eventtest.Time().Add(5*time.Minute)
	resolved := repeated
	resolved.Change = integration.Resolved
	test := integrationtest.Incident(integration.Opened, "", file)
	test.Test = true
	for name, send := range map[string]func(c *client) error{
		"opened":    incident(t, integrationtest.Incident(integration.Opened, "", eventtest.Alert()), "apss/32ada12be4ad321b9a3a8717e43a0b55"),
		"repeated":  incident(t, repeated, "apss/32ada12b"),
		"resolved":  incident(t, resolved, "apss/32ada12b"),
		"file_test": incident(t, test, "apss/32ada12be4ad321b9a3a8717e43a0b55"),
		"digest":    func(c *client) error { return c.SendDigest(t.Context(), integrationtest.Digest(eventtest.Alert(), 3)) },
		"check":     func(c *client) error { _, err := c.Check(t.Context()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			var body []byte
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ = io.ReadAll(r.Body)
				r.Body = io.NopCloser(strings.NewReader(string(body)))
				service(w, r)
			}))
			defer server.Close()
			if err := send(newClient(t, server.URL)); err != nil {
				t.Fatal(err)
			}
			golden(t, name, body)
		})
	}
}

func incident(t *testing.T, i integration.Incident, ref string) func(*client) error {
	t.Helper()
	return func(c *client) error {
		got, err := c.SendIncident(t.Context(), i)
		if got != ref {
			return fmt.Errorf("got the reference %q, want %q", got, ref)
		}
		return err
	}
}

// golden holds a body, indented and with sorted keys, against testdata/name.json.
func golden(t *testing.T, name string, body []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	e := json.NewEncoder(&got)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
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

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   outcome.Class
	}{
		{202, `{"status":"success","message":"Event processed","dedup_key":"x"}`, outcome.OK},
		{202, `{"status":"queued"}`, outcome.Retry}, {200, `<html>log in</html>`, outcome.Retry},
		{400, `{"status":"invalid event","errors":["'payload.summary' is missing or blank"]}`, outcome.Permanent},
		{400, `{"status":"invalid event","errors":["Length of 'routing_key' is incorrect (should be 32 characters)"]}`, outcome.Auth},
		{400, `{"status":"invalid event","errors":["Invalid routing key"]}`, outcome.Auth},
		{400, `Invalid routing key`, outcome.Auth}, {404, ``, outcome.Auth}, {413, ``, outcome.Permanent},
		{429, `{"status":"throttle exceeded"}`, outcome.Retry}, {500, `routing key`, outcome.Retry},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		}))
		_, err := newClient(t, server.URL).Check(t.Context())
		server.Close()
		got := outcome.OK
		if err != nil {
			got = outcome.From(err).Class
		}
		if got != tt.want {
			t.Errorf("%d %s: got %v, want %v", tt.status, tt.body, err, tt.want)
		}
	}
}

// TestCut: what is too large for PagerDuty is cut until it fits, and says so.
func TestCut(t *testing.T) {
	a := eventtest.Alert()
	long := strings.Repeat("日", 1<<16) // three bytes each
	a.Description, a.Event.Process.Cmdline, a.Event.Container.Image, a.Event.Network.State = long, long, long, long
	a.Event.File = &event.File{Path: long, Diff: long, FileState: event.FileState{SHA256: long}}
	for range 100 {
		a.Metadata.RecommendedActions = append(a.Metadata.RecommendedActions, long)
		a.Metadata.References = append(a.Metadata.References, long)
		a.Event.Process.Ancestors = append(a.Event.Process.Ancestors, event.Ancestor{Exe: long, Cmdline: long})
	}
	var e enqueued
	for _, part := range []struct {
		name string
		cut  bool
	}{{"ordinary", false}, {"huge", true}} {
		i := integrationtest.Incident(integration.Opened, "", eventtest.Alert())
		if part.cut {
			i.Alert = a
		}
		body, err := encode(trigger(i, "k"))
		if err := errors.Join(err, json.Unmarshal(body, &e)); err != nil {
			t.Fatal(err)
		}
		if len(body) > maxSize || (e.Payload.Details["cut"] != "") != part.cut {
			t.Errorf("%s: got %d bytes, details say %q", part.name, len(body), e.Payload.Details["cut"])
		}
	}
}

func TestDedupKey(t *testing.T) {
	if got, want := dedupKey("32ada12be4ad321b"), "apss/32ada12be4ad321b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	seen := map[string]bool{}
	for _, f := range []string{"a b", "a\nb", strings.Repeat("x", 250), strings.Repeat("x", 251), "é", ""} {
		k := dedupKey(f)
		if seen[k] || len(k) > maxDedup || strings.ContainsAny(k, " \né") {
			t.Errorf("%q: got %q", f, k)
		}
		seen[k] = true
	}
}

func TestSeverity(t *testing.T) {
	var got []string
	for s := event.Info; s <= event.Critical; s++ {
		got = append(got, severity(s))
	}
	if diff := cmp.Diff([]string{"info", "info", "warning", "error", "critical"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSettings(t *testing.T) {
	if err := Kind().Settings().Validate(); err == nil || strings.Contains(err.Error(), "region") || !strings.Contains(err.Error(), "routing_key") {
		t.Errorf("got %v, want a fault of routing_key alone", err)
	}
	err := (&settings{Region: "mars"}).Validate()
	for _, key := range []string{"routing_key", "mars"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("got %v, want it to name %q", err, key)
		}
	}
	for region, want := range map[string]string{"us": "https://events.pagerduty.com/v2/enqueue", "eu": "https://events.eu.pagerduty.com/v2/enqueue"} {
		i, err := (&settings{RoutingKey: setting("x"), Region: region}).New(integration.Env{})
		if err != nil || i.(*client).url != want {
			t.Errorf("%s: got %v, %v", region, i, err)
		}
	}
	if _, err := (&settings{RoutingKey: setting("x"), Region: "us", APIURL: "http://127.0.0.1"}).New(integration.Env{}); err == nil {
		t.Error("api_url is taken outside of local runs")
	}
}

func TestKeyForm(t *testing.T) {
	s := settings{RoutingKey: setting("u+short-api-key"), Region: "us", APIURL: "http://127.0.0.1:1"}
	i, err := s.New(integration.Env{Local: true})
	if err != nil {
		t.Fatal(err)
	}
	_, err = i.Check(t.Context())
	if e := outcome.From(err); e == nil || e.Class != outcome.Auth || strings.Contains(err.Error(), "short-api-key") {
		t.Errorf("got %v, want an auth without the key", err)
	}
}

// FuzzUnderstand: whatever the body says, only a 2xx with PagerDuty's own word accepts, and an error has a class.
func FuzzUnderstand(f *testing.F) {
	f.Add(202, []byte(`{"status":"success","errors":[]}`))
	f.Add(400, []byte(`{"errors":["Invalid routing key"]}`))
	f.Add(202, []byte(`null`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		answer := &httpx.Response{Status: status, Body: body, Header: http.Header{}}
		err := understand(answer, secret.New(integrationtest.Secret))
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
