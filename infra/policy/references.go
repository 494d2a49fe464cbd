package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// References returns the references of c, and of the modules that it calls, to what is not there.
func References(c *Config) (faults []string) {
	for _, c := range c.all() {
		for _, b := range c.bodies {
			faults = append(faults, c.unresolved(b, nil)...)
		}
		for _, name := range sortedKeys(c.modules) {
			faults = append(faults, c.wrongInputs(name)...)
		}
	}
	slices.Sort(faults)
	return faults
}

// unresolved walks a body. Names are those that dynamic blocks around it have made.
func (c *Config) unresolved(b *hclsyntax.Body, names []string) (faults []string) {
	for _, name := range sortedKeys(b.Attributes) {
		for _, t := range hclsyntax.Variables(b.Attributes[name].Expr) {
			if why := c.missing(t, names); why != "" {
				faults = append(faults, fmt.Sprintf("%s:%d: %s", t.SourceRange().Filename, t.SourceRange().Start.Line, why))
			}
		}
	}
	for _, inner := range b.Blocks {
		own := names
		if inner.Type == "dynamic" {
			own = append(slices.Clone(names), inner.Labels[0])
		}
		if inner.Type == "required_providers" {
			continue
		}
		faults = append(faults, c.unresolved(inner.Body, own)...)
	}
	return faults
}

// missing says what a reference refers to that is not there.
func (c *Config) missing(t hcl.Traversal, names []string) string {
	step := func(n int) string {
		if n < len(t) {
			if a, ok := t[n].(hcl.TraverseAttr); ok {
				return a.Name
			}
		}
		return ""
	}
	lacks := func(what string, known bool) string {
		if known {
			return ""
		}
		return "there is no " + what
	}
	switch root := t.RootName(); root {
	case "each", "count", "path", "terraform", "self", "string", "number", "bool", "any": // the latter are types
		return ""
	case "var":
		return lacks("variable "+step(1), c.variables[step(1)] != nil)
	case "local":
		return lacks("local "+step(1), c.locals[step(1)] != nil)
	case "module":
		child := c.children[step(1)]
		if child == nil {
			return "there is no module " + step(1)
		}
		return lacks("output "+step(2)+" of module "+step(1), len(t) < 3 || child.outputs[step(2)] != nil)
	case "data":
		return lacks("data source "+step(1)+"."+step(2), c.resources["data."+step(1)+"."+step(2)] != nil)
	default:
		if slices.Contains(names, root) {
			return ""
		}
		return lacks("resource "+root+"."+step(1), c.resources[root+"."+step(1)] != nil)
	}
}

// wrongInputs compares a module's arguments with its variables.
func (c *Config) wrongInputs(name string) (faults []string) {
	given, child := c.modules[name].Body.Attributes, c.children[name]
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if child.variables[key] == nil && !slices.Contains([]string{"source", "count", "for_each", "depends_on", "providers"}, key) {
			faults = append(faults, fmt.Sprintf("%s: module %s has no variable %s", c.dir, name, key))
		}
	}
	for _, key := range sortedKeys(child.variables) {
		if child.variables[key].Body.Attributes["default"] == nil && given[key] == nil {
			faults = append(faults, fmt.Sprintf("%s: module %s is not given its variable %s", c.dir, name, key))
		}
	}
	return faults
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// refersTo reports whether an expression has a reference that begins with address ("google_pubsub_topic.dead").
func refersTo(e hcl.Expression, address string) bool {
	for _, t := range e.Variables() {
		var parts []string
		for _, s := range t {
			switch s := s.(type) {
			case hcl.TraverseRoot:
				parts = append(parts, s.Name)
			case hcl.TraverseAttr:
				parts = append(parts, s.Name)
			}
		}
		if joined := strings.Join(parts, "."); joined == address || strings.HasPrefix(joined, address+".") {
			return true
		}
	}
	return false
}

// attr is the name of a reference's second step.
func attr(t hcl.Traversal) string {
	if len(t) > 1 {
		if a, ok := t[1].(hcl.TraverseAttr); ok {
			return a.Name
		}
	}
	return ""
}
