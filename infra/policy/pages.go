package policy

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"sigs.k8s.io/yaml"
)

// What pages tell people to type.
var (
	pageLink      = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	pageCode      = regexp.MustCompile("(?m)^    (.*)$|`([^`\n]+)`")
	pageHCL       = regexp.MustCompile("(?s)```hcl\n(.*?)```")
	pageVariable  = regexp.MustCompile(`-var[ =]'?([a-z_]+)=`)
	pageOutput    = regexp.MustCompile(`terraform output (?:-[a-z]+ )?([a-z_]+)`)
	pageValue     = regexp.MustCompile(`--set(?:-string|-file)? '?([A-Za-z][\w.\\\[\]/-]*)=`)
	pageApssctl   = regexp.MustCompile(`(?:^|[\s/(])apssctl ((?:dlq|config) [a-z]+|[a-z]+)((?: [^|;&#]*)?)`)
	pageFlag      = regexp.MustCompile(`(?:^|\s)-([a-z][a-z-]*)`)
	pageMake      = regexp.MustCompile(`(?:^|\s)make ([a-z0-9-]+)`)
	apssctlFlag   = regexp.MustCompile(`\b(?:f|flags)\.\w+\((?:&[\w.]+, )?"([a-z-]+)"`)
	apssctlUsage  = regexp.MustCompile(`(?m)^  apssctl (-?[a-z]+(?: [a-z]+)?)\b`)
	valuesIndexed = regexp.MustCompile(`\[\d+\]$`)
)

// tools are what the pages' commands may name.
type tools struct {
	variables, outputs, uses, flags, targets []string
	arguments                                []string // of the module
	values                                   map[string]any
}

// Pages returns what README.md and docs tell people to type that is not there: variables, outputs, values of the chart, uses
// and flags of apssctl, targets of make, arguments of the module, and links to no file.
func Pages(c *Config) (faults []string) {
	names, err := fs.Glob(c.files, "docs/*.md")
	if err != nil {
		return []string{err.Error()}
	}
	t, err := c.tools()
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range append(names, "README.md", c.dir+"/README.md") {
		text, err := c.read(name)
		if err != nil {
			faults = append(faults, err.Error())
			continue
		}
		for _, link := range found(pageLink, text) {
			if _, err := fs.Stat(c.files, path.Join(path.Dir(name), link)); err != nil {
				faults = append(faults, fmt.Sprintf("%s: there is no %s", name, link))
			}
		}
		for _, why := range append(t.wrong(text), t.wrongArguments(text)...) {
			faults = append(faults, name+": "+why)
		}
	}
	return append(faults, c.rolesTold()...)
}

var role = regexp.MustCompile(`"?\b(roles/[A-Za-z0-9.]+)`)

// rolesTold returns the roles that are granted and not in docs/identities.md, and those that are there and not granted.
func (c *Config) rolesTold() (faults []string) {
	text, err := c.read("docs/identities.md")
	if err != nil {
		return []string{err.Error()}
	}
	told, granted := found(role, text), found(role, Grants(c))
	for _, r := range told {
		if !slices.Contains(granted, r) && r != "roles/owner" { // of who applies
			faults = append(faults, "docs/identities.md: nobody is granted "+r)
		}
	}
	for _, r := range granted {
		if !slices.Contains(told, r) {
			faults = append(faults, "docs/identities.md does not tell of "+r)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(faults)))
}

func (c *Config) tools() (*tools, error) {
	t := &tools{arguments: append(sortedKeys(c.variables), "source")}
	for _, example := range []string{"minimal", "complete"} {
		e, err := Load(c.files, c.dir+"/examples/"+example)
		if err != nil {
			return nil, err
		}
		t.variables = append(t.variables, sortedKeys(e.variables)...)
		t.outputs = append(t.outputs, sortedKeys(e.outputs)...)
	}
	for _, file := range []struct {
		name    string
		pattern *regexp.Regexp
		into    *[]string
	}{
		{"functions/cmd/apssctl/main.go", apssctlUsage, &t.uses}, {"functions/cmd/apssctl/dlq.go", apssctlFlag, &t.flags},
		{"functions/cmd/apssctl/status.go", apssctlFlag, &t.flags}, {"functions/cmd/apssctl/config.go", apssctlFlag, &t.flags},
		{"functions/cmd/apssctl/cost.go", apssctlFlag, &t.flags}, {"Makefile", makeTarget, &t.targets},
	} {
		text, err := c.read(file.name)
		if err != nil {
			return nil, err
		}
		*file.into = append(*file.into, found(file.pattern, text)...)
	}
	text, err := c.read("infra/helm/apss/values.yaml")
	if err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal([]byte(text), &t.values); err != nil {
		return nil, fmt.Errorf("infra/helm/apss/values.yaml: %w", err)
	}
	t.flags = append(t.flags, "help", "version")
	return t, nil
}

// wrong looks at the code of a page.
func (t *tools) wrong(page string) (faults []string) {
	for _, m := range pageCode.FindAllStringSubmatch(page, -1) {
		line := m[1] + m[2]
		for _, name := range found(pageVariable, line) {
			if !slices.Contains(t.variables, name) {
				faults = append(faults, "no example has a variable "+name)
			}
		}
		for _, name := range found(pageOutput, line) {
			if !slices.Contains(t.outputs, name) {
				faults = append(faults, "no example has an output "+name)
			}
		}
		for _, key := range found(pageValue, line) {
			if !t.value(key) {
				faults = append(faults, "the chart has no value "+key)
			}
		}
		for _, name := range found(pageMake, m[1]) {
			if !slices.Contains(t.targets, name) {
				faults = append(faults, "there is no target "+name+" in the Makefile")
			}
		}
		for _, use := range pageApssctl.FindAllStringSubmatch(line, -1) {
			if !slices.Contains(t.uses, use[1]) {
				faults = append(faults, "there is no use apssctl "+use[1])
			}
			for _, flag := range found(pageFlag, use[2]) {
				if !slices.Contains(t.flags, flag) {
					faults = append(faults, fmt.Sprintf("apssctl %s has no flag -%s", use[1], flag))
				}
			}
		}
	}
	return faults
}

// value reports whether the chart has a value; what is below an empty map is the user's own.
func (t *tools) value(key string) bool {
	var at any = t.values
	for part := range strings.SplitSeq(strings.ReplaceAll(key, `\.`, "\x00"), ".") {
		m, ok := at.(map[string]any)
		if !ok {
			return false
		}
		if len(m) == 0 {
			return true
		}
		if at, ok = m[valuesIndexed.ReplaceAllString(part, "")]; !ok {
			return false
		}
	}
	return true
}

// wrongArguments parses a page's HCL: it must be whole, and give the module what it has.
func (t *tools) wrongArguments(page string) (faults []string) {
	for _, source := range found(pageHCL, page) {
		file, diags := hclsyntax.ParseConfig([]byte(source), "page", hcl.InitialPos)
		if diags.HasErrors() {
			faults = append(faults, diags.Error())
			continue
		}
		for _, b := range file.Body.(*hclsyntax.Body).Blocks { //nolint:forcetypeassert // of ParseConfig it is one
			for _, name := range sortedKeys(b.Body.Attributes) {
				if b.Type == "module" && !slices.Contains(t.arguments, name) {
					faults = append(faults, "the module has no variable "+name)
				}
			}
		}
	}
	return faults
}
