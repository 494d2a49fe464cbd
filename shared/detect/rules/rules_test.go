package rules_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/detect/fixture"
	"github.com/apss-sensor/apss/shared/detect/rules"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// compile returns the pack, which has no faults.
func compile(t *testing.T) ([]*detect.Rule, *detect.Set) {
	t.Helper()
	pack, errs := rules.Pack()
	set, more := detect.Compile(pack, detect.Options{})
	for _, err := range append(errs, more...) {
		t.Error(err)
	}
	for _, r := range set.Blind() {
		t.Errorf("%s (%s) can never match: it asks for what no sensor fills", r.ID, r.Title)
	}
	return pack, set
}

// ours are the rules that make alerts, by their id.
var ours = regexp.MustCompile(`^APSS-\d{3}$`)

func TestEveryRuleIsWhole(t *testing.T) {
	pack, _ := compile(t)
	link := func(technique string) string {
		return "https://attack.mitre.org/techniques/" + strings.ReplaceAll(technique, ".", "/") + "/"
	}
	count := 0
	for _, r := range pack {
		if strings.HasPrefix(r.ID, "part-") { // feeds a correlation
			continue
		}
		count++
		fault := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s:%d: %s: "+format, append([]any{r.File, r.Line, r.ID}, args...)...)
		}
		if !ours.MatchString(r.ID) {
			fault("the id is not APSS- and three digits, nor part- of one that feeds a correlation")
		}
		if len(r.Description) < 80 {
			fault("the description %q does not tell what it means and why it matters", r.Description)
		}
		if r.Severity == event.Info {
			fault("it has no level")
		}
		if r.Technique() == "" || r.Tactic() == "" {
			fault("the tags %q have no tactic or no technique of ATT&CK", r.Tags)
		}
		for _, technique := range r.Techniques {
			if !slices.Contains(r.References, link(technique)) {
				fault("the references lack %s", link(technique))
			}
		}
		if len(r.FalsePositives) == 0 {
			fault("it does not say what may make it err")
		}
		if len(r.Actions) < 2 {
			fault("it has %d actions, want two at least", len(r.Actions))
		}
		for _, action := range r.Actions {
			if !strings.HasSuffix(action, ".") {
				fault("the action %q is no sentence", action)
			}
		}
		if len(r.GroupBy) == 0 && r.Kind == detect.Detection {
			fault("it has no grouping fields")
		}
	}
	if count < 60 {
		t.Errorf("got %d rules, want 60 at least", count)
	}
}

// The first version's rules keep their ids and meanings.
func TestFirstRules(t *testing.T) {
	pack, _ := compile(t)
	for _, want := range []struct {
		id       string
		severity event.Severity
		mitre    string
	}{
		{"APSS-001", event.Critical, "T1059.004"},
		{"APSS-002", event.Critical, "T1496"},
		{"APSS-003", event.High, "T1546"},
		{"APSS-004", event.Medium, "T1059"},
		{"APSS-005", event.Medium, "T1048"},
	} {
		i := slices.IndexFunc(pack, func(r *detect.Rule) bool { return r.ID == want.id })
		if i < 0 {
			t.Errorf("%s is not there", want.id)
			continue
		}
		if r := pack[i]; r.Severity != want.severity || r.Technique() != want.mitre {
			t.Errorf("%s: got %s %s, want %s %s", want.id, r.Severity, r.Technique(), want.severity, want.mitre)
		}
	}
}

// These are the techniques that this system is expected to show.
func TestTechniques(t *testing.T) {
	pack, _ := compile(t)
	for want := range strings.FieldsSeq(`T1053.003 T1059.004 T1059.006 T1070.002 T1070.003 T1070.004 T1098.004 T1105 T1136.001
		T1222.002 T1496 T1543.002 T1546.004 T1547.006 T1548.001 T1548.003 T1552.001 T1552.005 T1552.007 T1571 T1574.006
		T1609 T1611 T1613`) {
		if !slices.ContainsFunc(pack, func(r *detect.Rule) bool { return slices.Contains(r.Techniques, want) }) {
			t.Errorf("no rule shows %s", want)
		}
	}
}

func TestFixtures(t *testing.T) {
	pack, set := compile(t)
	matches, misses := map[string]int{}, map[string]int{}
	for _, c := range cases(t, "*.test.yaml") {
		if c.Ordinary != "" {
			t.Errorf("%s:%d: ordinary work belongs in testdata", c.File, c.Line)
		}
		if !slices.ContainsFunc(pack, func(r *detect.Rule) bool { return r.ID == c.Rule }) {
			t.Errorf("%s:%d: there is no rule %s", c.File, c.Line, c.Rule)
			continue
		}
		if c.Miss {
			misses[c.Rule]++
		} else {
			matches[c.Rule]++
		}
		if failure := c.Check(set); failure != nil {
			t.Error(failure)
		}
	}
	for _, r := range pack {
		if ours.MatchString(r.ID) && (matches[r.ID] < 1 || misses[r.ID] < 2) {
			t.Errorf("%s has %d events that must match and %d near misses, want 1 and 2 at least", r.ID, matches[r.ID], misses[r.ID])
		}
	}
}

func TestOrdinaryWork(t *testing.T) {
	_, set := compile(t)
	ordinary := cases(t, "testdata/*.test.yaml")
	if len(ordinary) < 50 {
		t.Errorf("got %d events of ordinary work, want 50 at least", len(ordinary))
	}
	for i, e := range eventtest.Many(20_000, 1) {
		ordinary = append(ordinary, fixture.Case{File: "eventtest.Many", Line: i, Ordinary: "a busy node", Events: []*event.Event{e}})
	}
	for _, c := range ordinary {
		if failure := c.Check(set); failure != nil {
			t.Error(failure)
		}
	}
}

func cases(t *testing.T, pattern string) []fixture.Case {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("got files %v and error %v for %s", names, err, pattern)
	}
	var all []fixture.Case
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		some, err := fixture.Parse(name, data)
		if err != nil {
			t.Error(err)
		}
		all = append(all, some...)
	}
	return all
}
