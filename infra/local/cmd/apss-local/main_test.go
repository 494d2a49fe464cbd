package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMisuse(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"frobnicate"}, `no command "frobnicate"`},
		{[]string{"-frobnicate"}, "flag provided but not defined"},
		{[]string{"-json"}, "-json goes with scenario only"},
		{[]string{"scenario", "more"}, `"more" is too much`},
		{[]string{"soak", "-for", "1ms"}, "-for 1ms is less than a second"},
		{[]string{"-bin", "/nowhere"}, "run make build"},
		{[]string{"bench", "-bin", "/nowhere", "-retry-min", "1h", "-pubsub-port", "-1"}, "minimum backoff 1h0m0s"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			var stderr bytes.Buffer
			code := run(t.Context(), tt.args, func(string) string { return "" }, os.Stdout, &stderr)
			if code != misuse || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("got exit code %d and %q, want %d and %q in it", code, &stderr, misuse, tt.want)
			}
			if left, _ := filepath.Glob(tmp + "/*"); len(left) != 0 {
				t.Errorf("got %q left behind", left)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"-h"}, func(string) string { return "" }, os.Stdout, &stderr); code != success {
		t.Errorf("got exit code %d, want %d", code, success)
	}
	for _, want := range []string{"scenario", "bench", "-ack-deadline", "PUBSUB_EMULATOR_HOST", "/etc/passwd"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("got no %q in the help", want)
		}
	}
}
