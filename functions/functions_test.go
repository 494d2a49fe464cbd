package functions

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/apss-sensor/apss/functions/internal/program"
)

func TestEntries(t *testing.T) {
	t.Setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
	good := []string{"PUBSUB_PROJECT_ID=p", "SWEET_SECURITY_API_KEY=k", "SWEET_SECURITY_ENDPOINT=https://sweet.example"}
	tests := []struct {
		name   string
		f      program.Function
		env    []string
		path   string
		status int
	}{
		{"wrong settings", program.Forward, nil, "/events/sweetsecurity", 500},
		{"no push", program.Forward, good, "/events/sweetsecurity", 400},
		{"no integration", program.Forward, good, "/events/slack", 404},
		{"another's path", program.Forward, good, "/alerts/sweetsecurity", 404},
		{"nobody guards it", program.Health, good, "/health/sweetsecurity/test", 403},
		{"brought again", program.Health, good, "/events/sweetsecurity", 400},
		{"another's path", program.Notify, good, "/events/sweetsecurity", 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			built := 0
			h := entry(tt.f, func() []string { built++; return tt.env }, false)
			for range 2 {
				w := httptest.NewRecorder()
				h(w, httptest.NewRequest(http.MethodPost, tt.path, http.NoBody))
				if w.Code != tt.status {
					t.Errorf("got %d, want %d", w.Code, tt.status)
				}
			}
			if built != 1 {
				t.Errorf("the program was built %d times, want once", built)
			}
		})
	}
}
