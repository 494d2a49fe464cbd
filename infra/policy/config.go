package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Config is a module: the .tf files of one folder.
type Config struct {
	dir       string
	files     fs.FS
	bodies    []*hclsyntax.Body
	resources map[string]*hclsyntax.Block // by "type.name"; those of data sources by "data.type.name"
	variables map[string]*hclsyntax.Block
	outputs   map[string]*hclsyntax.Block
	locals    map[string]*hclsyntax.Attribute
	modules   map[string]*hclsyntax.Block
	children  map[string]*Config // of modules
}

// Load parses the module in dir, with the modules that it calls by a relative path.
func Load(files fs.FS, dir string) (*Config, error) {
	c := &Config{
		dir: dir, files: files,
		resources: map[string]*hclsyntax.Block{}, variables: map[string]*hclsyntax.Block{}, outputs: map[string]*hclsyntax.Block{},
		locals: map[string]*hclsyntax.Attribute{}, modules: map[string]*hclsyntax.Block{}, children: map[string]*Config{},
	}
	names, err := fs.Glob(files, path.Join(dir, "*.tf"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("no configuration in %s (%w)", dir, err)
	}
	for _, name := range names {
		body, err := parse(files, name)
		if err != nil {
			return nil, err
		}
		c.bodies = append(c.bodies, body)
		for _, b := range body.Blocks {
			c.note(b)
		}
	}
	for name, b := range c.modules {
		source, ok := text(b.Body, "source")
		if !ok || !strings.HasPrefix(source, ".") {
			return nil, fmt.Errorf("%s: module %s has no relative source", dir, name)
		}
		if c.children[name], err = Load(files, path.Join(dir, source)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func parse(files fs.FS, name string) (*hclsyntax.Body, error) {
	source, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, err
	}
	file, diags := hclsyntax.ParseConfig(source, name, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		return nil, errors.New(name + " is no HCL")
	}
	return body, nil
}

func (c *Config) note(b *hclsyntax.Block) {
	switch b.Type {
	case "resource":
		c.resources[strings.Join(b.Labels, ".")] = b
	case "data":
		c.resources["data."+strings.Join(b.Labels, ".")] = b
	case "variable":
		c.variables[b.Labels[0]] = b
	case "output":
		c.outputs[b.Labels[0]] = b
	case "module":
		c.modules[b.Labels[0]] = b
	case "locals":
		for name, a := range b.Body.Attributes {
			c.locals[name] = a
		}
	}
}

// all returns c and the modules below it.
func (c *Config) all() []*Config {
	configs := []*Config{c}
	for _, name := range sortedKeys(c.children) {
		configs = append(configs, c.children[name].all()...)
	}
	return configs
}

// of returns the addresses of the resources of which the type is one of types, in order.
func (c *Config) of(types ...string) []string {
	var found []string
	for _, address := range sortedKeys(c.resources) {
		if kind, _, _ := strings.Cut(address, "."); slices.Contains(types, kind) {
			found = append(found, address)
		}
	}
	return found
}

// source returns the text of an expression on one line.
func (c *Config) source(e hcl.Expression) string {
	r := e.Range()
	all, err := fs.ReadFile(c.files, r.Filename)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(r.SliceBytes(all))), " ")
}

// argument returns the text of a block's attribute; empty when it has none.
func (c *Config) argument(b *hclsyntax.Body, name string) string {
	if a := b.Attributes[name]; a != nil {
		return c.source(a.Expr)
	}
	return ""
}

// text returns a block's attribute when it is a literal text.
func text(b *hclsyntax.Body, name string) (string, bool) {
	a := b.Attributes[name]
	if a == nil {
		return "", false
	}
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() || v.IsNull() || v.Type().FriendlyName() != "string" {
		return "", false
	}
	return v.AsString(), true
}

// block returns the first inner block of a type; nil when there is none.
func block(b *hclsyntax.Body, kind string) *hclsyntax.Body {
	for _, inner := range b.Blocks {
		if inner.Type == kind {
			return inner.Body
		}
	}
	return nil
}
