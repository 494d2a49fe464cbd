package policy

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

var (
	makeTarget   = regexp.MustCompile(`(?m)^([a-z0-9-]+):`)
	makeCall     = regexp.MustCompile(`(?m)(?:run: |^\s+)make ([a-z0-9-]+)$`)
	makeArgs     = regexp.MustCompile(`entrypoint: make\n\s+args: \[([a-z0-9-]+)\]`)
	substitution = regexp.MustCompile(`(?m)^  (_[A-Z]+):`)
	script       = regexp.MustCompile(`infra/build/[a-z]+`)
)

// found returns what pattern's group matches in text.
func found(pattern *regexp.Regexp, text string) []string {
	all := pattern.FindAllStringSubmatch(text, -1)
	words := make([]string, len(all))
	for i, m := range all {
		words[i] = m[1]
	}
	return words
}

// Builds returns what cloudbuild.yaml and the workflow of GitHub Actions refer to that is not there: targets of make, scripts,
// and substitutions that the trigger does not give.
func Builds(c *Config) (faults []string) {
	read := func(name string) string {
		text, err := fs.ReadFile(c.files, name)
		if err != nil {
			faults = append(faults, err.Error())
		}
		return string(text)
	}
	targets := found(makeTarget, read("Makefile"))
	cloud := read("cloudbuild.yaml")
	for name, text := range map[string]string{"cloudbuild.yaml": cloud, ".github/workflows/ci.yml": read(".github/workflows/ci.yml")} {
		calls := slices.Concat(found(makeCall, text), found(makeArgs, text))
		for _, want := range []string{"check", "test", "dist"} {
			if !slices.Contains(calls, want) {
				faults = append(faults, fmt.Sprintf("%s: does not call make %s", name, want))
			}
		}
		for _, call := range calls {
			if !slices.Contains(targets, call) {
				faults = append(faults, fmt.Sprintf("%s: there is no target %s in the Makefile", name, call))
			}
		}
		for _, s := range script.FindAllString(text, -1) {
			if _, err := fs.Stat(c.files, s); err != nil {
				faults = append(faults, fmt.Sprintf("%s: %v", name, err))
			}
		}
	}
	trigger := c.resources["google_cloudbuild_trigger.push"]
	for _, name := range found(substitution, cloud) {
		if trigger == nil || !strings.Contains(c.argument(trigger.Body, "substitutions"), name+" ") {
			faults = append(faults, "cloudbuild.yaml: the trigger gives no "+name)
		}
	}
	slices.Sort(faults)
	return faults
}
