package main

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestFresh fails when a folder was added or removed and the list was not made anew.
func TestFresh(t *testing.T) {
	want, err := generate(os.DirFS("../../integrations"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../kinds.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("kinds.go is stale, run go generate ./internal/registry in functions (-want +got):\n%s", diff)
	}
}

func TestGenerate(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	good := "package slack\nfunc Kind() integration.Kind { return integration.Kind{} }"
	got, err := generate(fstest.MapFS{"slack/slack.go": file(good), "slack/other.go": file("package slack"), "README": file("")})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"github.com/apss-sensor/apss/functions/internal/integrations/slack"`, "slack.Kind(),"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the list does not have %s:\n%s", want, got)
		}
	}
	for name, files := range map[string]fstest.MapFS{
		"nothing":        {"a/a.txt": file("")},
		"a method":       {"a/a.go": file("package a\nfunc (x) Kind() integration.Kind {}")},
		"another result": {"a/a.go": file("package a\nfunc Kind() string {}")},
		"a test's":       {"a/a_test.go": file("package a\nfunc Kind() integration.Kind {}")},
		"no Go":          {"a/a.go": file("pack")},
	} {
		if source, err := generate(files); err == nil {
			t.Errorf("%s: got no error and\n%s", name, source)
		}
	}
}
