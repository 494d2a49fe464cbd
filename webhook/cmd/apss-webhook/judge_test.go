package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	kubeversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// judge is the chart's policy as an API server of the oldest version that has such evaluates it.
type judge struct {
	env    *cel.Env
	policy admissionv1.ValidatingAdmissionPolicy
}

// newJudge reads the policy, with these in place of its variables, in JSON.
func newJudge(t *testing.T, parameters map[string]json.RawMessage) *judge {
	t.Helper()
	b, err := os.ReadFile("../../../infra/helm/apss/files/sidecar-policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policy, _, _ := strings.Cut(string(b), "\n---\n")
	j := new(judge)
	if err := yaml.UnmarshalStrict([]byte(policy), &j.policy); err != nil {
		t.Fatal(err)
	}
	for i := range j.policy.Spec.Variables {
		v := &j.policy.Spec.Variables[i]
		if p, ok := parameters[v.Name]; ok {
			v.Expression = string(p)
			delete(parameters, v.Name)
		}
	}
	if len(parameters) > 0 {
		t.Fatalf("the policy has no variables %v", parameters)
	}
	oldest := kubeversion.MajorMinor(1, 30)
	set, err := environment.MustBaseEnvSet(oldest).Extend(environment.VersionedOptions{IntroducedVersion: oldest, EnvOptions: []cel.EnvOption{
		cel.Variable("object", cel.DynType), cel.Variable("oldObject", cel.DynType), cel.Variable("request", cel.DynType),
		cel.Variable("variables", cel.MapType(cel.StringType, cel.DynType)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if j.env, err = set.Env(environment.NewExpressions); err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *judge) evaluate(t *testing.T, expression string, of map[string]any) any {
	t.Helper()
	ast, issues := j.env.Compile(expression)
	if issues.Err() != nil {
		t.Fatalf("%v in %s", issues.Err(), expression)
	}
	program, err := j.env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := program.Eval(of)
	if err != nil {
		t.Fatalf("%v in %s", err, expression)
	}
	return out
}

// judge returns why a pod that is created is refused.
func (j *judge) judge(t *testing.T, pod []byte) error {
	t.Helper()
	var object any
	d := json.NewDecoder(strings.NewReader(string(pod)))
	d.UseNumber()
	if err := d.Decode(&object); err != nil {
		t.Fatal(err)
	}
	variables := map[string]any{}
	of := map[string]any{
		"object": integers(object), "oldObject": nil, "request": map[string]any{"operation": "CREATE"}, "variables": variables,
	}
	for _, m := range j.policy.Spec.MatchConditions {
		if !isTrue(j.evaluate(t, m.Expression, of)) {
			return nil
		}
	}
	for _, v := range j.policy.Spec.Variables {
		variables[v.Name] = j.evaluate(t, v.Expression, of)
	}
	var errs []error
	for _, v := range j.policy.Spec.Validations {
		if !isTrue(j.evaluate(t, v.Expression, of)) {
			errs = append(errs, errors.New(v.Message))
		}
	}
	return errors.Join(errs...)
}

func isTrue(v any) bool {
	b, ok := v.(interface{ Value() any })
	return ok && b.Value() == true
}

// integers makes numbers of JSON what the API server makes of a pod's: all are whole.
func integers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = integers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case json.Number:
		n, _ := v.Int64() // a pod has no others
		return n
	}
	return v
}
