package dispatch

import (
	"os"
	"strings"
	"testing"
)

// TestDeployedFilters: the filters that Terraform makes of routes are read here as they are in the cloud, and let pass a canary,
// what says nothing of itself, and what is as severe as can be where the routes want it.
func TestDeployedFilters(t *testing.T) {
	text, err := os.ReadFile("../../../policy/testdata/filters.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		way, filter := lines[i], strings.TrimSpace(lines[i+1])
		f, err := ParseFilter(filter)
		if err != nil {
			t.Errorf("%s: %v", way, err)
			continue
		}
		for _, attributes := range []map[string]string{
			{"ce-canary": "2026-11-22T10:00:00Z", "severity": "INFO", "cluster": "dev", "namespace": "dev", "rule": "APSS-CANARY"},
			{},
			{"severity": "CRITICAL", "cluster": "prod-1", "namespace": "shop-eu", "rule": "APSS-001"},
			{"severity": "UNHEARD-OF", "cluster": "prod-1", "namespace": "payments"},
		} {
			if !f.Match(attributes) {
				t.Errorf("%s: %s keeps %v out", way, filter, attributes)
			}
		}
		if low := map[string]string{"severity": "INFO", "cluster": "dev", "namespace": "dev", "rule": "other"}; filter != "" && f.Match(low) {
			t.Errorf("%s: %s lets %v pass", way, filter, low)
		}
	}
}
