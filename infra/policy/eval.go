package policy

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Plan evaluates a module with given values of its variables. Everything is evaluated when it is asked for, once, as
// Terraform does: a module's output does not need all of its inputs.
type Plan struct {
	*Config
	given func(variable string) (cty.Value, error) // cty.NilVal: not given
	known map[string]cty.Value
	child map[string]*Plan
}

// Plan begins one.
func (c *Config) Plan(variables map[string]cty.Value) *Plan {
	return c.plan(func(name string) (cty.Value, error) { return variables[name], nil })
}

func (c *Config) plan(given func(string) (cty.Value, error)) *Plan {
	return &Plan{Config: c, given: given, known: map[string]cty.Value{}, child: map[string]*Plan{}}
}

// Value evaluates the expression, for instance "local.filters".
func (p *Plan) Value(expression string) (cty.Value, error) {
	e, diags := hclsyntax.ParseExpression([]byte(expression), "expression", hcl.InitialPos)
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return p.value(e, nil)
}

// value evaluates e; local are each and the like.
func (p *Plan) value(e hcl.Expression, local map[string]cty.Value) (cty.Value, error) {
	roots := map[string]map[string]cty.Value{}
	vars := map[string]cty.Value{"path": cty.ObjectVal(map[string]cty.Value{
		"module": cty.StringVal(p.dir), "root": cty.StringVal("."), "cwd": cty.StringVal("."),
	})}
	for _, t := range e.Variables() {
		root, name := t.RootName(), attr(t)
		if _, is := local[root]; is || root == "path" {
			continue
		}
		v, err := p.lookup(root, t)
		if err != nil {
			return cty.NilVal, fmt.Errorf("%s: %w", t.SourceRange(), err)
		}
		if root == "data" { // data.type.name: one object of one data source is enough here
			kind := t[2].(hcl.TraverseAttr).Name //nolint:forcetypeassert // References has looked
			v = cty.ObjectVal(map[string]cty.Value{kind: v})
		}
		if roots[root] == nil {
			roots[root] = map[string]cty.Value{}
		}
		roots[root][name] = v
	}
	for root, values := range roots {
		vars[root] = cty.ObjectVal(values)
	}
	for root, v := range local {
		vars[root] = v
	}
	v, diags := e.Value(&hcl.EvalContext{Variables: vars, Functions: p.functions()})
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return v, nil
}

// lookup returns what stands after the root of a reference.
func (p *Plan) lookup(root string, t hcl.Traversal) (cty.Value, error) {
	name := attr(t)
	switch root {
	case "var":
		return p.once("var."+name, func() (cty.Value, error) { return p.variable(name) })
	case "local":
		a := p.locals[name]
		if a == nil {
			return cty.NilVal, errors.New("there is no local " + name)
		}
		return p.once("local."+name, func() (cty.Value, error) { return p.value(a.Expr, nil) })
	case "module":
		return p.module(name, t)
	case "data":
		address := "data." + name + "." + t[2].(hcl.TraverseAttr).Name //nolint:forcetypeassert // likewise
		return p.once(address, func() (cty.Value, error) { return p.resource(address) })
	default:
		return p.once(root+"."+name, func() (cty.Value, error) { return p.resource(root + "." + name) })
	}
}

func (p *Plan) once(key string, f func() (cty.Value, error)) (cty.Value, error) {
	if v, ok := p.known[key]; ok {
		return v, nil
	}
	v, err := f()
	if err == nil {
		p.known[key] = v
	}
	return v, err
}

// variable is what was given, or the default, as the variable's type says.
func (p *Plan) variable(name string) (cty.Value, error) {
	b := p.variables[name]
	if b == nil {
		return cty.NilVal, errors.New("there is no variable " + name)
	}
	v, err := p.given(name)
	if err != nil {
		return cty.NilVal, err
	}
	if v == cty.NilVal {
		a := b.Body.Attributes["default"]
		if a == nil {
			return cty.NilVal, errors.New("the variable " + name + " is not given")
		}
		if v, err = p.value(a.Expr, nil); err != nil {
			return cty.NilVal, err
		}
	}
	kind := b.Body.Attributes["type"]
	if kind == nil {
		return v, nil
	}
	want, defaults, diags := typeexpr.TypeConstraintWithDefaults(kind.Expr)
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	if defaults != nil && !v.IsNull() {
		v = defaults.Apply(v)
	}
	if v, err = convert.Convert(v, want); err != nil {
		return cty.NilVal, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// Module returns the plan of a module that p calls.
func (p *Plan) Module(name string) (*Plan, error) {
	if p.modules[name] == nil {
		return nil, errors.New("there is no module " + name)
	}
	if p.child[name] == nil {
		call := p.modules[name].Body.Attributes
		p.child[name] = p.children[name].plan(func(variable string) (cty.Value, error) {
			if a := call[variable]; a != nil {
				return p.value(a.Expr, nil)
			}
			return cty.NilVal, nil
		})
	}
	return p.child[name], nil
}

// module evaluates the output of a module that a reference names.
func (p *Plan) module(name string, t hcl.Traversal) (cty.Value, error) {
	child, err := p.Module(name)
	if err != nil {
		return cty.NilVal, err
	}
	// Several references to a module in one expression: its object has all outputs that are asked for so far.
	output := t[2].(hcl.TraverseAttr).Name //nolint:forcetypeassert // likewise
	if _, err := child.once("output."+output, func() (cty.Value, error) {
		return child.value(child.outputs[output].Body.Attributes["value"].Expr, nil)
	}); err != nil {
		return cty.NilVal, err
	}
	outputs := map[string]cty.Value{}
	for key := range child.outputs {
		if v, ok := child.known["output."+key]; ok {
			outputs[key] = v
		}
	}
	return cty.ObjectVal(outputs), nil
}

// resource evaluates the arguments of a resource: an object, of for_each a map of them, of count a list.
func (p *Plan) resource(address string) (cty.Value, error) {
	b := p.resources[address]
	if b == nil {
		return cty.NilVal, errors.New("there is no resource " + address)
	}
	if a := b.Body.Attributes["count"]; a != nil {
		n, err := p.value(a.Expr, nil)
		if err != nil {
			return cty.NilVal, err
		}
		count, _ := n.AsBigFloat().Int64()
		var list []cty.Value
		for i := range count {
			v, err := p.instance(address, b, map[string]cty.Value{"count": cty.ObjectVal(map[string]cty.Value{"index": cty.NumberIntVal(i)})})
			if err != nil {
				return cty.NilVal, err
			}
			list = append(list, v)
		}
		return cty.TupleVal(list), nil
	}
	a := b.Body.Attributes["for_each"]
	if a == nil {
		return p.instance(address, b, nil)
	}
	each, err := p.value(a.Expr, nil)
	if err != nil {
		return cty.NilVal, err
	}
	all := map[string]cty.Value{}
	for key, v := range each.Elements() {
		if each.Type().IsSetType() {
			key = v
		}
		all[key.AsString()], err = p.instance(address, b, map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"key": key, "value": v})})
		if err != nil {
			return cty.NilVal, err
		}
	}
	return cty.ObjectVal(all), nil
}

// instance evaluates the arguments that can be without going round in a circle: those that name the thing. Its inner blocks
// are evaluated by [Plan.Block].
func (p *Plan) instance(address string, b *hclsyntax.Block, local map[string]cty.Value) (cty.Value, error) {
	v := map[string]cty.Value{"id": cty.StringVal(address)}
	for _, name := range []string{"name", "account_id", "project", "dataset_id", "table_id", "secret_id", "topic", "filter"} {
		if a := b.Body.Attributes[name]; a != nil {
			var err error
			if v[name], err = p.value(a.Expr, local); err != nil {
				return cty.NilVal, err
			}
		}
	}
	computed(b.Labels[0], v)
	return cty.ObjectVal(v), nil
}

// computed adds what only Google knows.
func computed(kind string, v map[string]cty.Value) {
	switch kind {
	case "google_project":
		v["number"] = cty.StringVal("123456789012")
	case "google_cloudfunctions2_function":
		uri := cty.StringVal("https://" + v["name"].AsString() + ".example")
		v["service_config"] = cty.TupleVal([]cty.Value{cty.ObjectVal(map[string]cty.Value{"uri": uri})})
	case "google_service_account":
		email := v["account_id"].AsString() + "@" + v["project"].AsString() + ".iam.gserviceaccount.com"
		v["email"], v["member"] = cty.StringVal(email), cty.StringVal("serviceAccount:"+email)
	}
}
