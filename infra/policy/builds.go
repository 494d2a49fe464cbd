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
	var targets []string
	for _, m := range makeTarget.FindAllStringSubmatch(read("Makefile"), -1) {
		targets = append(targets, m[1])
	}
	cloud := read("cloudbuild.yaml")
	for name, text := range map[string]string{"cloudbuild.yaml": cloud, ".github/workflows/ci.yml": read(".github/workflows/ci.yml")} {
		calls := append(makeCall.FindAllStringSubmatch(text, -1), makeArgs.FindAllStringSubmatch(text, -1)...)
		for _, want := range []string{"check", "test", "dist"} {
			if !slices.ContainsFunc(calls, func(m []string) bool { return m[1] == want }) {
				faults = append(faults, fmt.Sprintf("%s: does not call make %s", name, want))
			}
		}
		for _, m := range calls {
			if !slices.Contains(targets, m[1]) {
				faults = append(faults, fmt.Sprintf("%s: there is no target %s in the Makefile", name, m[1]))
			}
		}
		for _, s := range script.FindAllString(text, -1) {
			if _, err := fs.Stat(c.files, s); err != nil {
				faults = append(faults, fmt.Sprintf("%s: %v", name, err))
			}
		}
	}
	trigger := c.resources["google_cloudbuild_trigger.push"]
	for _, m := range substitution.FindAllStringSubmatch(cloud, -1) {
		if trigger == nil || !strings.Contains(c.argument(trigger.Body, "substitutions"), m[1]+" ") {
			faults = append(faults, "cloudbuild.yaml: the trigger gives no "+m[1])
		}
	}
	slices.Sort(faults)
	return faults
}
