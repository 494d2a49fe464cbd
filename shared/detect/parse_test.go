package detect

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/apss-sensor/apss/shared/event"
)

const fullRule = `# a comment first
title: Shell of a web server
id: 11111111-2222-3333-4444-555555555555
name: web_shell
status: test
description: A web server started a shell.
author: APSS
references: [https://attack.mitre.org/techniques/T1505/003/]
date: 2026-11-22
tags: [attack.persistence, attack.command_and_control, attack.t1505.003, attack.T1059, attack.g0001, cve.2021-44228]
logsource:
    category: process_creation
    product: linux
    definition: none
detection:
    selection:
        ParentImage|endswith: [/nginx, /apache2]
        Image|endswith: /sh
    condition: selection
fields: [CommandLine]
falsepositives:
    - CGI scripts
level: high
custom: {anything: goes}
apss:
    actions: [Isolate the pod]
    group-by: [process.exe]
`

func TestParse(t *testing.T) {
	rules, errs := Parse("web.yml", []byte(fullRule))
	if len(errs) > 0 || len(rules) != 1 {
		t.Fatalf("got %d rules and errors %v", len(rules), errs)
	}
	want := &Rule{
		ID: "11111111-2222-3333-4444-555555555555", Name: "web_shell", Title: "Shell of a web server",
		Description: "A web server started a shell.", Author: "APSS", Status: "test", File: "web.yml", Line: 2,
		Severity: event.High, Techniques: []string{"T1505.003", "T1059"}, Tactics: []string{"Persistence", "Command and Control"},
		Tags:           []string{"attack.persistence", "attack.command_and_control", "attack.t1505.003", "attack.T1059", "attack.g0001", "cve.2021-44228"},
		FalsePositives: []string{"CGI scripts"}, References: []string{"https://attack.mitre.org/techniques/T1505/003/"},
		Fields: []string{"CommandLine"}, Actions: []string{"Isolate the pod"}, GroupBy: []string{"process.exe"},
	}
	if diff := cmp.Diff(want, rules[0], cmpopts.IgnoreUnexported(Rule{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	needs := Needs{Types: []event.Type{event.ProcessExec}, Fields: []string{"process.exe", "process.parent.exe"}}
	if diff := cmp.Diff(needs, rules[0].Needs()); diff != "" {
		t.Errorf("needs (-want +got):\n%s", diff)
	}
}

// Every fault is told with its line and with what to write instead, and the good document behind it is kept.
func TestParseFaults(t *testing.T) {
	head := "title: bad\nlogsource: {category: process_creation}\n"
	detect := func(s string) string { return head + "detection:\n  s: " + s + "\n  condition: s\n" }
	tests := []struct {
		name, doc string
		line      int
		problem   string
	}{
		{"not YAML", "title: x\nid: [\n", 3, "the YAML cannot be read"},
		{"not a mapping", "- a\n", 1, "not a mapping"},
		{"no title", strings.Replace(detect("{Image: x}"), "title: bad\n", "", 1), 1, "no title"},
		{"no detection", head, 1, "0 of detection, correlation and filter"},
		{"no logsource", "title: x\ndetection: {s: {Image: x}, condition: s}\n", 1, "no logsource"},
		{"other product", "title: x\nlogsource: {category: process_creation, product: windows}\ndetection: {s: {Image: x}, condition: s}\n", 2, `product "windows"`},
		{"other category", "title: x\nlogsource: {category: proxy}\ndetection: {s: {Image: x}, condition: s}\n", 2, `category "proxy"`},
		{"other service", "title: x\nlogsource: {service: sshd}\ndetection: {s: {Image: x}, condition: s}\n", 2, `service "sshd"`},
		{"level", detect("{Image: x}") + "level: urgent\n", 6, `level "urgent"`},
		{"no condition", head + "detection:\n  s: {Image: x}\n", 4, "no condition"},
		{"empty condition", head + "detection:\n  s: {Image: x}\n  condition: ''\n", 5, "empty"},
		{"aggregation", head + "detection:\n  s: {Image: x}\n  condition: s | count() > 3\n", 5, "aggregates with a pipe"},
		{"timeframe", head + "detection:\n  s: {Image: x}\n  timeframe: 5m\n  condition: s\n", 5, "timeframe"},
		{"unknown identifier", head + "detection:\n  s: {Image: x}\n  condition: s and t\n", 5, `"t"`},
		{"no identifier like it", head + "detection:\n  s: {Image: x}\n  condition: 1 of t*\n", 5, `like "t*"`},
		{"more than there are", head + "detection:\n  s: {Image: x}\n  condition: 2 of them\n", 5, "can never be"},
		{"open parenthesis", head + "detection:\n  s: {Image: x}\n  condition: (s\n", 5, "closing parenthesis"},
		{"text after the end", head + "detection:\n  s: {Image: x}\n  condition: s s\n", 5, "goes on"},
		{"deep", head + "detection:\n  s: {Image: x}\n  condition: " + strings.Repeat("(", 100) + "s" + strings.Repeat(")", 100) + "\n", 5, "nested deeper"},
		{"unknown field", detect("{Imagee: x}"), 4, `field "Imagee"`},
		{"unknown modifier", detect("{Image|like: x}"), 4, `modifier "like"`},
		{"all alone", detect("{Image|all: x}"), 4, "all stands with a single value"},
		{"lookahead", detect("{Image|re: '(?=x)y'}"), 4, "error parsing regexp"},
		{"regexp and contains", detect("{Image|re|contains: x}"), 4, "exclude each other"},
		{"two comparisons", detect("{ProcessId|lt|gt: 1}"), 4, "exclude each other"},
		{"flag alone", detect("{Image|i: x}"), 4, "without re"},
		{"network", detect("{Image|cidr: 10.0.0.0/33}"), 4, "not a network"},
		{"number", detect("{ProcessId|lt: many}"), 4, "not a number"},
		{"octal", detect("{file.mode: 0644}"), 4, "more than one way"},
		{"exists", detect("{Image|exists: maybe}"), 4, "exists takes"},
		{"null in a list", detect("{Image: [a, null]}"), 4, "null stands in a list"},
		{"null contains", detect("{Image|contains: null}"), 4, "null does not go"},
		{"base64 of a wildcard", detect("{Image|base64: 'a*'}"), 4, "cannot encode wildcards"},
		{"base64 of contains", detect("{Image|contains|base64: a}"), 4, "cannot encode wildcards"},
		{"hour of a name", detect("{Image|hour: 3}"), 4, "not a time"},
		{"fieldref to nothing", detect("{Image|fieldref: Imagee}"), 4, `"Imagee"`},
		{"keyword lt", detect("{'|lt': 3}"), 4, "keywords do not take"},
		{"structure", detect("{Image: {a: b}}"), 4, "structure"},
		{"empty list", detect("{Image: []}"), 4, "empty list"},
		{"empty map", detect("{}"), 4, "empty"},
		{"key twice", detect("{Image: a, Image: b}"), 4, "twice"},
		{"merge key", "a: &a {Image: x}\n" + head + "detection:\n  s: {<<: *a}\n  condition: s\n", 5, "merge"},
		{"our key", detect("{Image: x}") + "apss: {action: [x]}\n", 6, `no key "action"`},
		{"our group", detect("{Image: x}") + "apss: {group-by: [Imagee]}\n", 6, `"Imagee"`},
		{"action", "action: frobnicate\n" + detect("{Image: x}"), 1, `action "frobnicate"`},
		{"nothing to repeat", "action: repeat\n" + detect("{Image: x}"), 1, "no document before"},
		{"filter without rules", head + "filter:\n  s: {Image: x}\n  condition: s\n", 4, "names no rules"},
		{"correlation type", "title: x\ncorrelation:\n  type: value_sum\n  rules: [a]\n  timespan: 1m\n  condition: {gte: 1}\n", 3, "value_sum"},
		{"timespan", "title: x\ncorrelation:\n  type: event_count\n  rules: [a]\n  timespan: 1w\n  condition: {gte: 1}\n", 3, `timespan "1w"`},
		{"threshold", "title: x\ncorrelation:\n  type: event_count\n  rules: [a]\n  timespan: 1m\n  condition: {gte: 100000}\n", 6, "100000"},
		{"value_count without field", "title: x\ncorrelation:\n  type: value_count\n  rules: [a]\n  timespan: 1m\n  condition: {gte: 1}\n", 6, "0 fields"},
		{"correlation key", "title: x\ncorrelation:\n  type: event_count\n  rules: [a]\n  timespan: 1m\n  timeframe: 1m\n  condition: {gte: 1}\n", 6, `no key "timeframe"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			const before = "---\n---\n"
			rules, errs := Parse("f.yml", []byte(before+test.doc+"---\n"+detect("{Image: good}")))
			if len(rules) != 1 || rules[0].Title != "bad" {
				t.Errorf("got %d rules want the good one", len(rules))
			}
			i := slices.IndexFunc(errs, func(e *Error) bool { return strings.Contains(e.Problem, test.problem) })
			if i < 0 {
				t.Fatalf("got errors %v want one with %q", errs, test.problem)
			}
			if want := test.line + strings.Count(before, "\n"); errs[i].Line != want || errs[i].File != "f.yml" {
				t.Errorf("got %s:%d want f.yml:%d", errs[i].File, errs[i].Line, want)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	_, errs := Parse("f.yml", []byte(rule("r", "s: {imAge: x}\ncondition: s")))
	want := `f.yml:5: rule "r": field "imAge" is unknown; did you mean Image?`
	if len(errs) != 1 || errs[0].Error() != want {
		t.Errorf("got %v want %s", errs, want)
	}
}

func TestFaultsAreReportedTogether(t *testing.T) {
	_, errs := Parse("f.yml", []byte("title: x\nlevel: urgent\nlogsource: {category: process_creation}\ndetection:\n  a: {Imagee: x}\n  b: {Image|like: x}\n  condition: a\n"))
	if len(errs) != 3 {
		t.Errorf("got %d errors want 3: %v", len(errs), errs)
	}
}

func TestBombs(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		n, m := string(rune('1'+i)), string(rune('0'+i))
		bomb.WriteString("a" + n + ": &a" + n + " [" + strings.Repeat("*a"+m+", ", 9) + "*a" + m + "]\n")
	}
	tests := map[string]string{
		"aliases":  bomb.String(),
		"size":     strings.Repeat("#", MaxFile+1),
		"windash":  rule("r", "s: {CommandLine|windash: '-a -b -c -d -e -f -g'}\ncondition: s"),
		"depth":    rule("r", "s: "+strings.Repeat("[", 200)+"x"+strings.Repeat("]", 200)+"\ncondition: s"),
		"choosing": rule("r", strings.Repeat("s: {Image: x}\n", 1)+"condition: 9999999999999999999 of them"),
	}
	for name, doc := range tests {
		if rules, errs := Parse(name, []byte(doc)); len(errs) == 0 || len(rules) > 0 {
			t.Errorf("%s: got %d rules and no error", name, len(rules))
		}
	}
	// Placeholders multiply only when their values are known.
	rules, errs := Parse("p", []byte(rule("r", "s: {Image|expand: '%a%%a%%a%%a%'}\ncondition: s")))
	set, more := Compile(rules, Options{Placeholders: map[string][]string{"a": strings.Split("abcdefgh", "")}})
	if len(errs) > 0 || len(more) != 1 || len(set.Rules()) != 0 {
		t.Errorf("got errors %v and %v, %d rules", errs, more, len(set.Rules()))
	}
}

func TestCollections(t *testing.T) {
	file := `
action: global
logsource: {category: process_creation}
level: high
detection: {condition: s}
---
title: one
detection: {s: {Image: /one}}
---
action: repeat
title: two
detection: {s: {Image: /two}}
---
action: reset
---
title: three
logsource: {category: file_event}
detection: {s: {TargetFilename: /three}, condition: s}
`
	rules, errs := Parse("c.yml", []byte(file))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	type short struct {
		Title    string
		Severity event.Severity
		Type     event.Type
	}
	var got []short
	for _, r := range rules {
		got = append(got, short{r.Title, r.Severity, r.Needs().Types[0]})
	}
	want := []short{{"one", event.High, event.ProcessExec}, {"two", event.High, event.ProcessExec}, {"three", event.Info, event.FileCreate}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	set, errs := Compile(rules, Options{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if diff := cmp.Diff([]string{"two"}, ids(set, exec("/TWO", ""))); diff != "" {
		t.Errorf("a repeated document keeps too much of the first (-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(fullRule))
	f.Add([]byte("title: c\ncorrelation:\n  type: value_count\n  rules: [a, b]\n  group-by: [Image]\n  timespan: 5m\n  aliases: {x: {a: Image}}\n  condition: {field: User, gte: 3}\n"))
	f.Add([]byte("title: f\nlogsource: {category: process_creation}\nfilter:\n  rules: any\n  s: {User|startswith: adm_}\n  condition: not s\n"))
	f.Add([]byte("exceptions:\n  - rules: any\n    namespaces: [a, 'b*']\n    exes: ['/opt/**/x?', '/\\*']\n    images: 'r/x:*'\n    expires: 2027-01-31\n    reason: y\n  - {rules: [f], everywhere: true, addresses: '::1', reason: z}\n"))
	f.Add([]byte("action: global\nlevel: low\n---\na: &a [1, 0x10, ~]\ntitle: *a\n---\naction: repeat\n"))
	f.Add([]byte(rule("r", "s: {Image|base64offset|contains: x, '|all': [a, b], ProcessId|gte: 1.5, UtcTime|hour: 3}\nt: [{User: null}, {Image|windash|re: x}]\ncondition: [s, 1 of t*]")))
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, errs := Parse("f", data)
		for _, err := range errs {
			if err.File != "f" || err.Problem == "" {
				t.Errorf("an error without a place: %#v", err)
			}
		}
		set, _ := Compile(rules, Options{Placeholders: map[string][]string{"a": {"b"}}})
		e := exec("/bin/sh", "sh -c x")
		set.NewCorrelator(CorrelatorOptions{}).Add(e.Timestamp, e, set.NewMatcher().Match(e, nil), nil)
	})
}
