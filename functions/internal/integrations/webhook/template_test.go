package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestFaultsOfTemplates are found before anything is started.
func TestFaultsOfTemplates(t *testing.T) {
	for text, want := range map[string]string{
		`{{`:                                 "body:1",
		`{{nothing}}`:                        `"nothing" not defined`,
		`{{json .rulename}}`:                 `"rulename"`,
		`{"x": {{json .event.process.exe}}}`: "alert about a file",
		`{{with .event}}{{json .id}}{{end}}`: "alert without an event",
		`{"text": "{{.description}}"}`:       "is not JSON",
		`{"text": {{.rule_id}}}`:             "is not JSON",
		`plain text`:                         "is not JSON",
		`{{json .severity.String}}`:          "String",
		`{{template "body" .}}`:              "steps",
		`{{define "x"}}{{template "x"}}{{end}}{{template "x"}}`:                            "steps",
		`{{range 1000000000}}{{end}}1`:                                                     "steps",
		`{{range 200}}{{range 200}}{{end}}{{end}}1`:                                        "steps",
		`{{if true}}{{with 1}}{{range 1000000000}}{{end}}{{end}}{{end}}1`:                  "steps",
		`{{$x := "0123456789"}}{{range 64}}{{$x = print $x $x}}{{end}}{{json $x}}`:         "max_body",
		`{{$x := "0123456789"}}{{range 64}}{{$x = printf "%s%s" $x $x}}{{end}}{{json $x}}`: "max_body",
		`{{range 9000}}{{printf "%99999d" 1}}{{end}}`:                                      "max_body",
		`{{printf "` + strings.Repeat("%v", 200) + `" 1}}`:                                 "printf",
		`{{call .description}}`:                                                            "call",
	} {
		s := settings("https://example.com", func(s *Settings) { s.Body = text })
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "body: ") || len(err.Error()) > 500 {
			t.Errorf("%.100s: got %v, want a fault of body about %q", text, err, want)
		}
	}
	if err := settings("https://example.com", func(s *Settings) { s.Body = strings.Repeat(" ", maxBody+1) }).Validate(); err == nil {
		t.Error("a template without end is taken")
	}
	if err := settings("https://example.com", func(s *Settings) { s.Body, s.ContentType = "{{.description}}", "text/plain; charset=utf-8" }).Validate(); err != nil {
		t.Errorf("text: %v", err)
	}
}

// TestTemplateAtRun: what the samples did not show is permanent: the same alert would come to the same.
func TestTemplateAtRun(t *testing.T) {
	b, err := newTemplate(`{{if eq .cluster "prod-1"}}{{json .nothing}}{{else}}1{{end}}`, "application/json")
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.execute(eventtest.Alert().AppendJSON(nil), "", maxMaxBody)
	if e := outcome.From(err); e == nil || e.Class != outcome.Permanent || !strings.Contains(e.Reason, `"nothing"`) {
		t.Errorf("got %v, want a permanent about the key", err)
	}
}

// TestSlowMachine: time that ran out says nothing about the alert.
func TestSlowMachine(t *testing.T) {
	r := &run{limit: 1, until: time.Now().Add(-time.Second)}
	if _, err := r.step(); !errors.Is(err, errSlow) {
		t.Errorf("got %v, want %v", err, errSlow)
	}
	if e := refusal(fmt.Errorf("body:1: %w", errSlow)); e.Class != outcome.Retry {
		t.Errorf("got %v, want a retry", e)
	}
	if e := refusal(fmt.Errorf("body:1: %w", errEndless)); e.Class != outcome.Permanent {
		t.Errorf("got %v, want a permanent", e)
	}
}

// FuzzTemplate: whatever an alert's JSON holds, a template that passed its trial makes JSON within the limit, or says why not.
func FuzzTemplate(f *testing.F) {
	for _, a := range integrationtest.Alerts() {
		if data := a.AppendJSON(nil); len(data) < 64<<10 {
			f.Add(data)
		}
	}
	f.Add([]byte(`null`))
	f.Add([]byte(`{"count":1e999,"metadata":7,"event":[]}`))
	b, err := newTemplate(example, "application/json")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 16 << 10
		out, err := b.execute(data, "", limit)
		switch {
		case err == nil && (len(out) > limit || !json.Valid(out)):
			t.Errorf("got %d bytes: %.200s", len(out), out)
		case err != nil && outcome.From(err).Class != outcome.Permanent:
			t.Errorf("got %v, want a permanent", err)
		}
		for text := maxText; text >= minText; text /= 4 {
			smaller, err := cutJSON(data, text, minItems)
			if err == nil && !json.Valid(smaller) || err != nil && !errors.As(err, new(*outcome.Error)) {
				t.Errorf("cut to %d: %v: %.200s", text, err, smaller)
			}
		}
	})
}

func BenchmarkTemplate(b *testing.B) {
	t, err := newTemplate(example, "application/json")
	if err != nil {
		b.Fatal(err)
	}
	data := eventtest.Alert().AppendJSON(nil)
	for b.Loop() {
		if _, err := t.execute(data, "", 1<<20); err != nil {
			b.Fatal(err)
		}
	}
}
