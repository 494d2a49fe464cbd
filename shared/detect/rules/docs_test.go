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

## Exceptions

What is no alert in your cluster is said beside the rules, in any .yml file of a folder in RULES_DIRS; the rules stay as
they are. An entry holds for the rules it names (ids, names or any) where all of its places fit:

    exceptions:
      - rules: [APSS-038, APSS-040]
        namespaces: [vault]                      # pods of these namespaces
        workloads: ['StatefulSet/vault-*']       # kind and name
        images: ['registry.example/vault:*']     # with tag or digest
        exes: [/usr/bin/curl]                    # the process's program
        expires: 2027-06-30                      # the last day; leave it out for ever
        reason: The start script logs in with the pod's token.
      - rules: [APSS-056]
        paths: ['/etc/cron.d/backup-*']          # the file
        reason: The backup operator writes its jobs.
      - rules: [APSS-005]
        addresses: [203.0.113.0/24]              # the other side of a connection
        reason: Our managed database.
      - rules: [APSS-019]
        everywhere: true                         # switches the rule off
        reason: Our manifests are full of long scripts.

One value of each place is enough. ` + "`*`" + ` stands for anything but a slash, ` + "`**`" + ` for anything, ` + "`?`" + ` for one character; letters' case
counts. Anyone who can choose a program's path in such a pod can use the exception, so name more than one place. Sigma's
filters do the rest: any field, any condition. ` + "`apss-rules check`" + ` finds names that are not there and exceptions that have
expired, ` + "`explain`" + ` shows what is excepted from a rule, and fixtures hold both.

## The pack

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

// What docs/rules.md tells people to write is right.
func TestDocumentedExceptions(t *testing.T) {
	var example strings.Builder
	for line := range strings.Lines(head) {
		if text, ok := strings.CutPrefix(line, "    "); ok {
			example.WriteString(text)
		}
	}
	pack, _ := compile(t)
	exceptions, errs := detect.Parse("docs/rules.md", []byte(example.String()))
	set, more := detect.Compile(append(pack, exceptions...), detect.Options{})
	for _, err := range append(errs, more...) {
		t.Error(err)
	}
	held := 0
	for _, r := range pack {
		held += len(set.Exceptions(r))
	}
	if len(exceptions) != 4 || held != 5 {
		t.Errorf("got %d exceptions for %d rules want 4 for 5", len(exceptions), held)
	}
}
