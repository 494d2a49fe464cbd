package rules_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/detect"
)

var update = flag.Bool("update", false, "write docs/rules.md")

// docs is where the page of the pack stands, which `go test ./shared/detect/rules -update` writes.
const docs = "../../../docs/rules.md"

const head = `# The rules that come with APSS

Sigma rules in [shared/detect/rules](../shared/detect/rules), one file for each tactic or target, their fixtures beside
them. [rule-noise.md](rule-noise.md) says what they do on machines that do ordinary work. ` + "`apss-rules explain ID`" + `
tells what a rule needs and what an alert of it asks you to do; ` + "`apss-rules list`" + ` prints this table.

Rules about files see what WATCH_PATHS names. Those that name containers or pods match events that say where they are.

%d rules: %s.

| id | level | technique | about | title |
|---|---|---|---|---|
`

func TestDocs(t *testing.T) {
	pack, _ := compile(t)
	pack = slices.DeleteFunc(pack, func(r *detect.Rule) bool { return !ours.MatchString(r.ID) })
	slices.SortFunc(pack, func(a, b *detect.Rule) int { return strings.Compare(a.ID, b.ID) })
	var levels []string
	for _, level := range []string{"CRITICAL", "HIGH", "MEDIUM", "LOW"} {
		n := 0
		for _, r := range pack {
			if r.Severity.String() == level {
				n++
			}
		}
		levels = append(levels, fmt.Sprintf("%d %s", n, level))
	}
	var b strings.Builder
	fmt.Fprintf(&b, head, len(pack), strings.Join(levels, ", "))
	for _, r := range pack {
		links := make([]string, 0, len(r.Techniques))
		for _, technique := range r.Techniques {
			links = append(links, "["+technique+"](https://attack.mitre.org/techniques/"+strings.ReplaceAll(technique, ".", "/")+"/)")
		}
		about := "several events"
		if r.Kind == detect.Detection {
			var types []string
			for _, typ := range r.Needs().Types {
				types = append(types, string(typ))
			}
			about = strings.Join(types, ", ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.ID, r.Severity, strings.Join(links, " "), about, r.Title)
	}
	if *update {
		if err := os.WriteFile(docs, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(got)); diff != "" {
		t.Errorf("docs/rules.md is not what the pack says; -update writes it (-want +got):\n%s", diff)
	}
}
