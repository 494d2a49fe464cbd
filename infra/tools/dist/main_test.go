package main

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// TestPack: the same files make the same bytes, whenever and in whatever order they were written.
func TestPack(t *testing.T) {
	packed := func(files fstest.MapFS) string {
		var b bytes.Buffer
		if err := pack(&b, files); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	file := func(text string, at time.Time, mode fs.FileMode) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(text), ModTime: at, Mode: mode}
	}
	one := packed(fstest.MapFS{"b.go": file("package b", time.Unix(1, 0), 0o600), "a/a.go": file("package a", time.Unix(2, 0), 0o644)})
	if other := packed(fstest.MapFS{"a/a.go": file("package a", time.Unix(9, 0), 0o755), "b.go": file("package b", time.Unix(8, 0), 0o644)}); other != one {
		t.Error("times and modes make other bytes")
	}
	if other := packed(fstest.MapFS{"a/a.go": file("package a", time.Unix(9, 0), 0o755), "b.go": file("package c", time.Unix(8, 0), 0o644)}); other == one {
		t.Error("another text makes the same bytes")
	}
}

// TestCopySources: what is only for tests and for people stays out.
func TestCopySources(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"a.go", "a_test.go", "testdata/x.go", "cmd/x/main.go", "internal/cmd/y.go", "internal/rules/pack.yml", ".git/config", "vendor/modules.txt"} {
		if err := os.MkdirAll(filepath.Join(from, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := copySources(from, to); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := fs.WalkDir(os.DirFS(to), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			got = append(got, name)
		}
		return err
	})
	if want := "a.go internal/cmd/y.go internal/rules/pack.yml"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// TestBuild makes the zip twice, builds it as Google's buildpack for Go does, without a network, and starts each function of
// it. It takes minutes of CPU: APSS_DIST_TEST=1 asks for it (make test-dist).
//
// As there (github.com/GoogleCloudPlatform/buildpacks, cmd/go/functions_framework/lib, createMainGoModVendored): the source goes to
// serverless_function_source_code, must have the framework in vendor/ and go.mod, and gets a main at functions.local/app.
func TestBuild(t *testing.T) {
	if os.Getenv("APSS_DIST_TEST") == "" {
		t.Skip("APSS_DIST_TEST=1, or make test-dist, builds the zip and starts the functions: minutes of CPU")
	}
	dir := t.TempDir()
	source, again := filepath.Join(dir, "one.zip"), filepath.Join(dir, "two.zip")
	one, err := dist("../../..", source)
	if err != nil {
		t.Fatal(err)
	}
	two, err := dist("../../..", again)
	if err != nil || one != two {
		t.Errorf("twice the same sources: %s and %s, %v", one, two, err)
	}
	work := filepath.Join(dir, "workspace", "serverless_function_source_code")
	unpack(t, source, work)

	module := "github.com/apss-sensor/apss/functions"
	main := filepath.Join(work, "functions.local", "app")
	if err := os.MkdirAll(main, 0o700); err != nil {
		t.Fatal(err)
	}
	program := fmt.Sprintf(`package main

import (
	"log"
	"os"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	_ %q
)

func main() {
	if err := funcframework.Start(os.Getenv("PORT")); err != nil {
		log.Fatal(err)
	}
}
`, module)
	if err := os.WriteFile(filepath.Join(main, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "function")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "./functions.local/app")
	build.Dir = work
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=vendor", "GOPROXY=off", "GOSUMDB=off", "CGO_ENABLED=0",
		"GOMODCACHE="+filepath.Join(dir, "no-modules"))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building without a network: %v\n%s", err, out)
	}
	for _, function := range []string{"Forward", "Notify", "Health"} {
		t.Run(function, func(t *testing.T) { start(t, binary, function) })
	}
}

func unpack(t *testing.T, source, to string) {
	t.Helper()
	z, err := zip.OpenReader(source)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(to, filepath.FromSlash(f.Name)) //nolint:gosec // our own zip
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// start runs a function as Cloud Run does, with the settings that Terraform gives it, and asks it for something.
func start(t *testing.T, binary, function string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	run := exec.CommandContext(ctx, binary)
	run.Stderr = &log
	run.Env = append(settings(t, strings.ToLower(function)), "PORT="+port, "FUNCTION_TARGET="+function, "K_SERVICE=apss-"+strings.ToLower(function),
		"PUBSUB_EMULATOR_HOST=127.0.0.1:1", "FIRESTORE_EMULATOR_HOST=127.0.0.1:1") // nobody is asked for a token
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = run.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	for deadline := time.Now().Add(30 * time.Second); ; {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(q)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Errorf("got %d at /healthz, want 200", answer.StatusCode)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not serve: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// settings are those of the complete example, as infra/policy has rendered them.
func settings(t *testing.T, function string) (environment []string) {
	t.Helper()
	text, err := os.ReadFile("../../policy/testdata/environment/" + function + ".env")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		environment = append(environment, strings.TrimSuffix(line, "\n"))
	}
	return environment
}
