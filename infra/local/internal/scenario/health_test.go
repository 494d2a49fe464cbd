package scenario

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestUnwell: whatever GET /health says that it should not say while everything works is found.
func TestUnwell(t *testing.T) {
	const well = `{"status":"healthy","integrations":[
		{"name":"a","status":"healthy","reasons":[],"check":{"ok":true},"last_success":"2026-11-22T10:00:00Z","waiting":0,"waiting_seconds":0,
			"canary":{"events":{"age_seconds":3.5}}},
		{"name":"b","status":"healthy","reasons":[],"check":{"ok":true},"last_success":"2026-11-22T10:00:00Z","waiting":2,"waiting_seconds":1}]}`
	for name, tt := range map[string]struct{ old, new, want string }{
		"as it should be":         {},
		"not all are well":        {`"status":"healthy","integrations"`, `"status":"warning","integrations"`, "all are warning"},
		"what waits is not known": {`"integrations"`, `"waiting_error":"no role","integrations"`, "no role"},
		"one is not well":         {`"name":"a","status":"healthy","reasons":[]`, `"name":"a","status":"failing","reasons":["HTTP 500"]`, "a is failing: HTTP 500"},
		"one is not there":        {`"name":"a"`, `"name":"c"`, "a is not there"},
		"a check that failed":     {`"check":{"ok":true}`, `"check":{"ok":false}`, "a has no check"},
		"no success":              {`"last_success":"2026-11-22T10:00:00Z","waiting":0`, `"waiting":0`, "a has no last success"},
		"no number":               {`"waiting":2`, `"waiting":null`, "what waits for b is not known"},
		"no age":                  {`"waiting_seconds":1`, `"waiting_seconds":null`, "what waits for b is not known"},
		"no canary yet":           {`"age_seconds":3.5`, `"age_seconds":-1`, "the canary of events at a is -1 s old"},
		"an old canary":           {`"age_seconds":3.5`, `"age_seconds":31`, "is 31 s old"},
		"a canary unasked":        {`"waiting_seconds":1`, `"waiting_seconds":1,"canary":{"alerts":{"age_seconds":1}}`, "b has canaries of 1 topics, want 0"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(well, tt.old, tt.new, 1)
			if text == well && tt.old != "" {
				t.Fatalf("the report has no %s", tt.old)
			}
			var r report
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Fatal(err)
			}
			faults := strings.Join(r.unwell(map[string][]string{"a": {"events"}, "b": nil}), "; ")
			if !strings.Contains(faults, tt.want) || (faults == "") != (tt.want == "") {
				t.Errorf("got %q, want %q", faults, tt.want)
			}
		})
	}
}

func TestHasSample(t *testing.T) {
	const metrics = "# HELP apss_canary_age x\napss_canary_age_seconds{integration=\"a\",topic=\"events\"} 3\napss_other{integration=\"b\",topic=\"events\"} 3\n"
	for _, tt := range []struct {
		integration, topic string
		want               bool
	}{{"a", "events", true}, {"a", "alerts", false}, {"b", "events", false}} {
		if got := hasSample([]byte(metrics), "apss_canary_age", `integration="`+tt.integration+`"`, `topic="`+tt.topic+`"`); got != tt.want {
			t.Errorf("%s, %s: got %t, want %t", tt.integration, tt.topic, got, tt.want)
		}
	}
}
