package policy

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// Documented returns where the README of the root module and its variables, outputs and resources differ.
func Documented(c *Config) (faults []string) {
	text, err := fs.ReadFile(c.files, c.dir+"/README.md")
	if err != nil {
		return []string{err.Error()}
	}
	compare := func(what, pattern string, inCode []string) {
		said := found(regexp.MustCompile(pattern), string(text))
		for _, name := range inCode {
			if !slices.Contains(said, name) {
				faults = append(faults, fmt.Sprintf("README.md does not have the %s %s", what, name))
			}
		}
		for _, name := range said {
			if !slices.Contains(inCode, name) {
				faults = append(faults, fmt.Sprintf("README.md has the %s %s, and the configuration does not", what, name))
			}
		}
	}
	compare("variable", `<a name="input_([a-z_]+)">`, sortedKeys(c.variables))
	compare("output", `<a name="output_([a-z_]+)">`, sortedKeys(c.outputs))
	resources := sortedKeys(c.resources)
	for _, name := range sortedKeys(c.children) {
		for _, address := range sortedKeys(c.children[name].resources) {
			resources = append(resources, "module."+name+"."+address)
		}
	}
	for i, address := range resources {
		resources[i] = strings.TrimPrefix(address, "data.")
	}
	compare("resource", `(?m)^\| ([a-z0-9_.]+) \| (?:resource|data source) \|$`, resources)
	for _, name := range sortedKeys(c.variables) {
		if said, ok := literal(c, name); ok && !strings.Contains(string(text), said) {
			faults = append(faults, "README.md describes the variable "+name+" otherwise")
		}
	}
	return faults
}

// literal is a variable's description on one line.
func literal(c *Config, variable string) (string, bool) {
	said, ok := text(c.variables[variable].Body, "description")
	return strings.Join(strings.Fields(said), " "), ok
}
