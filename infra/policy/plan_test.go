package policy

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// module is one in a plan, and resource what is looked at of its resources.
type (
	module struct {
		Resources []resource
		Children  []module `json:"child_modules"`
	}
	resource struct {
		Address, Type string
		Index         any
		Values        values
	}
	values struct {
		Filter  string
		Service service `json:"service_config"`
	}
	service []struct {
		Environment map[string]string `json:"environment_variables"`
	}
)

// UnmarshalJSON takes a function's: other resources have other things under that name.
func (s *service) UnmarshalJSON(text []byte) error {
	type plain service
	if json.Unmarshal(text, (*plain)(s)) != nil {
		*s = nil
	}
	return nil
}

func (m *module) walk(f func(resource)) {
	for _, r := range m.Resources {
		f(r)
	}
	for i := range m.Children {
		m.Children[i].walk(f)
	}
}

// TestPlan: what is evaluated here is what terraform plans of the complete example. infra/terraform/check has the plan.
func TestPlan(t *testing.T) {
	file := os.Getenv("APSS_TERRAFORM_PLAN")
	if file == "" {
		t.Skip("APSS_TERRAFORM_PLAN names no plan (terraform show -json); make test-terraform makes one")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var plan struct {
		Planned struct {
			Root module `json:"root_module"`
		} `json:"planned_values"`
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		t.Fatal(err)
	}
	environment, filters := map[string]map[string]string{}, map[string]string{}
	plan.Planned.Root.walk(func(r resource) {
		key, _ := r.Index.(string) // of count it is a number
		switch {
		case r.Type == "google_cloudfunctions2_function":
			environment[key] = r.Values.Service[0].Environment
		case strings.Contains(r.Address, "google_pubsub_subscription.way["):
			filters[key] = r.Values.Filter
		}
	})

	p := example(t, "complete")
	want, err := p.environment()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(environment, want); diff != "" {
		t.Errorf("environment (-terraform +here):\n%s", diff)
	}
	v, err := p.Value("local.filters")
	if err != nil {
		t.Fatal(err)
	}
	here := map[string]string{}
	for way, filter := range v.Elements() {
		here[way.AsString()] = filter.AsString()
	}
	if diff := cmp.Diff(filters, here); diff != "" {
		t.Errorf("filters (-terraform +here):\n%s", diff)
	}
}
