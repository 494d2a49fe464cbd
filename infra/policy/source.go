package policy

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path"
	"reflect"
	"strconv"
	"strings"
)

// The code that is deployed, read as text: modules meet on the wire only.
const (
	program      = "functions/internal/program"
	integrations = "functions/internal/integrations"
)

// packageFiles parses the Go files of a folder, tests left out.
func (c *Config) packageFiles(dir string) ([]*ast.File, error) {
	names, err := fs.Glob(c.files, path.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := fs.ReadFile(c.files, name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// field is a struct's field with a tag.
type field struct{ tag, kind string }

// tagged returns the fields of the structs of files that have the tag key, by the struct's name.
func tagged(files []*ast.File, key string) map[string][]field {
	found := map[string][]field{}
	each(files, func(n ast.Node) {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			return
		}
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			raw, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				continue
			}
			if v := reflect.StructTag(raw).Get(key); v != "" && v != "-" {
				found[spec.Name.Name] = append(found[spec.Name.Name], field{v, types.ExprString(f.Type)})
			}
		}
	})
	return found
}

// methods returns the names of the methods that files declare.
func methods(files []*ast.File) map[string]bool {
	found := map[string]bool{}
	each(files, func(n ast.Node) {
		if f, ok := n.(*ast.FuncDecl); ok && f.Recv != nil {
			found[f.Name.Name] = true
		}
	})
	return found
}

// literals returns every text that files write out.
func literals(files []*ast.File) map[string]bool {
	found := map[string]bool{}
	each(files, func(n ast.Node) {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				found[s] = true
			}
		}
	})
	return found
}

// number returns a constant that is a whole number, times time.Second where it says so; 0 when there is none.
func number(files []*ast.File, name string) (n int64) {
	each(files, func(node ast.Node) {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || spec.Names[0].Name != name || len(spec.Values) != 1 {
			return
		}
		e := spec.Values[0]
		if product, ok := e.(*ast.BinaryExpr); ok && types.ExprString(product.Y) == "time.Second" {
			e = product.X
		}
		if l, ok := e.(*ast.BasicLit); ok {
			n, _ = constant.Int64Val(constant.MakeFromLiteral(l.Value, l.Kind, 0))
		}
	})
	return n
}

func each(files []*ast.File, f func(ast.Node)) {
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			f(n)
			return true
		})
	}
}
