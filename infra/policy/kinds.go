package policy

import (
	"fmt"
	"go/ast"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// localOnly are keys of stand-ins and of plain HTTP, for a developer's machine.
func localOnly() []string { return []string{"api_url", "allow_http"} }

// Kinds returns where the table of kinds and the code's integrations differ, with the keys that all have, the severities and
// the types of events.
func Kinds(c *Config) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	p := c.Plan(minimal())
	table, err := p.Value("local.kinds")
	if err != nil {
		return []string{err.Error()}
	}
	kinds := table.AsValueMap()
	folders, err := fs.ReadDir(c.files, integrations)
	if err != nil {
		return []string{err.Error()}
	}
	var inCode []string
	for _, folder := range folders {
		kind := folder.Name()
		inCode = append(inCode, kind)
		own, ok := kinds[kind]
		if !ok {
			fault("%s cannot be enabled", kind)
			continue
		}
		files, err := c.packageFiles(integrations + "/" + kind)
		if err != nil {
			fault("%s: %v", kind, err)
			continue
		}
		faults = append(faults, compareKind(kind, own.AsValueMap(), files)...)
	}
	for _, kind := range sortedKeys(kinds) {
		if !slices.Contains(inCode, kind) {
			fault("%s is no integration of the code", kind)
		}
	}
	return append(faults, c.compareWords(p)...)
}

// compareKind compares one with its settings and methods.
func compareKind(kind string, own map[string]cty.Value, files []*ast.File) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(kind+": "+format, args...)) }
	keys, secrets := stringsOf(own["keys"]), stringsOf(own["secrets"])
	var inCode []string
	for _, f := range fieldsOfAll(tagged(files, "yaml")) {
		key, _, _ := strings.Cut(f.tag, ",")
		inCode = append(inCode, key)
		if slices.Contains(localOnly(), key) {
			continue
		}
		if !slices.Contains(keys, key) {
			fault("the key %s is not in kinds.tf", key)
		}
		if secret := f.kind == "integration.Secret"; secret != slices.Contains(secrets, key) {
			fault("%s is a secret in one of code and kinds.tf only", key)
		}
	}
	for _, key := range append(keys, stringsOf(own["required"])...) {
		if !slices.Contains(inCode, key) {
			fault("there is no key %s in the code", key)
		}
	}
	takes, says := methods(files)["SendEvents"], own["events"].True() || slices.Contains(keys, "events")
	if takes != says {
		fault("takes events: %t in the code, %t in kinds.tf", takes, says)
	}
	return faults
}

// compareWords compares the keys of every instance, the severities and the types of events.
func (c *Config) compareWords(p *Plan) (faults []string) {
	compare := func(what string, code []string) {
		v, err := p.Value(what)
		if err != nil {
			faults = append(faults, err.Error())
			return
		}
		got := stringsOf(v)
		slices.Sort(got)
		slices.Sort(code)
		if !slices.Equal(got, code) {
			faults = append(faults, fmt.Sprintf("%s is %v, and in the code %v", what, got, code))
		}
	}
	files, err := c.packageFiles("functions/internal/integration")
	if err != nil {
		return []string{err.Error()}
	}
	keys := map[string][]string{}
	for name, fields := range tagged(files, "yaml") {
		for _, f := range fields {
			keys[name] = append(keys[name], f.tag)
		}
	}
	compare("local.common_keys", keys["Instance"])
	compare("local.inner_keys.route", keys["Route"])
	compare("local.inner_keys.rate", keys["Rate"])
	compare("local.inner_keys.group", keys["Group"])

	events, err := c.packageFiles("shared/event")
	if err != nil {
		return []string{err.Error()}
	}
	said := literals(events)
	words := func(pattern string, but ...string) (found []string) {
		for word := range said {
			if regexp.MustCompile(pattern).MatchString(word) && !slices.Contains(but, word) {
				found = append(found, word)
			}
		}
		return found
	}
	compare("local.severities", words("^(INFO|LOW|MEDIUM|HIGH|CRITICAL)$"))
	compare("local.event_types", constants(events, "Type"))
	return faults
}

// constants returns the texts of the constants of a type.
func constants(files []*ast.File, kind string) (found []string) {
	each(files, func(n ast.Node) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil {
			return
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != kind {
			return
		}
		for _, v := range spec.Values {
			if l, ok := v.(*ast.BasicLit); ok {
				found = append(found, strings.Trim(l.Value, `"`))
			}
		}
	})
	return found
}

func fieldsOfAll(structs map[string][]field) (all []field) {
	for _, name := range sortedKeys(structs) {
		all = append(all, structs[name]...)
	}
	return all
}

func stringsOf(v cty.Value) (all []string) {
	if v == cty.NilVal || v.IsNull() {
		return nil
	}
	for _, e := range v.Elements() {
		all = append(all, e.AsString())
	}
	return all
}
