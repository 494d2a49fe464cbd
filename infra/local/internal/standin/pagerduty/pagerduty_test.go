package pagerduty

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/infra/local/internal/standin"
)

const key = "0123456789abcdef0123456789ABCDEF"

func enqueue(t *testing.T, s *Server, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v2/enqueue", strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func message(action, dedup, more string) string {
	return `{"routing_key":"` + key + `","event_action":"` + action + `","dedup_key":"` + dedup + `"` + more + `}`
}

func content(summary string) string {
	return `,"payload":{"summary":"` + summary + `","source":"pod","severity":"critical","custom_details":{"seen":"seen 2 times","a":1}}`
}

func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		body   string
		faults standin.Faults
		status int
		answer string // part of it
	}{
		"trigger":            {message("trigger", "a", content("s")), standin.Faults{}, 202, `{"dedup_key":"a","message":"Event processed","status":"success"}`},
		"resolve of nothing": {message("resolve", "a", ""), standin.Faults{}, 202, `"status":"success"`},
		"another key":        {strings.Replace(message("resolve", "a", ""), "0", "1", 1), standin.Faults{}, 400, "Invalid routing key"},
		"no action":          {message("", "a", ""), standin.Faults{}, 400, "event_action"},
		"no payload":         {message("trigger", "a", ""), standin.Faults{}, 400, "payload"},
		"a long summary":     {message("trigger", "a", content(strings.Repeat("x", maxSummary+1))), standin.Faults{}, 400, "payload.summary"},
		"a long dedup key":   {message("trigger", strings.Repeat("x", maxDedup+1), content("s")), standin.Faults{}, 400, "dedup_key"},
		"no severity":        {strings.Replace(message("trigger", "a", content("s")), "critical", "CRITICAL", 1), standin.Faults{}, 400, "payload.severity"},
		"too large":          {message("trigger", "a", content("s")+`,"x":"`+strings.Repeat("x", maxBody)+`"`), standin.Faults{}, 413, "more than 524288 bytes"},
		"no JSON":            {"{", standin.Faults{}, 400, "not valid JSON"},
		"slow down":          {message("trigger", "a", content("s")), standin.Faults{Status: 429}, 429, "throttle exceeded"},
		"fault: refused":     {message("trigger", "a", content("poison")), standin.Faults{Refuse: "poison"}, 400, "contains poison"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(key)
			s.Set(tt.faults)
			status, answer := enqueue(t, s, tt.body)
			if status != tt.status || !strings.Contains(answer, tt.answer) {
				t.Errorf("got %d %s, want %d with %s", status, answer, tt.status, tt.answer)
			}
			if want := map[bool]int{true: 1}[name == "trigger"]; s.Board.Posted() != want {
				t.Errorf("got %d incidents, want %d", s.Board.Posted(), want)
			}
		})
	}
}

// TestIncidents: one for each dedup key while it is open, and a new one after its end.
func TestIncidents(t *testing.T) {
	s := New(key)
	for _, body := range []string{
		message("trigger", "a", content("one")), message("trigger", "a", content("two")), message("trigger", "b", content("other")),
		message("acknowledge", "b", ""), message("resolve", "a", ""), message("resolve", "a", ""), message("trigger", "a", content("three")),
	} {
		if status, answer := enqueue(t, s, body); status != http.StatusAccepted {
			t.Fatalf("got %d %s", status, answer)
		}
	}
	type incident struct {
		Key, Title, State string
		Edits             int
	}
	var got []incident
	for _, m := range s.Board.Messages() {
		got = append(got, incident{m.Key, m.Title, m.State, m.Edits})
	}
	want := []incident{{"a", "two", Resolved, 1}, {"b", "other", Acknowledged, 0}, {"a", "three", Open, 0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if text := s.Board.Messages()[0].Text; text != "two\nSeverity: critical\nSource: pod\na: 1\nseen: seen 2 times" {
		t.Errorf("got the page %q", text)
	}
}

func FuzzTake(f *testing.F) {
	f.Add(message("trigger", "a", content("s")))
	f.Add(message("resolve", "", `,"links":[{}]`))
	f.Fuzz(func(t *testing.T, body string) {
		s := New(key)
		if status, _ := enqueue(t, s, body); status != http.StatusAccepted && s.Board.Posted() > 0 {
			t.Errorf("got %d, and an incident of %q", status, body)
		}
	})
}
