package helm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
)

// TestBuiltChart: the chart that a build packs knows where its images are and which, and says so of no other value.
func TestBuiltChart(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "infra"), filepath.Join(work, "infra")); err != nil {
		t.Fatal(err)
	}
	file := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for component, d := range map[string]string{"agent": "a", "relay": "b", "webhook": "c"} {
		file("dist/digests/apss-"+component, digest(d)+"\n", 0o600)
	}
	// In the place of helm: what is to be packed, as it is.
	file("helm", "#!/bin/sh\n[ \"$1 $3\" = 'package --version' ] && cp -R \"$2\" dist/chart\n", 0o700)
	run := exec.CommandContext(t.Context(), "infra/build/chart", "0.0.0-1a2b3c4")
	run.Dir = work
	run.Env = append(os.Environ(), "REGISTRY=europe-west1-docker.pkg.dev/acme/apss", "HELM="+filepath.Join(work, "helm"))
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	built, err := loader.Load(filepath.Join(work, "dist", "chart"))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := loader.Load("apss")
	if err != nil {
		t.Fatal(err)
	}
	images := func(v values) values { return v["images"].(values) } //nolint:forcetypeassert // the schema says so
	want := values{"agent": digest("a"), "relay": digest("b"), "webhook": digest("c")}
	for component, d := range want {
		if got := images(built.Values)["digests"].(values)[component]; got != d { //nolint:forcetypeassert // likewise
			t.Errorf("%s: got %q, want %q", component, got, d)
		}
	}
	if got := images(built.Values)["registry"]; got != "europe-west1-docker.pkg.dev/acme/apss" {
		t.Errorf("got registry %q, want that of the build", got)
	}
	// The rest is the chart's own, comments and all.
	lines := func(name string) []string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(text), "\n")
	}
	changed := 0
	now := lines(filepath.Join(work, "dist", "chart", "values.yaml"))
	for i, line := range lines("apss/values.yaml") {
		if now[i] != line {
			changed++
		}
	}
	if changed != 4 || len(built.Templates) != len(ours.Templates) {
		t.Errorf("got %d changed lines and %d templates, want 4 and %d", changed, len(built.Templates), len(ours.Templates))
	}
}
