package detect

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

func TestFilters(t *testing.T) {
	rules := rule("a", "s: {Image|endswith: /sh}\ncondition: s") + "---\n" + rule("b", "s: {Image|endswith: /sh}\ncondition: s") + "---\n" +
		"title: c\nlogsource: {category: file_event}\ndetection: {s: {Image|endswith: /sh}, condition: s}\n"
	filter := func(targets, condition string) string {
		return "title: f\nlogsource: {category: process_creation}\nfilter:\n  rules: " + targets +
			"\n  s: {User: adm}\n  w: {CurrentDirectory: /job}\n  condition: " + condition + "\n"
	}
	adm, admAtWork, root := exec("/bin/sh", ""), exec("/bin/sh", ""), exec("/bin/sh", "")
	adm.Process.User, admAtWork.Process.User, admAtWork.Process.Cwd = "adm", "adm", "/job"
	tests := []struct {
		targets, condition     string
		adm, admAtWork, asRoot string
	}{
		{"[a]", "s", "b", "b", "a b"},
		{"[a]", "not s", "b", "b", "a b"},
		{"[a, b]", "s", "", "", "a b"},
		{"any", "not s", "", "", "a b"},
		{"[a]", "s and w", "a b", "b", "a b"},
		{"[a]", "s and not w", "b", "a b", "a b"},
		{"[a]", "not s and not w", "b", "b", "a b"},
		{"[a]", "not (s and w)", "a b", "b", "a b"},
	}
	for _, test := range tests {
		set := compile(t, Options{}, rules, filter(test.targets, test.condition))
		for name, x := range map[string]struct {
			e    *event.Event
			want string
		}{"adm": {adm, test.adm}, "adm at work": {admAtWork, test.admAtWork}, "root": {root, test.asRoot}} {
			if got := strings.Join(ids(set, x.e), " "); got != x.want {
				t.Errorf("%s, %s, %s: got %q want %q", test.targets, test.condition, name, got, x.want)
			}
		}
	}
	for _, bad := range []string{"[nobody]", "[c]", "[f]"} {
		parsed, errs := Parse("f.yml", []byte(rules+"---\n"+filter(bad, "s")))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		set, errs := Compile(parsed, Options{})
		if len(errs) != 1 || len(set.Rules()) != 3 {
			t.Errorf("filter of %s: got errors %v and %d rules", bad, errs, len(set.Rules()))
		}
	}
}

func TestCompileFaults(t *testing.T) {
	good := rule("good", "s: {Image: /x}\ncondition: s")
	tests := map[string]string{
		`id "good" is taken`:             good,
		`name "n" is taken`:              "name: n\n" + rule("a", "s: {Image: /x}\ncondition: s") + "---\nname: n\n" + rule("b", "s: {Image: /x}\ncondition: s"),
		"placeholder %who% has no":       rule("p", "s: {User|expand: '%who%'}\ncondition: s"),
		`names rule "gone"`:              "title: c\ncorrelation: {type: event_count, rules: [gone], group-by: [User], timespan: 1m, condition: {gte: 2}}\n",
		"refers to itself":               "title: c\ncorrelation: {type: event_count, rules: [c], group-by: [User], timespan: 1m, condition: {gte: 2}}\n",
		"no sensor fills":                "title: c\ncorrelation: {type: event_count, rules: [good], group-by: [Hashes], timespan: 1m, condition: {gte: 2}}\n",
		`field "Usr" is unknown`:         "title: c\ncorrelation: {type: event_count, rules: [good], group-by: [Usr], timespan: 1m, condition: {gte: 2}}\n",
		`an alias has no field for rule`: "title: c\ncorrelation: {type: event_count, rules: [good], group-by: [x], aliases: {x: {}}, timespan: 1m, condition: {gte: 2}}\n",
	}
	for want, doc := range tests {
		parsed, errs := Parse("f.yml", []byte(good+"---\n"+doc))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		set, errs := Compile(parsed, Options{})
		if len(errs) != 1 || !strings.Contains(errs[0].Problem, want) || errs[0].Line <= 6 {
			t.Errorf("got errors %v want one with %q and the document's line", errs, want)
		}
		if got := ids(set, exec("/x", "")); len(got) == 0 || got[0] != "good" {
			t.Errorf("%s: the good rule is gone", want)
		}
	}
}

func TestOverride(t *testing.T) {
	parse := func(docs ...string) []*Rule {
		rules, errs := Parse("o.yml", []byte(strings.Join(docs, "---\n")))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return rules
	}
	base := parse(rule("a", "s: {Image: /a}\ncondition: s"), rule("b", "s: {Image: /b}\ncondition: s"))
	over := parse(rule("b", "s: {Image: /new}\ncondition: s"), rule("c", "s: {Image: /new}\ncondition: s"))
	set, errs := Compile(Override(base, over), Options{})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for exe, want := range map[string][]string{"/a": {"a"}, "/b": nil, "/new": {"b", "c"}} {
		if diff := cmp.Diff(want, ids(set, exec(exe, ""))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", exe, diff)
		}
	}
	if _, errs := Compile(Override(base, append(over, over[0])), Options{}); len(errs) != 1 {
		t.Errorf("got %v want one error for an id that stands twice in the same place", errs)
	}
}

func TestCoverage(t *testing.T) {
	noCwd := Sight{Field: func(_ event.Type, name string) bool { return name != "process.cwd" }}
	noExec := Sight{Type: func(t event.Type) bool { return t != event.ProcessExec }}
	audit := func(s string) string {
		return "title: r\nlogsource: {service: auditd}\ndetection:\n  s: " + s + "\n  condition: s\n"
	}
	tests := []struct {
		name, doc string
		sight     Sight
		want      Coverage
	}{
		{"all seen", rule("r", "s: {Image: /x}\ncondition: s"), Sight{}, Live},
		{"field not asked for", rule("r", "s: {Image: /x}\ncondition: s"), noCwd, Live},
		{"needs the field", rule("r", "s: {Image: /x, CurrentDirectory: /tmp}\ncondition: s"), noCwd, Blind},
		{"can do without", rule("r", "s: [{Image: /x}, {CurrentDirectory: /tmp}]\ncondition: s"), noCwd, Degraded},
		{"filters by the field", rule("r", "s: {Image: /x}\nf: {CurrentDirectory: /tmp}\ncondition: s and not f"), noCwd, Degraded},
		{"refers to the field", rule("r", "s: {Image|fieldref: CurrentDirectory}\ncondition: s"), noCwd, Blind},
		{"type not seen", rule("r", "s: {Image: /x}\ncondition: s"), noExec, Blind},
		{"some type not seen", audit("{name: /x}"), noExec, Degraded},
		{"no sensor", rule("r", "s: {Hashes: x}\ncondition: s"), Sight{}, Blind},
		{"no sensor for a part", rule("r", "s: [{Hashes: x}, {Image: /x}]\ncondition: s"), Sight{}, Degraded},
		{"record type we have", audit("{type: PATH, name: /x}"), Sight{}, Live},
		{"record type we have not", audit("{type: TTY}"), Sight{}, Blind},
		{"one of two record types", audit("[{type: TTY}, {type: PATH, name: /x}]"), Sight{}, Degraded},
	}
	for _, test := range tests {
		rules, errs := Parse("c.yml", []byte(test.doc))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if got := rules[0].Coverage(test.sight); got != test.want {
			t.Errorf("%s: got %v want %v", test.name, got, test.want)
		}
		set, _ := Compile(rules, Options{})
		if never := len(rules[0].Needs().Types) == 0; never != (len(set.Blind()) == 1) {
			t.Errorf("%s: needs and the set disagree about whether it is blind", test.name)
		}
	}
}

// The index is why a thousand rules are cheap: ordinary rules must not end up among those that are always evaluated.
func TestIndexCoversOrdinaryRules(t *testing.T) {
	indexed := []string{
		"s: {Image|endswith: /x, CommandLine|contains|all: [a, b]}\ncondition: s",
		"s: {Image: [/a, /b]}\nf: {User: root}\ncondition: s and not f",
		"s: [{Image: /a}, {CommandLine|re: '(curl|wget)\\s+http'}]\ncondition: s",
		"s: {CommandLine|re: '^-[a-z]{3}foo'}\ncondition: s",
		"s: {CommandLine|cased|contains: Foo}\ncondition: s",
		"s: {CommandLine: 'a*b?c'}\ncondition: s",
		"a: {Image: /x}\nb: {Image: /y}\nc: {CommandLine|contains: z}\ncondition: 2 of them",
		"s: [keyword]\ncondition: s",
		"s: {ProcessId: 7}\ncondition: not (not s)",
	}
	always := []string{
		"s: {Image: /x}\ncondition: not s",
		"s: {ProcessId|gt: 3}\ncondition: s",
		"s: [{Image: /x}, {CommandLine|re: 'a*'}]\ncondition: s",
		"s: {Image|exists: true}\ncondition: s",
	}
	for i, detection := range append(indexed, always...) {
		e := compile(t, Options{}, rule("r", detection)).engines[event.ProcessExec]
		if got, want := e.always[0] == 0, i < len(indexed); got != want {
			t.Errorf("%s: indexed %v want %v", detection, got, want)
		}
	}
}
