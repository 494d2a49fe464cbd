package policy

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"
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
	faults = append(faults, cloudBuild(cloud)...)
	trigger := c.resources["google_cloudbuild_trigger.push"]
	for _, name := range found(substitution, cloud) {
		if trigger == nil || !strings.Contains(c.argument(trigger.Body, "substitutions"), name+" ") {
			faults = append(faults, "cloudbuild.yaml: the trigger gives no "+name)
		}
	}
	slices.Sort(faults)
	return faults
}

// used finds substitutions; $$ is a dollar sign of the step's own (cloud.google.com/build/docs/configuring-builds/substitute-variable-values).
var used = regexp.MustCompile(`(?:^|[^$])\$\{?(_?[A-Z][A-Z0-9_]*)`)

// cloudBuild returns where a build is none by Cloud Build's own messages, waits for a step that does not come before, or uses
// a substitution that nobody gives.
func cloudBuild(text string) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, "cloudbuild.yaml: "+fmt.Sprintf(format, args...))
	}
	json, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		fault("%v", err)
		return faults
	}
	var b cloudbuildpb.Build
	if err := protojson.Unmarshal(json, &b); err != nil {
		fault("%v", err)
		return faults
	}
	var before []string
	for _, s := range b.Steps {
		for _, id := range s.WaitFor {
			if id != "-" && !slices.Contains(before, id) {
				fault("%s waits for %s, which is no step before it", s.Id, id)
			}
		}
		if s.Name == "" || s.Id == "" || slices.Contains(before, s.Id) {
			fault("a step has no name, no id or another's id: %q", s.Id)
		}
		before = append(before, s.Id)
		for _, in := range slices.Concat(s.Args, s.Env) {
			for _, name := range found(used, in) {
				// Of those that a trigger gives by itself this one is used.
				if _, ok := b.Substitutions[name]; !ok && name != "SHORT_SHA" {
					fault("%s uses $%s, which nobody gives; $$ is a dollar sign", s.Id, name)
				}
			}
		}
	}
	return faults
}
