package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
	var out, errs bytes.Buffer
	if code := command([]string{"probe"}, nil, &out, &errs); code != exitOK {
		t.Fatalf("got exit code %d: %s", code, &errs)
	}
	for _, want := range []string{"tier  ", "capabilities  ", "processes in view  ", "  executables  "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant it to have %q", &out, want)
		}
	}
	if err := printProbe(&out, t.TempDir()); err == nil {
		t.Error("got no error where there is no procfs")
	}
}
