package policy

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/zclconf/go-cty/cty"
)

// example plans an example: the module that it calls, with its arguments.
func example(t *testing.T, name string) *Plan {
	t.Helper()
	files := overlay{os.DirFS(repository), fstest.MapFS{"dist/apss-functions.zip": &fstest.MapFile{}}} // as after make dist
	outer, err := Load(files, terraform+"/examples/"+name)
	if err != nil {
		t.Fatal(err)
	}
	p := outer.Plan(map[string]cty.Value{"project": cty.StringVal("acme-security"), "region": cty.StringVal("europe-west1"),
		"secret_values": cty.MapVal(map[string]cty.Value{"pagerduty": cty.StringVal("hunter2")})})
	inner, err := p.Module("apss")
	if err != nil {
		t.Fatal(err)
	}
	return inner
}

// build builds a program of the functions.
func build(t *testing.T, program string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), program)
	run := exec.CommandContext(t.Context(), "go", "build", "-o", file, "./cmd/"+program)
	run.Dir = repository + "/functions"
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// TestExamples: the functions take the document that Terraform renders from each example, whole, and what each of them gets.
func TestExamples(t *testing.T) {
	apssctl := build(t, "apssctl")
	check := func(t *testing.T, document string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "integrations")
		if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), apssctl, "config", "check", file).CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		first, _, _ := strings.Cut(string(out), "\n") // a remark may follow
		_, said, _ := strings.Cut(first, ": ")
		return said
	}
	tests := []struct{ example, function, want string }{
		{"minimal", "forward", "0 integrations, 0 of them enabled, no fault"},
		{"minimal", "notify", "1 integrations, 1 of them enabled, no fault"},
		{"minimal", "health", "1 integrations, 1 of them enabled, no fault"},
		{"complete", "forward", "2 integrations, 2 of them enabled, no fault"},
		{"complete", "notify", "6 integrations, 5 of them enabled, no fault"},
		{"complete", "health", "6 integrations, 5 of them enabled, no fault"},
	}
	for _, tt := range tests {
		t.Run(tt.example+"/"+tt.function, func(t *testing.T) {
			p := example(t, tt.example)
			if sentences := refusals(t, p); len(sentences) > 0 {
				t.Errorf("the example is refused: %q", sentences)
			}
			environment, err := p.environment()
			if err != nil {
				t.Fatal(err)
			}
			if got := check(t, environment[tt.function]["APSS_INTEGRATIONS"]); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestFilters: what the routes of the complete example become.
func TestFilters(t *testing.T) {
	v, err := example(t, "complete").Value("local.filters")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for way, filter := range v.Elements() {
		out.WriteString(way.AsString() + "\n  " + filter.AsString() + "\n")
	}
	golden(t, "filters.txt", out.String())
}

// TestEnvironment: what each function of the complete example is started with. The test of make dist starts them with it.
func TestEnvironment(t *testing.T) {
	environment, err := example(t, "complete").environment()
	if err != nil {
		t.Fatal(err)
	}
	for function, variables := range environment {
		var out strings.Builder
		for _, name := range sortedKeys(variables) {
			out.WriteString(name + "=" + variables[name] + "\n")
		}
		golden(t, "environment/"+function+".env", out.String())
	}
}

// TestStarts: the functions start with what Terraform gives each of them in each example, and not with a document that has a
// fault. (What make dist makes is started by the test of infra/tools/dist.)
func TestStarts(t *testing.T) {
	program := build(t, "apss-functions")
	for _, name := range []string{"minimal", "complete"} {
		environment, err := example(t, name).environment()
		if err != nil {
			t.Fatal(err)
		}
		for _, function := range sortedKeys(environment) {
			t.Run(name+"/"+function, func(t *testing.T) {
				variables := environment[function]
				if said, ok := start(t, program, variables); !ok {
					t.Errorf("it does not serve:\n%s", said)
				}
				variables["APSS_INTEGRATIONS"] = `[{"kind":"slak"}]`
				if said, ok := start(t, program, variables); ok || !strings.Contains(said, "slak") {
					t.Errorf("with a fault in the document: serves: %t, says %q", ok, said)
				}
			})
		}
	}
}

// start runs a program with these variables until it answers at /healthz or ends, and returns its log and which of the two.
func start(t *testing.T, program string, variables map[string]string) (said string, serves bool) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var log bytes.Buffer
	run := exec.CommandContext(ctx, program)
	run.Stdout, run.Stderr = &log, &log
	run.Env = []string{"PORT=" + port, "PUBSUB_EMULATOR_HOST=127.0.0.1:1", "FIRESTORE_EMULATOR_HOST=127.0.0.1:1"} // nobody is asked for a token
	for _, name := range sortedKeys(variables) {
		run.Env = append(run.Env, name+"="+variables[name])
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = run.Wait(); close(ended) }()
	defer func() { cancel(); <-ended; said = log.String() }()
	for {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := http.DefaultClient.Do(q); err == nil {
			answer.Body.Close()
			return "", answer.StatusCode == http.StatusOK
		}
		select {
		case <-ended:
			return "", false
		case <-time.After(20 * time.Millisecond):
		}
	}
}
