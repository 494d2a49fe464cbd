package integration

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

func TestGlob(t *testing.T) {
	tests := []struct {
		glob Glob
		yes  []string
		no   []string
	}{
		{"*", []string{"", "a", "a/b", strings.Repeat("x", 2000)}, nil},
		{"prod", []string{"prod"}, []string{"", "pro", "prod-1", "Prod"}},
		{"prod-*", []string{"prod-", "prod-1", "prod-a-b"}, []string{"prod", "preprod-1", "prod-" + strings.Repeat("x", 2000)}},
		{"*-eu", []string{"-eu", "a-eu", "-eu-eu"}, []string{"a-eu-1", "eu"}},
		{"a*b*c", []string{"abc", "aXbXc", "abcbc"}, []string{"ab", "acb", "abcd"}},
		{"file_?????", []string{"file_chmod"}, []string{"file_create", "file_"}},
		{"**", []string{"", "x"}, nil},
		{"[a-c]", []string{"[a-c]"}, []string{"a"}},
		{"", []string{""}, []string{"a"}},
	}
	for _, tt := range tests {
		for _, s := range tt.yes {
			if !tt.glob.Match(s) {
				t.Errorf("%q does not match %.40q", tt.glob, s)
			}
		}
		for _, s := range tt.no {
			if tt.glob.Match(s) {
				t.Errorf("%q matches %.40q", tt.glob, s)
			}
		}
	}
}

// routes: each takes the event and alert of routed, or misses them for one cause.
var routes = []struct {
	name         string
	route        Route
	event, alert bool
}{
	{"all", Route{}, true, true},
	{"severity", Route{MinSeverity: event.High}, true, true},
	{"low severity", Route{MinSeverity: event.Critical}, false, false},
	{"type", Route{Types: []Glob{"process_*"}}, true, true},
	{"other type", Route{Types: []Glob{"file_*", "network_connect"}}, false, false},
	{"rule", Route{Rules: []Glob{"APSS-9*", "APSS-002"}}, true, true},
	{"other rule", Route{Rules: []Glob{"APSS-9*"}}, false, false},
	{"first rule", Route{Rules: []Glob{"APSS-001"}}, true, false}, // the alert's is the second
	{"namespace", Route{Namespaces: []Glob{"prod-*"}}, true, true},
	{"other namespace", Route{Namespaces: []Glob{"kube-system"}}, false, false},
	{"cluster", Route{Clusters: []Glob{"eu-?"}}, true, true},
	{"other cluster", Route{Clusters: []Glob{"us-*"}}, false, false},
	{"everything", Route{event.High, []Glob{"*"}, []Glob{"*"}, []Glob{"*"}, []Glob{"*"}}, true, true},
	{"all but one", Route{event.High, []Glob{"*"}, []Glob{"*"}, []Glob{"*"}, []Glob{"us-*"}}, false, false},
}

func routed() *event.Event {
	e := eventtest.Exec()
	e.Severity, e.Type, e.PodNamespace, e.Cluster, e.Rules = event.High, event.ProcessExec, "prod-1", "eu-1", []string{"APSS-001", "APSS-002"}
	e.Process.Cmdline = `echo "\\" "type":"file_create" \` + "\x00é\n"
	return e
}

func TestRoute(t *testing.T) {
	e := routed()
	a := &event.Alert{Severity: e.Severity, RuleID: "APSS-002", PodNamespace: e.PodNamespace, Cluster: e.Cluster, Event: e}
	raw := event.Raw(e.AppendJSON(nil))
	for _, tt := range routes {
		if got := tt.route.MatchEvent(raw); got != tt.event {
			t.Errorf("%s: got %t for the event, want %t", tt.name, got, tt.event)
		}
		if got := tt.route.MatchAlert(a); got != tt.alert {
			t.Errorf("%s: got %t for the alert, want %t", tt.name, got, tt.alert)
		}
		if n := testing.AllocsPerRun(10, func() { tt.route.MatchEvent(raw) }); n != 0 {
			t.Errorf("%s: got %v allocations, want none", tt.name, n)
		}
	}
	if (&Route{Types: []Glob{"process_exec"}}).MatchAlert(&event.Alert{}) {
		t.Error("an alert without an event matches a type")
	}
}

// TestRouteForms: other producers write members in another order and form.
func TestRouteForms(t *testing.T) {
	r := Route{event.High, []Glob{"file_*"}, []Glob{"R1"}, []Glob{"prod"}, []Glob{"c"}}
	for raw, want := range map[string]bool{
		`{"rules":["R0","R1"],"cluster":"c","pod_namespace":"prod","type":"file_create","severity":"HIGH"}`:                                              true,
		" { \"severity\" : \"critical\" ,\n\"type\":\t\"file_create\" , \"cluster\":\"c\",\"pod_namespace\":\"prod\",\"x\":[{}],\"rules\":[ \"R1\" ] } ": true,
		`{"s\u0065verity":"HIGH","type":"file\u005fcreate","cluster":"\u0063","pod_namespace":"prod","rules":["R\u0031"]}`:                               true,
		`{"severity":"FATAL","type":"file_create","cluster":"c","pod_namespace":"prod","rules":["R1"]}`:                                                  true,
		`{"severity":7,"type":"file_create","cluster":"c","pod_namespace":"prod","rules":["R1"]}`:                                                        true,
		`{"type":"file_create","cluster":"c","pod_namespace":"prod","rules":["R1"]}`:                                                                     true,
		`{"severity":"LOW","type":"file_create","cluster":"c","pod_namespace":"prod","rules":["R1"]}`:                                                    false,
		`{"severity":"HIGH","type":null,"cluster":"c","pod_namespace":"prod","rules":["R1"]}`:                                                            false,
		`{"severity":"HIGH","cluster":"c","pod_namespace":"prod","rules":["R1"]}`:                                                                        false,
		`{"severity":"HIGH","type":"file_create","cluster":"c","pod_namespace":"prod","rules":[]}`:                                                       false,
		`{"severity":"HIGH","type":"file_create","cluster":"c","pod_namespace":"prod","rules":"R1"}`:                                                     false,
		`{"severity":"HIGH","type":"file_create","cluster":"c","pod_namespace":"prod","rules":[1,{"a":"R1"}]}`:                                           false,
		`{"x":{"severity":"HIGH","type":"file_create","cluster":"c","pod_namespace":"prod","rules":["R1"]}}`:                                             false,
		`{}`: false,
	} {
		if got := r.MatchEvent(event.Raw(raw)); got != want {
			t.Errorf("%s: got %t, want %t", raw, got, want)
		}
	}
	if !(&Route{Clusters: []Glob{"*"}, Rules: []Glob{"*"}, Namespaces: []Glob{"*"}, Types: []Glob{"*"}}).MatchEvent(event.Raw(`{}`)) {
		t.Error(`"*" does not match what is not said`)
	}
}

// FuzzMatchEvent holds the scanner against a decoder.
func FuzzMatchEvent(f *testing.F) {
	f.Add([]byte(`{"id":"1","type":"file_create","severity":"HIGH","cluster":"c","pod_namespace":"p","process":{"args":["\"}","]\\"]},"rules":["A","B"]}`))
	f.Add([]byte(`{"rules":[[],{},"A"],"x":-1.5e3,"y":null,"z":true}`))
	f.Add(routed().AppendJSON(nil))
	f.Add([]byte(`{"a`))
	f.Add([]byte(`{"rules":["`))
	f.Fuzz(func(t *testing.T, data []byte) {
		routes := []Route{
			{MinSeverity: event.High}, {Types: []Glob{"file_*"}}, {Rules: []Glob{"A*"}}, {Namespaces: []Glob{"p"}}, {Clusters: []Glob{"*c*"}},
		}
		var members map[string]json.RawMessage
		valid := json.Unmarshal(data, &members) == nil && members != nil && jsontext.Value(data).IsValid()
		for i := range routes {
			got := routes[i].MatchEvent(data)
			if want := slow(&routes[i], members); valid && got != want {
				t.Errorf("%+v: got %t, want %t of %q", routes[i], got, want, data)
			}
		}
	})
}

// slow is MatchEvent through a decoder.
func slow(r *Route, members map[string]json.RawMessage) bool {
	get := func(name string) (s string) {
		_ = json.Unmarshal(members[name], &s)
		return s
	}
	var severity event.Severity
	if severity.UnmarshalText([]byte(get("severity"))) == nil && severity < r.MinSeverity {
		return false
	}
	rules := []string{""}
	var list []json.RawMessage
	if json.Unmarshal(members["rules"], &list) == nil && len(list) > 0 {
		rules = nil
		for _, l := range list {
			var s string
			_ = json.Unmarshal(l, &s)
			rules = append(rules, s)
		}
	}
	one := func(globs []Glob, of ...string) bool {
		return len(globs) == 0 || slices.ContainsFunc(globs, func(g Glob) bool { return slices.ContainsFunc(of, g.Match) })
	}
	return one(r.Types, get("type")) && one(r.Rules, rules...) && one(r.Namespaces, get("pod_namespace")) && one(r.Clusters, get("cluster"))
}

// BenchmarkMatchEvent: the time for one event of a usual stream, where all is read and where the leading members decide.
func BenchmarkMatchEvent(b *testing.B) {
	var raws []event.Raw
	for _, e := range eventtest.Many(1000, 1) {
		raws = append(raws, e.AppendJSON(nil))
	}
	for _, bb := range []struct {
		name  string
		route Route
	}{
		{"none", Route{}},
		{"severity", Route{MinSeverity: event.Medium}},
		{"leading", Route{MinSeverity: event.Low, Types: []Glob{"*"}, Namespaces: []Glob{"*"}, Clusters: []Glob{"*"}}},
		{"rules", Route{Rules: []Glob{"*"}}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				bb.route.MatchEvent(raws[i%len(raws)])
				i++
			}
		})
	}
}
