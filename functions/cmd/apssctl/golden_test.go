package main

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden fixes what a person reads: the help, and what is said of a report in which nearly nothing is well.
func TestGolden(t *testing.T) {
	answers := map[string]string{"/health": "testdata/health.json", "/health/chat/test": "testdata/test.json"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, answers[r.URL.Path])
	}))
	defer server.Close()
	s := &site{T: t, env: map[string]string{"APSS_URL": server.URL}}
	for name, tt := range map[string]struct {
		args []string
		code int
	}{
		"help": {[]string{"-help"}, exitOK}, "help_replay": {[]string{"dlq", "replay", "-help"}, exitOK},
		"status": {[]string{"status"}, exitUnwell}, "status_json": {[]string{"status", "-json"}, exitUnwell},
		"test": {[]string{"test", "chat"}, exitUnwell},
	} {
		t.Run(name, func(t *testing.T) {
			code, got, stderr := s.run(tt.args...)
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" || code != tt.code || stderr != "" {
				t.Errorf("got exit code %d, want %d; on stderr %q (-want +got):\n%s", code, tt.code, stderr, diff)
			}
		})
	}
}
