package sweetsecurity

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

func newClient(t *testing.T, url string, key secret.Source, log *slog.Logger) *Client {
	t.Helper()
	c, err := New(Config{Endpoint: url, APIKey: key, Timeout: 5 * time.Second, MaxConns: 20, UserAgent: "apss-functions/test", Log: log, Meter: metricnoop.Meter{}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plain(t *testing.T, key string) secret.Source {
	t.Helper()
	s, err := secret.Parse(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	integrationtest.Run(t, integrationtest.Subject{
		New: func(t *testing.T, url string, log *slog.Logger) integration.Integration {
			t.Helper()
			return newClient(t, url, plain(t, integrationtest.Secret), log)
		},
		IDs: func(body []byte) (ids []string, err error) {
			var batch struct {
				Events []struct {
					ID string `json:"id"`
				} `json:"events"`
			}
			err = json.Unmarshal(body, &batch)
			for _, e := range batch.Events {
				ids = append(ids, e.ID)
			}
			return ids, err
		},
		Inspect: func(_ *http.Request, body []byte) error {
			_, err := event.DecodeAlert(body)
			return err
		},
	})
}

// TestRequests holds what goes over the wire against testdata.
func TestRequests(t *testing.T) {
	var events []event.Raw
	for _, e := range []*event.Event{eventtest.Exec(), eventtest.FileModify(), eventtest.Connect()} {
		events = append(events, e.AppendJSON(nil))
	}
	for _, tt := range []struct {
		golden, path string
		send         func(*Client) error
	}{
		{"batch.http", "/base/api/v1/events/batch", func(c *Client) error { return c.SendEvents(t.Context(), events) }},
		{"alert.http", "/base/api/v1/alerts", func(c *Client) error { return c.SendAlert(t.Context(), eventtest.Alert()) }},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			var got bytes.Buffer
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				r.Host = "sweet.example"
				r.Header.Write(&got)
				got.WriteString("\n")
				got.Write(body)
				got.WriteString("\n")
				if int64(len(body)) != r.ContentLength {
					t.Errorf("got a body of %d bytes, announced %d", len(body), r.ContentLength)
				}
				if r.Method != http.MethodPost || r.URL.Path != tt.path {
					t.Errorf("got %s %s", r.Method, r.URL)
				}
			}))
			defer server.Close()
			if err := tt.send(newClient(t, server.URL+"/base/", plain(t, "the-key"), slog.New(slog.DiscardHandler))); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", tt.golden)
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAlertAnswers(t *testing.T) {
	a := eventtest.Alert()
	tests := []struct {
		name   string
		status int
		body   string
		want   *outcome.Error
	}{
		{"accepted", 200, `{}`, nil},
		{"unreadable", 200, `<html>`, nil},
		{"another rejected", 200, `{"rejected":[{"id":"x","reason":"no"}]}`, nil},
		{"rejected", 202, `{"rejected":[{"id":"` + a.ID + `","reason":"the-key is odd"}]}`,
			&outcome.Error{Class: outcome.Permanent, Status: 202, Reason: "rejected: [redacted] is odd"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer server.Close()
			err := newClient(t, server.URL, plain(t, "the-key"), slog.New(slog.DiscardHandler)).SendAlert(t.Context(), a)
			if diff := cmp.Diff(tt.want, outcome.From(err)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	key := integration.Secret{Source: plain(t, "the-key")}
	tests := []struct {
		name     string
		settings settings
		want     []string
	}{
		{"good", settings{Endpoint: "https://sweet.example", APIKey: key}, nil},
		{"in the clear, allowed", settings{Endpoint: "http://sweet.example", AllowHTTP: true, APIKey: key}, nil},
		{"nothing", settings{}, []string{"endpoint: is required", "api_key: is required"}},
		{"in the clear", settings{Endpoint: "http://sweet.example", APIKey: key}, []string{"endpoint: the endpoint on sweet.example must be https"}},
	}
	for _, tt := range tests {
		err := tt.settings.Validate()
		if (err != nil) != (tt.want != nil) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		for _, want := range tt.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want it to say %q", tt.name, err, want)
			}
		}
		if err == nil {
			if _, err := tt.settings.New(integration.Env{Log: slog.New(slog.DiscardHandler), Meter: metricnoop.Meter{}, Timeout: time.Second, MaxConns: 1}); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}

func TestBody(t *testing.T) {
	for want, events := range map[string][]event.Raw{
		`{"events":[]}`:                 nil,
		`{"events":[{}]}`:               {event.Raw(`{}`)},
		`{"events":[{"a":1},{},[1]]}`:   {event.Raw(`{"a":1}`), event.Raw(`{}`), event.Raw(`[1]`)},
		`{"events":[,{"a":"b"}]}`:       {event.Raw(``), event.Raw(`{"a":"b"}`)},
		`{"events":["abcdefghijklmn"]}`: {event.Raw(`"abcdefghijklmn"`)},
	} {
		if err := iotest.TestReader(&body{events: events}, []byte(want)); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if got := bodyLen(events); got != int64(len(want)) {
			t.Errorf("%s: got length %d, want %d", want, got, len(want))
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	a, b := event.Raw(`{"id":"a"}`), event.Raw(`{"id":"b"}`)
	key := func(events ...event.Raw) string { return idempotencyKey(events) }
	if key(a, b) != key(event.Raw(`{"x":1,"id":"a"}`), b) {
		t.Error("the key depends on more than the ids")
	}
	for name, other := range map[string]string{
		"another order": key(b, a), "fewer": key(a), "joined": key(event.Raw(`{"id":"ab"}`)), "none": key(),
		"without ids": key(event.Raw(`{}`), event.Raw(`{"x":1}`)),
	} {
		if other == key(a, b) {
			t.Errorf("%s has the same key", name)
		}
	}
}

func TestRejections(t *testing.T) {
	tests := []struct {
		name, body string
		want       []outcome.Rejection
		fails      bool
	}{
		{"nothing", "", nil, false},
		{"white space", " \n", nil, false},
		{"a count", `{"accepted":3,"rejected":0,"errors":null}`, nil, false},
		{"rejected", `{"rejected":[{"id":"a","reason":"too old"},{"id":"b"}]}`, []outcome.Rejection{{ID: "a", Reason: "too old"}, {ID: "b"}}, false},
		{"errors", `{"errors":[{"id":"a","message":"too old"}]}`, []outcome.Rejection{{ID: "a", Reason: "too old"}}, false},
		{"both", `{"rejected":[{"id":"a"}],"errors":[{"id":"b"}]}`, []outcome.Rejection{{ID: "a"}, {ID: "b"}}, false},
		{"no id", `{"errors":[{"id":"a"},{"message":"quota"}]}`, []outcome.Rejection{{ID: "a"}}, true},
		{"an array", `[]`, nil, true},
		{"HTML", `<html>`, nil, true},
		{"other items", `{"rejected":["a","b"]}`, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := rejections([]byte(tt.body))
			if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != tt.fails {
				t.Errorf("got error %v, rejections (-want +got):\n%s", err, diff)
			}
		})
	}
}

func FuzzRejections(f *testing.F) {
	f.Add([]byte(`{"rejected":[{"id":"a","reason":"too old"}],"errors":[{"id":"b","message":"x"}]}`))
	f.Add([]byte(`{"rejected":null,"errors":7}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := rejections(body)
		if err == nil && len(bytes.TrimSpace(body)) > 0 && !json.Valid(body) {
			t.Errorf("invalid JSON was read without an error")
		}
		for _, r := range got {
			if r.ID == "" {
				t.Error("a rejection without an id")
			}
		}
	})
}

func TestPartial(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusMultiStatus)
		_, _ = io.WriteString(w, `{"rejected":[{"id":"a","reason":"you sent `+
			r.Header.Get("Authorization")+`\n to `+r.URL.Path+`\u001b[2J`+strings.Repeat("!", 1000)+`"}]}`)
	}))
	defer server.Close()
	err := newClient(t, server.URL+"/tenant-7f3a", plain(t, "the-key"), slog.New(slog.DiscardHandler)).
		SendEvents(t.Context(), []event.Raw{event.Raw(`{"id":"a"}`), event.Raw(`{"id":"b"}`)})
	reason := `you sent [redacted] to [redacted]\x1b[2J`
	reason += strings.Repeat("!", 199-len(reason)) + "…" // as long as the excerpt of any answer
	want := &outcome.Error{Class: outcome.Partial, Status: 207, Reason: "1 of 2 events rejected",
		Rejected: []outcome.Rejection{{ID: "a", Reason: reason}}}
	if diff := cmp.Diff(want, outcome.From(err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// rotating is a secret that changes when it is refreshed.
type rotating struct {
	keys      []string
	refreshed int
}

func (r *rotating) Get(context.Context) (secret.Value, error) {
	return secret.New(r.keys[min(r.refreshed, len(r.keys)-1)]), nil
}
func (r *rotating) Refresh() { r.refreshed++ }

func TestRefusedKey(t *testing.T) {
	tests := []struct {
		name  string
		keys  []string
		calls []string // keys that were tried
		class outcome.Class
	}{
		{"rotated", []string{"old", "new"}, []string{"Bearer old", "Bearer new"}, outcome.OK},
		{"rotated to a bad one", []string{"old", "bad"}, []string{"Bearer old", "Bearer bad"}, outcome.Auth},
		{"unchanged", []string{"old"}, []string{"Bearer old"}, outcome.Auth},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var calls []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if !json.Valid(body) {
					t.Errorf("call %d has the body %q", len(calls)+1, body)
				}
				calls = append(calls, r.Header.Get("Authorization"))
				if r.Header.Get("Authorization") != "Bearer new" {
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			defer server.Close()
			key := &rotating{keys: tt.keys}
			err := newClient(t, server.URL, key, slog.New(slog.DiscardHandler)).SendEvents(t.Context(), integrationtest.Events(2))
			got := outcome.OK
			if err != nil {
				got = outcome.From(err).Class
			}
			if got != tt.class || key.refreshed != 1 {
				t.Errorf("got %v after %d refreshes, want %v after 1", err, key.refreshed, tt.class)
			}
			if diff := cmp.Diff(tt.calls, calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEndpoint(t *testing.T) {
	tests := []struct {
		endpoint string
		allow    bool
		want     string // "" is refused
	}{
		{"https://api.example.com", false, "https://api.example.com"},
		{"https://api.example.com/tenant/", false, "https://api.example.com/tenant"},
		{"http://127.0.0.1:8080", false, "http://127.0.0.1:8080"},
		{"http://[::1]:8080", false, "http://[::1]:8080"},
		{"http://localhost", false, "http://localhost"},
		{"http://api.example.com", false, ""},
		{"http://10.0.0.1", false, ""},
		{"http://127.0.0.1.example.com", false, ""},
		{"http://api.example.com", true, "http://api.example.com"},
		{"https://user:hunter2@api.example.com", false, ""},
		{"https://api.example.com?key=hunter2", false, ""},
		{"https://api.example.com#hunter2", false, ""},
		{"ftp://api.example.com", true, ""},
		{"api.example.com", true, ""},
		{"https://", true, ""},
		{"https://hunter2\x00", true, ""},
		{"", true, ""},
	}
	for _, tt := range tests {
		got, err := parseEndpoint(tt.endpoint, tt.allow)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: got %q, %v, want %q", tt.endpoint, got, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error tells the secret: %v", tt.endpoint, err)
		}
	}
}
