package dispatch

import (
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/pstest"
)

var attributes = map[string]string{
	"severity": "HIGH", "ce-type": "apss.events.v1", "cluster": "prod-1", "iana.org/language_tag": "en", "empty": "", "q": `a"b\c`,
}

func TestFilter(t *testing.T) {
	tests := []struct {
		filter string
		want   bool
	}{
		{"", true},
		{"  \n", true},
		{`attributes:severity`, true},
		{`attributes:nothing`, false},
		{`attributes:empty`, true},
		{`attributes:"iana.org/language_tag"`, true},
		{`attributes."iana.org/language_tag" = "en"`, true},
		{`attributes.severity = "HIGH"`, true},
		{`attributes.severity="high"`, false},
		{`attributes.ce-type = "apss.events.v1"`, true},
		{`attributes.q = "a\"b\\c"`, true},
		{`attributes.nothing = ""`, false},
		{`attributes.severity != "LOW"`, true},
		{`attributes.severity != "HIGH"`, false},
		{`attributes.nothing != "x"`, true},
		{`hasPrefix(attributes.cluster, "prod-")`, true},
		{`hasPrefix(attributes.cluster, "dev-")`, false},
		{`hasPrefix(attributes.nothing, "")`, false},
		{`NOT attributes:nothing`, true},
		{`-attributes:nothing`, true},
		{`NOT NOT attributes:severity`, true},
		{`attributes:severity AND attributes:cluster AND attributes:q`, true},
		{`attributes:severity AND attributes:nothing`, false},
		{`attributes:nothing OR attributes:no OR attributes:q`, true},
		{`NOT attributes:severity OR attributes:q`, true},
		{`NOT (attributes:severity OR attributes:q)`, false},
		{`attributes:q AND (attributes.severity = "LOW" OR hasPrefix(attributes.cluster, "p"))`, true},
	}
	for _, tt := range tests {
		t.Run(tt.filter, func(t *testing.T) {
			f, err := ParseFilter(tt.filter)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Match(attributes); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestFilterRefused(t *testing.T) {
	for _, filter := range []string{
		`severity = "HIGH"`,
		`data = "x"`,
		`attributes`,
		`attributes:`,
		`attributes.severity`,
		`attributes.severity = HIGH`,
		`attributes.severity = "HIGH`,
		`attributes.severity > "A"`,
		`attributes.severity = "A" attributes:q`,
		`attributes:a AND attributes:b OR attributes:c`,
		`attributes:a AND`,
		`attributes:a and attributes:b`,
		`(attributes:a`,
		`attributes:a)`,
		`hasPrefix(attributes:a, "x")`,
		`hasPrefix(attributes.a)`,
		`NOT`,
		`attributes:` + strings.Repeat("a", 246),
	} {
		if _, err := ParseFilter(filter); err == nil {
			t.Errorf("ParseFilter(%q): got no error", filter)
		}
	}
	if _, err := ParseFilter(`attributes:` + strings.Repeat("a", 245)); err != nil {
		t.Errorf("a filter of 256 bytes: got %v", err)
	}
}

// FuzzFilter: no expression harms the parser, and what it takes, pstest's own parser takes too, where keys are bare: it
// knows no quoted key.
func FuzzFilter(f *testing.F) {
	f.Add(`attributes:a AND (attributes.b = "c" OR hasPrefix(attributes.d, "e"))`)
	f.Add(`NOT attributes.ce-type != "x\"y"`)
	f.Add(`-(-attributes:"k")`)
	f.Fuzz(func(t *testing.T, expression string) {
		filter, err := ParseFilter(expression)
		if err != nil {
			return
		}
		filter.Match(attributes)
		if strings.TrimSpace(expression) == "" || strings.Contains(expression, `."`) || strings.Contains(expression, `. `) {
			return
		}
		if err := pstest.ValidateFilter(expression); err != nil && !strings.ContainsAny(expression, ". \t\r\n\"") {
			t.Errorf("taken here, refused by pstest: %q: %v", expression, err)
		}
	})
}
