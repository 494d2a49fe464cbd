package registry

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/secret"
)

// TestKinds: names are different, settings are new ones each time, and no key of theirs is one of every instance.
func TestKinds(t *testing.T) {
	common := keys(reflect.TypeFor[integration.Instance]())
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if k.Name == "" || seen[k.Name] {
			t.Errorf("kind %q stands twice, or has no name", k.Name)
		}
		seen[k.Name] = true
		one, other := k.Settings(), k.Settings()
		if v := reflect.ValueOf(one); v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || v.Pointer() == reflect.ValueOf(other).Pointer() {
			t.Errorf("%s: settings are no pointer to a new struct", k.Name)
			continue
		}
		own := keys(reflect.TypeOf(one).Elem())
		if len(own) == 0 {
			t.Errorf("%s: settings have no keys", k.Name)
		}
		for key := range own {
			if common[key] {
				t.Errorf("%s: the key %s is one of every instance", k.Name, key)
			}
		}
	}
}

func keys(t reflect.Type) map[string]bool {
	out := map[string]bool{}
	for f := range t.Fields() {
		if key, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); key != "" && key != "-" {
			out[key] = true
		}
	}
	return out
}

// TestExamples: the documents that docs/integrations.md shows are read without a fault, and each kind that needs more than
// a line is in one.
func TestExamples(t *testing.T) {
	page, err := os.ReadFile("../../../docs/integrations.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for i, block := range strings.Split(string(page), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		got, err := integration.Document{
			Kinds:   Kinds(),
			Schemes: secret.Schemes{"secret": func(string) (secret.Source, error) { return secret.Parse("env://NOT_READ") }},
		}.Read(t.Context(), []byte(text))
		if err != nil || len(got) == 0 {
			t.Errorf("example %d: got %d instances, %v", i+1, len(got), err)
		}
		for _, in := range got {
			shown[in.Kind] = true
		}
	}
	for _, kind := range []string{"sweetsecurity", "webhook", "email"} {
		if !shown[kind] {
			t.Errorf("there is no example of kind %s", kind)
		}
	}
}
