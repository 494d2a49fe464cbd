// Package rules is the rule pack that comes with the agent: Sigma rules about what intruders do in containers and on
// nodes, written for what our sensors see.
//
// A file holds the rules of one tactic of ATT&CK or of one target; beside it stand their fixtures (see package fixture)
// under the same name with .test.yaml. To add a rule, write it and its fixtures: the tests say what is missing, and
// `go test ./shared/detect/rules -update` writes docs/rules.md.
//
// Promises: an id never changes its meaning. Every rule has its technique, what to do about an alert, what may make it
// err, and grouping fields. Ordinary work (testdata, docs/rule-noise.md) raises no alert that is HIGH or CRITICAL.
package rules

import (
	"embed"

	"github.com/apss-sensor/apss/shared/detect"
)

//go:embed *.yml
var files embed.FS

// Pack returns the rules, in the order of the files' names. A test holds that there are no errors.
func Pack() ([]*detect.Rule, []*detect.Error) {
	var pack []*detect.Rule
	var errs []*detect.Error
	entries, _ := files.ReadDir(".") // embedded: neither can fail
	for _, entry := range entries {
		data, _ := files.ReadFile(entry.Name())
		rules, faults := detect.Parse(entry.Name(), data)
		pack, errs = append(pack, rules...), append(errs, faults...)
	}
	return pack, errs
}
