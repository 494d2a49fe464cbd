package policy

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	ctyyaml "github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are those of Terraform's functions that the configuration calls.
func (p *Plan) functions() map[string]function.Function {
	return map[string]function.Function{
		"alltrue":  truth(true),
		"anytrue":  truth(false),
		"can":      tryfunc.CanFunc,
		"coalesce": stdlib.CoalesceFunc,
		"concat":   stdlib.ConcatFunc,
		"contains": stdlib.ContainsFunc,
		"distinct": stdlib.DistinctFunc,
		"fileexists": texts(func(name string) (cty.Value, error) {
			_, err := fs.Stat(p.files, path.Clean(name))
			return cty.BoolVal(err == nil), nil
		}),
		"flatten":      stdlib.FlattenFunc,
		"floor":        stdlib.FloorFunc,
		"index":        index(),
		"join":         stdlib.JoinFunc,
		"jsonencode":   stdlib.JSONEncodeFunc,
		"keys":         stdlib.KeysFunc,
		"length":       length(),
		"lookup":       stdlib.LookupFunc,
		"merge":        stdlib.MergeFunc,
		"range":        stdlib.RangeFunc,
		"regex":        stdlib.RegexFunc,
		"regexall":     stdlib.RegexAllFunc,
		"replace":      stdlib.ReplaceFunc,
		"setproduct":   stdlib.SetProductFunc,
		"setsubtract":  stdlib.SetSubtractFunc,
		"slice":        stdlib.SliceFunc,
		"split":        stdlib.SplitFunc,
		"startswith":   compare(strings.HasPrefix),
		"templatefile": p.templatefile(),
		"timeadd":      stdlib.TimeAddFunc,
		"tobool":       stdlib.MakeToFunc(cty.Bool),
		"tolist":       stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
		"toset":        stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"tostring":     stdlib.MakeToFunc(cty.String),
		"trimprefix":   stdlib.TrimPrefixFunc,
		"try":          tryfunc.TryFunc,
		"values":       stdlib.ValuesFunc,
		"yamldecode":   ctyyaml.YAMLDecodeFunc,
	}
}

// truth is alltrue or anytrue.
func truth(all bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if !args[0].IsWhollyKnown() { // a for expression tries its condition without a value first
				return cty.UnknownVal(cty.Bool), nil
			}
			if !args[0].CanIterateElements() {
				return cty.NilVal, errors.New("want a list")
			}
			for _, v := range args[0].Elements() {
				if v.IsNull() || v.Type() != cty.Bool || v.True() != all {
					return cty.BoolVal(!all), nil
				}
			}
			return cty.BoolVal(all), nil
		},
	})
}

// index is where a value stands in a list.
func index() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.DynamicPseudoType}, {Name: "value", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for i, v := range args[0].Elements() {
				if v.RawEquals(args[1]) {
					return i, nil
				}
			}
			return cty.NilVal, errors.New("it is not in the list")
		},
	})
}

// length is of collections and of texts.
func length() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if args[0].Type() == cty.String {
				return stdlib.Strlen(args[0])
			}
			if !args[0].CanIterateElements() {
				return cty.NilVal, errors.New("want a collection or a text")
			}
			return cty.NumberIntVal(int64(args[0].LengthInt())), nil
		},
	})
}

func texts(f func(string) (cty.Value, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "text", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl:   func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f(args[0].AsString()) },
	})
}

func compare(f func(s, t string) bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "s", Type: cty.String}, {Name: "t", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return cty.BoolVal(f(args[0].AsString(), args[1].AsString())), nil
		},
	})
}

// templatefile is so for a file of the repository.
func (p *Plan) templatefile() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}, {Name: "vars", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			name := path.Clean(args[0].AsString())
			source, err := fs.ReadFile(p.files, name)
			if err != nil {
				return cty.NilVal, err
			}
			template, diags := hclsyntax.ParseTemplate(source, name, hcl.InitialPos)
			if diags.HasErrors() {
				return cty.NilVal, diags
			}
			v, diags := template.Value(&hcl.EvalContext{Variables: args[1].AsValueMap()})
			if diags.HasErrors() {
				return cty.NilVal, diags
			}
			return v, nil
		},
	})
}
