package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// build makes a small program that has dependencies.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "apss-sample")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", path, "../benchlines")
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestImage(t *testing.T) {
	program := build(t)
	var first, second strings.Builder
	one, two := t.TempDir(), t.TempDir()
	for dir, out := range map[string]*strings.Builder{one: &first, two: &second} {
		if err := run([]string{"-base", "scratch", "-out", dir, "-version", "v1.2.3", program}, out); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() || !strings.HasPrefix(first.String(), "apss-sample sha256:") {
		t.Errorf("got %q and %q, want one digest", &first, &second)
	}
	a, b := content(t, one+"/apss-sample.tar"), content(t, two+"/apss-sample.tar")
	if !bytes.Equal(a, b) {
		t.Error("two archives of one program differ")
	}
	image := load(t, a)
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config; got.User != nonroot || len(got.Entrypoint) != 1 || got.Entrypoint[0] != "/apss-sample" ||
		got.Labels["org.opencontainers.image.version"] != "v1.2.3" {
		t.Errorf("got config %+v", got)
	}
	files := map[string]int64{}
	flat := mutate.Extract(image)
	r := tar.NewReader(flat)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = h.Mode
		if h.Name == "apss-sample" {
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, content(t, program)) {
				t.Errorf("the program in the image differs: %v", err)
			}
		}
	}
	if files["apss-sample"] != 0o755 || files["etc/passwd"] != 0o644 {
		t.Errorf("got files %v", files)
	}
	var bill spdx
	if err := json.Unmarshal(content(t, one+"/apss-sample.spdx.json"), &bill); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, p := range bill.Packages {
		found = found || p.Name == "golang.org/x/perf" && p.Version != ""
	}
	if !found || len(bill.Relationships) != len(bill.Packages) {
		t.Errorf("got SBOM of %d packages, %d relationships, with its dependency: %t", len(bill.Packages), len(bill.Relationships), found)
	}
}

func TestRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing":    {[]string{"-base", "scratch"}, "no programs"},
		"a tag":      {[]string{"-base", "gcr.io/distroless/static:nonroot", text}, "by digest"},
		"missing":    {[]string{"-base", "scratch", text + "-missing"}, "make build"},
		"no program": {[]string{"-base", "scratch", text}, "no Go program"},
	} {
		if err := run(test.args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		}
	}
	dynamic := &program{name: "apss-sample", build: &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "CGO_ENABLED", Value: "1"}}}}
	if _, err := dynamic.on(empty.Image, "v1", time.Unix(0, 0)); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("a program that needs a C library: got %v", err)
	}
}

// The Dockerfile builds on the same base.
func TestDockerfileHasTheBase(t *testing.T) {
	if got := content(t, "../../images/Dockerfile"); !bytes.Contains(got, []byte("FROM "+distroless)) {
		t.Errorf("infra/images/Dockerfile has another base than %s", distroless)
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// load unpacks an archive and returns its image.
func load(t *testing.T, b []byte) v1.Image {
	t.Helper()
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("got %+v, %v, want one image", manifest, err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}
