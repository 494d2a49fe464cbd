package helm

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
)

// folders are where the programs are.
var folders = map[string]string{
	"apss-agent": "edge/cmd/apss-agent", "apss-relay": "edge/cmd/apss-relay", "apss-webhook": "webhook/cmd/apss-webhook",
}

var aSetting = regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+) `)

// known returns the settings that a program has, as it says itself.
func known(t *testing.T, program string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	build.Dir = filepath.Join("..", "..", folders[program])
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	help, err := exec.CommandContext(t.Context(), path, "-help").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range aSetting.FindAllSubmatch(help, -1) {
		names = append(names, string(m[1]))
	}
	if len(names) < 5 {
		t.Fatalf("%s -help names the settings %q, want more", program, names)
	}
	return names
}

// TestSettings: every variable that the chart sets is a setting of the program that gets it.
func TestSettings(t *testing.T) {
	var settings sync.Map
	everyCI(t, func(t *testing.T, v values) {
		t.Helper()
		for _, p := range mustRender(t, v).pods(t) {
			for _, c := range p.template.Spec.Containers {
				names, ok := settings.Load(c.Name)
				if !ok {
					names = known(t, c.Name)
					settings.Store(c.Name, names)
				}
				seen := map[string]bool{}
				for _, e := range c.Env {
					if seen[e.Name] {
						t.Errorf("%s/%s: %s is set twice", p.name, c.Name, e.Name)
					}
					seen[e.Name] = true
					if !slices.Contains(names.([]string), e.Name) {
						t.Errorf("%s/%s: %s is no setting of it", p.name, c.Name, e.Name)
					}
				}
			}
		}
	})
}
