package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestUses(t *testing.T) {
	for _, tt := range []struct {
		args, environ []string
		code          int
		out, err      string
	}{
		{args: []string{"-version"}, out: "dev\n"},
		{args: []string{"-help"}, out: "FORWARD_LINGER"},
		{args: []string{"-h"}, out: "[50ms]"},
		{args: []string{"serve"}, code: exitUsage, err: `no such use: ["serve"]; see apss-functions -help`},
		{environ: []string{"FORWARD_LINGER=2s"}, code: exitUsage, err: "PUBSUB_PROJECT_ID: is required and not set"},
	} {
		var out, errs bytes.Buffer
		if code := command(tt.args, tt.environ, &out, &errs); code != tt.code || !strings.Contains(out.String(), tt.out) || !strings.Contains(errs.String(), tt.err) {
			t.Errorf("%q: got %d, stdout %q, stderr %q", tt.args, code, &out, &errs)
		}
	}
}
