package rulebook

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/detect"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

const (
	good = "title: Bash\nid: T-1\nlogsource: {category: process_creation}\ndetection: {s: {process.name: bash}, condition: s}\nlevel: high\napss: {group-by: [process.exe]}\n"
	bad  = "title: Bad\nid: T-2\nlogsource: {category: process_creation}\ndetection: {s: {Imgae: /x, Foo: y}, condition: s}\n"
	dark = "title: Dark\nid: T-3\nlogsource: {category: process_creation}\ndetection: {s: {Hashes: x}, condition: s}\n"
)

// write makes files below a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A ConfigMap is mounted as links to files in a hidden folder, which is itself behind a link.
func TestReadMountedConfigMap(t *testing.T) {
	dir := write(t, map[string]string{"..2026/a.yml": good, "b/c.yaml": dark, "a.test.yaml": "rule: T-1", "README.md": "x", "big.yml": strings.Repeat("#", detect.MaxFile+2)})
	for link, target := range map[string]string{"..data": "..2026", "a.yml": "..data/a.yml", "d.yml": "/dev/null"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	rules, faults, err := Read([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range rules {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]string{"T-1", "T-3"}, ids); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if len(faults) != 1 || !strings.HasSuffix(faults[0].File, "big.yml") {
		t.Errorf("got faults %v want one of big.yml", faults)
	}
	if _, _, err := Read([]string{dir, filepath.Join(dir, "gone")}); err == nil {
		t.Error("a missing path is no error")
	}
}

// noon is when the tests run.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// excused is an exception that holds at noon, one that does not any more, and a filter.
const excused = `exceptions:
  - {rules: [T-1, APSS-018], namespaces: [build], expires: 2026-11-22, reason: The build farm.}
  - {rules: APSS-100, exes: [/opt/scan], expires: 2026-11-21, reason: The audit of autumn.}
---
title: Ours
logsource: {category: process_creation}
filter: {rules: [APSS-001], s: {User: tester}, condition: not s}
`

func TestCheck(t *testing.T) {
	tests := []struct {
		name, doc string
		well      bool
		want      []string // of the output, the last of its last line
	}{
		{"sound", good, true, []string{"1 rules: 1 supported, 0 unsupported\n"}},
		{"two faults of one", good + "---\n" + bad, false, []string{`rule "Bad": field "Imgae"`, `field "Foo"`, "2 rules: 1 supported, 1 unsupported\n"}},
		{"can never match", dark, true, []string{"Hashes", "1 rules: 1 supported, 0 unsupported\n"}},
		{"one id twice", good + "---\n" + strings.Replace(good, "Bash", "Other", 1), false, []string{"is taken", "2 rules: 1 supported, 1 unsupported\n"}},
		{"exceptions", good + "---\n" + excused, true, []string{
			"The audit of autumn.\": note: not applied: expired after 2026-11-21; remove it", "4 rules: 4 supported, 0 unsupported\n",
		}},
		{"an exception for a rule that is not there", "exceptions:\n  - {rules: APSS-O18, exes: [/x], reason: x}\n", false, []string{"did you mean APSS-018?", "1 rules: 0 supported, 1 unsupported\n"}},
		{"no YAML", "a: [", false, []string{"cannot be read", "1 rules: 0 supported, 1 unsupported\n"}},
		{"a terminal's commands", strings.Replace(bad, "Bad", `"\e[2J"`, 1), false, []string{"1 rules: 0 supported, 1 unsupported\n"}},
	}
	for _, test := range tests {
		var out strings.Builder
		well, err := Check(&out, []string{write(t, map[string]string{"r.yml": test.doc})}, noon)
		if err != nil || well != test.well {
			t.Errorf("%s: got %t and error %v want %t", test.name, well, err, test.well)
		}
		for _, want := range test.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: got %q want %q in it", test.name, out.String(), want)
			}
		}
		if !strings.HasSuffix(out.String(), test.want[len(test.want)-1]) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: got %q", test.name, out.String())
		}
	}
	if _, err := Check(&strings.Builder{}, []string{t.TempDir()}, noon); err == nil {
		t.Error("a folder without rules is no error")
	}
}

// One file that cannot be read keeps no other from being checked, and is said.
func TestCheckOfWhatCannotBeRead(t *testing.T) {
	dir := write(t, map[string]string{"a.yml": good, "b.yml": bad})
	if err := os.Symlink("nowhere", filepath.Join(dir, "c.yml")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ok, err := Check(&out, []string{dir}, time.Now())
	if ok || !errors.Is(err, os.ErrNotExist) || !strings.Contains(out.String(), "b.yml:4") || !strings.HasSuffix(out.String(), "2 rules: 1 supported, 1 unsupported\n") {
		t.Errorf("got %t, %v and\n%s", ok, err, &out)
	}
}

func TestTest(t *testing.T) {
	for fixture, want := range map[string]string{
		"rule: T-1\nmatch: [exec: bash]\nmiss: [exec: ls]\n": "2 fixtures: 2 passed, 0 failed\n",
		"rule: T-1\nmatch: [exec: ls, exec: bash]\n":         "2 fixtures: 1 passed, 1 failed\n",
		"rule: T-9\nmatch: [exec: ls]\n":                     `there is no rule "T-9"`,
		"rule: APSS-001\nmiss: [exec: ls]\n":                 "1 fixtures: 1 passed, 0 failed\n",
	} {
		var out strings.Builder
		well, err := Test(&out, []string{write(t, map[string]string{"r.yml": good, "r.test.yaml": fixture})})
		if err != nil || well != strings.Contains(want, " 0 failed") || !strings.Contains(out.String(), want) {
			t.Errorf("%s: got %t, %v, %q; want %q", fixture, well, err, out.String(), want)
		}
	}
	for _, files := range []map[string]string{{"r.yml": good}, {"r.test.yaml": "rule: T-1\nmatch: [{}]"}} {
		if _, err := Test(&strings.Builder{}, []string{write(t, files)}); err == nil {
			t.Errorf("%v: got no error", files)
		}
	}
}

func set(t *testing.T, doc string) *detect.Set {
	t.Helper()
	rules, errs := detect.Parse("r.yml", []byte(doc))
	s, more := detect.Compile(rules, detect.Options{})
	for _, err := range append(errs, more...) {
		t.Fatal(err)
	}
	return s
}

func TestEval(t *testing.T) {
	line := string(eventtest.Exec().AppendJSON(nil))
	hostile := []string{"{", "null", "[]", "\x1b[2J", `{"id":"\xff"}`, strings.Repeat("x", 2*maxLine), strings.Repeat("[", 100_000), line + line}
	in := line + "\n\n  \r\n" + strings.Join(hostile, "\n") + "\n" + line // without a newline at the end
	var out, diagnostics bytes.Buffer
	if err := Eval(set(t, good), strings.NewReader(in), &out, &diagnostics); err != nil {
		t.Fatal(err)
	}
	var alerts []*event.Alert
	for l := range strings.Lines(out.String()) {
		a, err := event.DecodeAlert([]byte(l))
		if err != nil {
			t.Fatal(err)
		}
		alerts = append(alerts, a)
	}
	if len(alerts) != 2 || alerts[0].RuleID != "T-1" || alerts[0].Fingerprint != alerts[1].Fingerprint || alerts[1].Event.ID != eventtest.Exec().ID {
		t.Errorf("got alerts %s want two of T-1", out.String())
	}
	said := diagnostics.String()
	for _, want := range []string{"line 4: ", "line 11: ", "line 9: it is longer than", "2 events, 2 alerts, 8 bad lines\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("got %q want %q in it", said, want)
		}
	}
	if strings.Contains(said, "\x1b") {
		t.Error("a terminal's command is printed")
	}
}

func TestEvalBoundsWhatItSays(t *testing.T) {
	var diagnostics strings.Builder
	if err := Eval(set(t, good), strings.NewReader(strings.Repeat("x\n", 1000)), &bytes.Buffer{}, &diagnostics); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(diagnostics.String(), "\n"); got != maxReported+1 || !strings.Contains(diagnostics.String(), "1000 bad lines") {
		t.Errorf("got %d lines want %d, the last with all", got, maxReported+1)
	}
}

func TestEvalCorrelates(t *testing.T) {
	s := set(t, strings.Replace(good, "title", "name: bash\ntitle", 1)+"---\ntitle: Many\nid: T-4\ncorrelation: {type: event_count, rules: [bash], group-by: [agent_id], timespan: 1m, condition: {gte: 3}}\n")
	var out bytes.Buffer
	in := strings.Repeat(string(eventtest.Exec().AppendJSON(nil))+"\n", 3)
	if err := Eval(s, strings.NewReader(in), &out, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"rule_id":"T-4"`) {
		t.Errorf("got %s want one alert of the correlation", got)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestEvalStopsWhenNobodyReads(t *testing.T) {
	in := strings.NewReader(string(eventtest.Exec().AppendJSON(nil)) + "\n")
	if err := Eval(set(t, good), in, full{}, &bytes.Buffer{}); err == nil {
		t.Error("got no error")
	}
}

func FuzzEval(f *testing.F) {
	f.Add([]byte(`{"type":"process_exec","process":{"exe":"/bin/bash"}}` + "\n{\n"))
	f.Add(append(eventtest.Exec().AppendJSON(nil), "\nx\n"...))
	rules, _, err := WithPack(nil)
	if err != nil {
		f.Fatal(err)
	}
	pack, _ := detect.Compile(rules, detect.Options{})
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if err := Eval(pack, bytes.NewReader(in), &out, &bytes.Buffer{}); err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(out.Bytes()) {
			if _, err := event.DecodeAlert(line); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	})
}

func TestExplainAndList(t *testing.T) {
	pack, faults, err := WithPack([]string{write(t, map[string]string{"r.yml": good, "shop.exceptions.yml": excused})})
	if err != nil || len(faults) > 0 {
		t.Fatal(err, faults)
	}
	for name, want := range map[string][]string{
		"apss-001":        {"APSS-001  Reverse shell\nCRITICAL", "process_exec", "T1059.004", "pod-full      live", "pod-limited   degraded", "Rotate every secret"},
		"Reverse shell":   {"APSS-001"},
		"APSS-006":        {"pod-limited   blind"},
		"APSS-102":        {"Events (part-question-about-the-machine)", "node          live"},
		"T-1":             {"T-1  Bash", "Exceptions\n    ", "shop.exceptions.yml:2  The build farm. (expires after 2026-11-22)\n"},
		"APSS-018":        {"The build farm."},
		"APSS-100":        {"The audit of autumn. (not applied: expired after 2026-11-21)"},
		"APSS-001 ":       {"Exceptions\n    Ours  Ours\n"},
		"Ours":            {"filter, line 5 of", "For\n    APSS-001\n"},
		"The build farm.": {"filter, expires after 2026-11-22, line 2 of", "For\n    APSS-018, T-1\n"},
	} {
		var out strings.Builder
		if err := Explain(&out, pack, strings.TrimSpace(name), noon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: got %s\nwant %q in it", name, out.String(), w)
			}
		}
	}
	if err := Explain(&strings.Builder{}, pack, "none", noon); err == nil {
		t.Error("an unknown rule is no error")
	}
	var out strings.Builder
	if err := List(&out, pack, noon); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"APSS-001  CRITICAL  T1059.004  Reverse shell\n", "T-1 ", "Bash\n", "filter The audit of autumn. (not applied: expired after 2026-11-21)"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), strings.TrimSpace(strings.Join(strings.Fields(want), " "))) {
			t.Errorf("got %s\nwant %q in it", out.String(), want)
		}
	}
}
