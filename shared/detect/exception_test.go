package detect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

// everything has a rule for each family of events, which matches all of them.
const everything = `title: e
id: exec
logsource: {category: process_creation}
detection: {s: {type: process_exec}, condition: s}
---
title: f
id: file
name: files
logsource: {category: file_event}
detection: {s: {TargetFilename|startswith: /}, condition: s}
---
title: n
id: net
logsource: {category: network_connection}
detection: {s: {DestinationPort|gt: 0}, condition: s}
`

// excepting compiles everything with one exception.
func excepting(t *testing.T, entry string) *Set {
	t.Helper()
	return compile(t, Options{}, everything, "exceptions:\n  - {reason: x, "+entry+"}\n")
}

// An exception is as narrow as it says.
func TestExceptions(t *testing.T) {
	exec := func(change func(*event.Event)) *event.Event {
		e := eventtest.Exec()
		e.PodNamespace, e.Workload, e.Process.Exe = "shop", "Deployment/web", "/opt/app/bin/run"
		e.Container = &event.Container{Image: "registry.example/team/web:1.2"}
		change(e)
		return e
	}
	same := func(*event.Event) {}
	file := func(path string) *event.Event {
		e := eventtest.FileModify()
		e.File.Path = path
		return e
	}
	connect := func(address string) *event.Event {
		e := eventtest.Connect()
		e.Network.DstIP = address
		return e
	}
	tests := []struct {
		entry string
		e     *event.Event
		held  bool // the exception holds
	}{
		{"rules: exec, namespaces: shop", exec(same), true},
		{"rules: [exec], namespaces: [web, shop]", exec(same), true},
		{"rules: any, namespaces: shop", exec(same), true},
		{"rules: exec, namespaces: shop", exec(func(e *event.Event) { e.PodNamespace = "shop-2" }), false},
		{"rules: exec, namespaces: shop", exec(func(e *event.Event) { e.PodNamespace = "Shop" }), false},
		{"rules: exec, namespaces: shop", exec(func(e *event.Event) { e.PodNamespace = "" }), false},
		{"rules: exec, namespaces: '*'", exec(func(e *event.Event) { e.PodNamespace = "" }), false},
		{"rules: exec, namespaces: 'sh?p'", exec(same), true},
		{"rules: exec, namespaces: 'sh?p'", exec(func(e *event.Event) { e.PodNamespace = "shp" }), false},
		{"rules: exec, workloads: Deployment/web", exec(same), true},
		{"rules: exec, workloads: 'Deployment/*'", exec(same), true},
		{"rules: exec, workloads: StatefulSet/web", exec(same), false},
		{"rules: exec, workloads: Deployment/we", exec(same), false},
		{"rules: exec, images: 'registry.example/team/web:*'", exec(same), true},
		{"rules: exec, images: 'registry.example/*/web:*'", exec(same), true},
		{"rules: exec, images: 'registry.example/**'", exec(same), true},
		{"rules: exec, images: 'registry.example/*'", exec(same), false},
		{"rules: exec, images: 'registry.example/team/web:1'", exec(same), false},
		{"rules: exec, images: 'registry.example/team/web:*'", exec(func(e *event.Event) { e.Container.Image = "evil.example/registry.example/team/web:1" }), false},
		{"rules: exec, images: 'registry.example/team/web:*'", exec(func(e *event.Event) { e.Container = nil }), false},
		{"rules: exec, exes: /opt/app/bin/run", exec(same), true},
		{"rules: exec, exes: '/opt/*/bin/run'", exec(same), true},
		{"rules: exec, exes: '/opt/**'", exec(same), true},
		{"rules: exec, exes: '/opt/*'", exec(same), false},
		{"rules: exec, exes: '/opt/app/bin/*'", exec(func(e *event.Event) { e.Process.Exe = "/opt/app/bin/sub/run" }), false},
		{"rules: exec, exes: /opt/app/bin/run", exec(func(e *event.Event) { e.Process.Exe = "/tmp/opt/app/bin/run" }), false},
		{"rules: exec, exes: /opt/app/bin/run", exec(func(e *event.Event) { e.Process.Exe = "/opt/app/bin/runner" }), false},
		{"rules: exec, exes: '/opt/app/bin/ru.'", exec(same), false},
		{`rules: exec, exes: '/opt/app/bin/\*'`, exec(same), false},
		{`rules: exec, exes: '/opt/app/bin/\*'`, exec(func(e *event.Event) { e.Process.Exe = "/opt/app/bin/*" }), true},
		{"rules: exec, exes: '/opt/*'", exec(func(e *event.Event) { e.Process.Exe = "/opt/a\n\xff" }), true},
		{"rules: exec, namespaces: shop, exes: /opt/app/bin/run", exec(same), true},
		{"rules: exec, namespaces: shop, exes: /opt/app/bin/run", exec(func(e *event.Event) { e.PodNamespace = "x" }), false},
		{"rules: exec, namespaces: shop, exes: /opt/app/bin/run", exec(func(e *event.Event) { e.Process.Exe = "/x" }), false},
		{"rules: exec, everywhere: true", exec(same), true},
		{"rules: file, everywhere: true", exec(same), false},
		{"rules: file, namespaces: shop", exec(same), false},
		{"rules: files, paths: '/etc/cron.d/*'", file("/etc/cron.d/backup"), true},
		{"rules: any, paths: '/etc/cron.d/*'", file("/etc/cron.d/backup"), true},
		{"rules: any, paths: '/etc/cron.d/*'", file("/etc/cron.d"), false},
		{"rules: any, paths: '/etc/cron.d/*'", file("/etc/cron.d/x/y"), false},
		{"rules: net, addresses: 203.0.113.7", connect("203.0.113.7"), true},
		{"rules: net, addresses: 203.0.113.7", connect("::ffff:203.0.113.7"), true},
		{"rules: net, addresses: 203.0.113.0/24", connect("203.0.113.200"), true},
		{"rules: net, addresses: 203.0.113.7", connect("203.0.113.70"), false},
		{"rules: net, addresses: 203.0.113.0/24", connect("203.0.114.1"), false},
		{"rules: exec, namespaces: shop, expires: 2026-11-22", exec(func(e *event.Event) { e.Timestamp = time.Date(2026, 11, 22, 23, 59, 59, 0, time.UTC) }), true},
		{"rules: exec, namespaces: shop, expires: 2026-11-22", exec(func(e *event.Event) { e.Timestamp = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC) }), false},
		{"rules: exec, namespaces: shop, expires: 2026-11-22", exec(func(e *event.Event) { e.Timestamp = time.Time{} }), false},
		{"rules: exec, everywhere: true, expires: 2026-11-22", exec(func(e *event.Event) { e.Timestamp = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC) }), false},
	}
	for _, test := range tests {
		want := map[bool]int{true: 0, false: 1}[test.held]
		if got := ids(excepting(t, test.entry), test.e); len(got) != want {
			t.Errorf("%s: got %v want %d match of %s", test.entry, got, want, test.e.AppendJSON(nil))
		}
	}
}

func TestExceptionFaults(t *testing.T) {
	tests := map[string]string{
		"rules: exec, everywhere: true, reason: ''":              "has no reason",
		"rules: exec, reason: x":                                 "does not say where it holds; name namespaces",
		"rules: any, reason: x, everywhere: true":                "switches every rule off; name the rules",
		"rules: exec, reason: x, everywhere: true, exes: /x":     "everywhere and in places",
		"rules: exec, reason: x, everywhere: maybe":              `everywhere is "maybe"; write true`,
		"rules: exec, reason: x, exes: run":                      `exes has "run"; write a whole path`,
		"rules: exec, reason: x, exes: /opt//run":                `exes has "/opt//run"; write /opt/run`,
		"rules: exec, reason: x, exes: /opt/../run":              "write /run",
		"rules: exec, reason: x, exes: []":                       "exes is empty",
		"rules: exec, reason: x, exes: ['']":                     "write a text in quotes",
		"rules: exec, reason: x, workloads: web":                 "write kind and name",
		"rules: exec, reason: x, images: registry:5000/web":      "write registry:5000/web:* for all of its tags",
		"rules: net, reason: x, addresses: example.com":          "write an address or a network",
		"rules: net, reason: x, addresses: 10.0.0.1, paths: /x":  "no event has both",
		"rules: exec, reason: x, exes: /x, expires: tomorrow":    `expires is "tomorrow"; write the last day`,
		"rules: exec, reason: x, exes: /x, until: 2027-01-01":    `has no key "until"; an exception has rules, reason, expires`,
		"rules: [any, exec], reason: x, exes: /x":                "any rule and for rules by name",
		"rules: [exec, exec], reason: x, exes: /x":               "twice",
		"rules: [], reason: x, exes: /x":                         "names no rules",
		"reason: x, exes: /x":                                    "names no rules",
		"rules: exce, reason: x, exes: /x":                       `names rule "exce", which is not there; did you mean exec?`,
		"rules: Files, reason: x, exes: /x":                      "did you mean files?",
		"rules: n, reason: x, exes: /x":                          "did you mean net?",
		"rules: something-else, reason: x, exes: /x":             "use the rule's id or name",
		"rules: exec, reason: x, paths: /x":                      `rule "exec" is about process_exec, which never is where the exception holds`,
		"rules: file, reason: x, addresses: 10.0.0.1":            "file_create, file_modify, file_rename",
		"rules: [exec, file, gone], reason: x, namespaces: shop": `names rule "gone"`,
	}
	for entry, want := range tests {
		rules, errs := Parse("shop.yml", []byte(everything+"---\nexceptions:\n  - {"+entry+"}\n  - {rules: net, namespaces: a, reason: this one is good}\n"))
		set, more := Compile(rules, Options{})
		if errs = append(errs, more...); len(errs) != 1 {
			t.Errorf("%s: got faults %v want one", entry, errs)
			continue
		}
		if got := errs[0].Error(); !strings.HasPrefix(got, "shop.yml:18: ") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q want %q in it", entry, got, want)
		}
		if len(set.Rules()) != 3 {
			t.Errorf("%s: got %d rules want 3", entry, len(set.Rules()))
		}
	}
	for _, doc := range []string{"exceptions: {}", "exceptions: []", "exceptions: [x]", "exceptions:\ntitle: x", "exceptions: [{rules: any, namespaces: a, reason: x}]\ndetection: {}"} {
		if _, errs := Parse("x.yml", []byte(doc)); len(errs) != 1 {
			t.Errorf("%q: got faults %v want one", doc, errs)
		}
	}
}

func TestExceptionsOfARule(t *testing.T) {
	correlation := "title: c\nid: often\ncorrelation: {type: event_count, rules: [exec], group-by: [User], timespan: 1m, condition: {gte: 2}}\n"
	other := "title: o\nid: other\ncorrelation: {type: event_count, rules: [exec], group-by: [Image], timespan: 1m, condition: {gte: 2}}\n"
	entry := "exceptions:\n  - {rules: often, namespaces: shop, reason: x, expires: 2026-01-01}\n  - {rules: any, exes: /x, reason: y}\n"
	set := compile(t, Options{}, everything, correlation, entry)
	got := map[string][]string{}
	for _, r := range set.Rules() {
		for _, f := range set.Exceptions(r) {
			got[r.ID] = append(got[r.ID], f.Title)
		}
	}
	want := map[string][]string{"exec": {"x", "y"}, "often": {"x", "y"}, "file": {"y"}, "net": {"y"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("exceptions by rule (-want +got):\n%s", diff)
	}
	x := set.Exceptions(set.Rules()[0])[0]
	if day := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC); x.Expired(day) || !x.Expired(day.Add(12*time.Hour)) {
		t.Errorf("it expires at %v", x.Expires)
	}

	// Its part feeds another one too, so leaving it out would be more than was asked for.
	rules, _ := Parse("x.yml", []byte(everything+"---\n"+correlation+"---\n"+other+"---\n"+entry))
	if _, errs := Compile(rules, Options{}); len(errs) != 1 || !strings.Contains(errs[0].Error(), "filter the rules it refers to: exec") {
		t.Errorf("got faults %v want one that names the correlation's rules", errs)
	}
	if set := compile(t, Options{}, everything, "exceptions: [{rules: exec, everywhere: true, reason: x}]\n"); len(set.Rules()) != 2 || len(set.Blind()) != 0 {
		t.Errorf("a rule switched off: got %d rules, %d blind; want 2 and none", len(set.Rules()), len(set.Blind()))
	}
}

// Events that match nothing do not pay for exceptions: the index is the same with a thousand of them.
func TestExceptionsAreNotIndexed(t *testing.T) {
	var many strings.Builder
	many.WriteString("---\nexceptions:\n")
	for i := range 1000 {
		fmt.Fprintf(&many, "  - {rules: any, namespaces: [n%d], exes: ['/opt/%d/**'], reason: x}\n", i, i)
	}
	filter := "---\ntitle: f\nlogsource: {category: process_creation}\nfilter: {rules: any, s: {Image|endswith: /x, CommandLine|contains: y}, condition: not s}\n"
	plain := compile(t, Options{}, sigmaLike(50)).engines[event.ProcessExec]
	set := compile(t, Options{}, sigmaLike(50), many.String(), filter)
	with := set.engines[event.ProcessExec]
	if plain.keys != with.keys || len(plain.indexes) != len(with.indexes) || !cmp.Equal(plain.triggers, with.triggers) {
		t.Errorf("with exceptions the index has %d keys in %d fields, without %d in %d", with.keys, len(with.indexes), plain.keys, len(plain.indexes))
	}
	if most := len(plain.steps) + 4*1000; len(with.steps) > most {
		t.Errorf("got %d steps want at most %d: exceptions for every rule are programmed once", len(with.steps), most)
	}
	m := set.NewMatcher()
	var matches []Match
	for _, e := range ordinary() {
		if n := testing.AllocsPerRun(10, func() { matches = m.Match(e, matches[:0]) }); n != 0 || len(matches) != 0 {
			t.Errorf("%s: got %v allocations and %d matches want none", e.Process.Cmdline, n, len(matches))
		}
	}
}
