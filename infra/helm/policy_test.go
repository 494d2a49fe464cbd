package helm

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
)

var update = flag.Bool("update", false, "write the golden file")

// TestPolicyParameters: what the policy compares sidecars with is what testdata/policy.golden.json says, beside the settings
// of the webhook that makes them. The webhook's own tests hold the two against each other: it is a module of its own.
func TestPolicyParameters(t *testing.T) {
	type chart struct {
		Webhook    map[string]string          `json:"webhook"`    // its environment
		Parameters map[string]json.RawMessage `json:"parameters"` // of the policy
	}
	got := map[string]chart{}
	everyCI(t, func(t *testing.T, v values) {
		t.Helper()
		c := chart{Webhook: map[string]string{}, Parameters: map[string]json.RawMessage{}}
		for _, o := range mustRender(t, v).objects {
			switch o := typed(t, o).(type) {
			case *appsv1.Deployment:
				if o.Name != "apss-webhook" {
					continue
				}
				for _, e := range o.Spec.Template.Spec.Containers[0].Env {
					if e.ValueFrom != nil && e.Name == "POD_NAMESPACE" {
						e.Value = o.Namespace
					} else if e.ValueFrom != nil {
						e.Value = "one"
					}
					c.Webhook[e.Name] = e.Value
				}
			case *admissionv1.ValidatingAdmissionPolicy:
				for _, v := range o.Spec.Variables {
					if slices.Contains([]string{"images", "env", "audiences", "least"}, v.Name) {
						c.Parameters[v.Name] = json.RawMessage(v.Expression) // of CEL, and JSON
					}
				}
			}
		}
		if (len(c.Webhook) > 0) != (len(c.Parameters) > 0) {
			t.Errorf("got a webhook with %d settings, a policy with %d parameters", len(c.Webhook), len(c.Parameters))
		}
		if len(c.Webhook) > 0 {
			got[t.Name()] = c
		}
	})
	b, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	const golden = "testdata/policy.golden.json"
	if *update {
		if err := os.WriteFile(golden, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("%s is not what the chart renders now: go test -update writes it", golden)
	}
}
