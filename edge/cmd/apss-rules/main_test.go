package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	rules, broken := filepath.Join(dir, "r.yml"), filepath.Join(dir, "broken.yml")
	const doc = "title: Bash\nid: APSS-001\nlogsource: {category: process_creation}\ndetection: {s: {process.name: bash}, condition: s}\n"
	for name, text := range map[string]string{rules: doc, broken: "title: x", filepath.Join(dir, "r.test.yaml"): "rule: APSS-001\nmatch: [exec: bash]\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exec := string(eventtest.Exec().AppendJSON(nil)) + "\n"
	tests := []struct {
		args string
		in   string
		code int
		out  string // of stdout, else of stderr
	}{
		{"check " + rules, "", exitOK, "1 rules: 1 supported, 0 unsupported"},
		{"check " + dir, "", exitFailed, "2 rules: 1 supported, 1 unsupported"},
		{"check " + dir + "/none", "", exitFailed, "no such file"},
		{"test " + rules + " " + dir + "/r.test.yaml", "", exitOK, "1 fixtures: 1 passed, 0 failed"},
		{"eval", "", exitOK, "0 events, 0 alerts, 0 bad lines"},
		{"eval --rules " + rules, exec, exitOK, `"rule_name":"Bash"`},
		{"eval --rules " + dir, exec, exitOK, `"rule_name":"Bash"`},
		{"eval --only --rules " + rules, exec, exitOK, "1 events, 1 alerts"},
		{"explain APSS-002", "", exitOK, "Cryptominer"},
		{"explain --rules " + rules + " APSS-001", "", exitOK, "Bash"},
		{"explain nothing", "", exitFailed, "apss-rules list"},
		{"list", "", exitOK, "Reverse shell"},
		{"list --only --rules " + rules, "", exitOK, "Bash"},
		{"-version", "", exitOK, "dev"},
		{"-help", "", exitOK, "apss-rules check PATH"},
		{"", "", exitUsage, "-help"},
		{"check", "", exitUsage, "-help"},
		{"explain", "", exitUsage, "-help"},
		{"list x", "", exitUsage, "-help"},
		{"list --only", "", exitUsage, "-help"},
		{"eval --foo", "", exitUsage, "-help"},
		{"run", "", exitUsage, "-help"},
	}
	for _, test := range tests {
		var out, errs bytes.Buffer
		code := command(strings.Fields(test.args), strings.NewReader(test.in), &out, &errs)
		if all := out.String() + errs.String(); code != test.code || !strings.Contains(all, test.out) {
			t.Errorf("%q: got exit code %d and %.300q want %d and %q", test.args, code, all, test.code, test.out)
		}
	}
}
