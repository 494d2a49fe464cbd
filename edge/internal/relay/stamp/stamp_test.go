package stamp_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/relay/stamp"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

var place = stamp.Place{AgentID: "prod/p", Cluster: "prod", Node: "n1", Pod: "p", Namespace: "shop"}

// end is what is added to an event that says nothing of its place.
const end = `"agent_id":"prod/p","cluster":"prod","node_name":"n1","pod_name":"p","pod_namespace":"shop"}`

func TestEvent(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		severity       event.Severity
		claims         []stamp.Claim
	}{
		{"nothing said", `{}`, `{` + end, 0, nil},
		{"blanks", " {\t} ", " {\t" + end, 0, nil},
		{"all as it is", `{"id":"1",` + end, `{"id":"1",` + end, 0, nil},
		{"all in place", `{"pod_namespace":"shop","pod_name":"p","x":{"pod_name":"inner"},"node_name":"n1","cluster":"prod","agent_id":"prod/p"}`,
			`{"pod_namespace":"shop","pod_name":"p","x":{"pod_name":"inner"},"node_name":"n1","cluster":"prod","agent_id":"prod/p"}`, 0, nil},
		{"a lie", `{"agent_id":"prod/p","severity":"HIGH","cluster":"prod","node_name":"","pod_name":"victim","pod_namespace":"shop"}`,
			`{"agent_id":"prod/p","severity":"HIGH","cluster":"prod","node_name":"n1","pod_name":"p","pod_namespace":"shop"}`,
			event.High, []stamp.Claim{{Member: "pod_name", Value: "victim"}}},
		{"an escaped name and value", `{"pod\u005fname" : "\u0076ictim" , "a":1}`,
			`{"pod\u005fname" : "p" , "a":1,"agent_id":"prod/p","cluster":"prod","node_name":"n1","pod_namespace":"shop"}`,
			0, []stamp.Claim{{Member: "pod_name", Value: "victim"}}},
		{"an escaped truth is one", `{"pod_name":"\u0070"}`,
			`{"pod_name":"p","agent_id":"prod/p","cluster":"prod","node_name":"n1","pod_namespace":"shop"}`, 0, nil},
		{"other case", `{"id":"1","POD_NAME":"victim","cluſter":"x","severity":"low"}`, `{` + strings.TrimSuffix(end, "}") + `,"id":"1","severity":"low"}`,
			event.Low, []stamp.Claim{{Member: "POD_NAME", Value: "victim"}, {Member: "cluſter", Value: "x"}}},
		{"no strings", `{"pod_name":null,"pod_namespace":{"a":["}"]},"node_name":7,"agent_id":"","cluster":[]}`,
			`{"pod_name":"p","pod_namespace":"shop","node_name":"n1","agent_id":"prod/p","cluster":"prod"}`,
			0, []stamp.Claim{{Member: "pod_namespace", Value: `{"a":["}"]}`}, {Member: "node_name", Value: "7"}, {Member: "cluster", Value: "[]"}}},
		{"quotes and braces in strings", `{"a":"}\"{\\","b":["\\\"]"],"severity":"CRITICAL"}`,
			`{"a":"}\"{\\","b":["\\\"]"],"severity":"CRITICAL",` + end, event.Critical, nil},
		{"twice", `{"pod_name":"p","a":1,"pod_name":"victim"}`, `{` + strings.TrimSuffix(end, "}") + `,"a":1}`, 0, []stamp.Claim{{Member: "pod_name", Value: "victim"}}},
		{"every kind of value", `{"a":[0,-1.5e+3,1E2,true,false,null,"\ud83d\ude00\/",{},[ ],{"b" : [ {} ]}]}`,
			`{"a":[0,-1.5e+3,1E2,true,false,null,"\ud83d\ude00\/",{},[ ],{"b" : [ {} ]}],` + end, 0, nil},
		{"no severity", `{"severity":"dire"}`, `{"severity":"dire",` + end, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, severity, claims, err := stamp.New(place).Event([]byte("before"), event.Raw(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != "before"+c.want || severity != c.severity {
				t.Errorf("got  %s at %v\nwant before%s at %v", got, severity, c.want, c.severity)
			}
			if diff := cmp.Diff(c.claims, claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

// An event may hold thousands of names that look like five; what is kept of them is bounded.
func TestClaimsAreFew(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"pod_name":"q"`)
	for i := range 1 << len("cluster") {
		name := []byte("cluster")
		for j := range name {
			if i>>j&1 != 0 {
				name[j] -= 'a' - 'A'
			}
		}
		b.WriteString(`,"` + string(name) + `":"other"`)
	}
	b.WriteString("}")
	_, _, claims, err := stamp.New(place).Event(nil, event.Raw(b.String()))
	if err != nil || len(claims) == 0 || len(claims) > 16 {
		t.Errorf("got %d claims, %v, want 16 at most", len(claims), err)
	}
}

func TestMalformed(t *testing.T) {
	for _, in := range []string{``, ` `, `[]`, `{`, `{"a"`, `{"a"}`, `{"a":`, `{"a":1`, `{"a":"`, `{"a":"\`, `{"a":[`, `{"a":[1`, `{"a":1 "b":2}`, `{a:1}`, `{"a":}`, `{"POD_NAME":1,`,
		`{"a":01}`, `{"a":1.}`, `{"a":-}`, `{"a":1e}`, `{"a":tru}`, `{"a":"\x"}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00"}`, "{\"a\":\"\n\"}",
		"{\"a\":\"\xff\"}", `{"a":[1,]}`, `{"a":{"b":1,}}`, `{"a":1,}`, `{} x`, `{}{}`, `{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`} {
		got, _, _, err := stamp.New(place).Event([]byte("before"), event.Raw(in))
		if err == nil || string(got) != "before" {
			t.Errorf("%q: got %q, %v, want an error and nothing", in, got, err)
		}
	}
}

func TestAlert(t *testing.T) {
	a, b := eventtest.Alert(), eventtest.Alert()
	a.PodName, a.Event.PodNamespace = "victim", "bank"
	a.Extra, a.Event.Extra = jsontext.Value(`{"Pod_Name":"victim","new":1}`), jsontext.Value(`{"POD_NAMESPACE":"bank"}`)
	claims := stamp.New(place).Alert(a)
	if len(claims) < 2 || claims[0].Member == "" {
		t.Errorf("got claims %v, want the pod's and the namespace's among them", claims)
	}
	for what, got := range map[string][2]string{
		"pod": {a.PodName, "p"}, "namespace": {a.PodNamespace, "shop"}, "node": {a.NodeName, "n1"}, "cluster": {a.Cluster, "prod"},
		"its event's pod": {a.Event.PodName, "p"}, "its event's namespace": {a.Event.PodNamespace, "shop"},
		"its event's agent": {a.Event.AgentID, "prod/p"}, "what it has besides": {string(a.Extra), `{"new":1}`},
		"what its event has besides": {string(a.Event.Extra), `{}`},
	} {
		if got[0] != got[1] {
			t.Errorf("got %q as %s, want %q", got[0], what, got[1])
		}
	}
	elsewhere := place
	elsewhere.Namespace = "bank"
	stamp.New(elsewhere).Alert(b)
	if a.Fingerprint == b.Fingerprint || a.Fingerprint == eventtest.Alert().Fingerprint {
		t.Errorf("two namespaces' alerts have the fingerprints %q and %q", a.Fingerprint, b.Fingerprint)
	}
	if err := a.Validate(); err != nil {
		t.Error(err)
	}
}

func TestNothingIsAllocatedForAnHonestEvent(t *testing.T) {
	e := eventtest.Exec()
	s := stamp.New(of(e))
	raw := event.Raw(e.AppendJSON(nil))
	room := make([]byte, 0, 4<<10)
	n := testing.AllocsPerRun(100, func() {
		if _, _, _, err := s.Event(room, raw); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

// of is the place that an honest pod has.
func of(e *event.Event) stamp.Place {
	return stamp.Place{AgentID: e.AgentID, Cluster: e.Cluster, Node: e.NodeName, Pod: e.PodName, Namespace: e.PodNamespace}
}

// FuzzEvent compares the splice with a decoder: all that is not identity stays, the identity stands there once and in no
// other spelling.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add(eventtest.Exec().AppendJSON(nil))
	f.Add(eventtest.FileModify().AppendJSON(nil))
	f.Add([]byte(`{"pod\u005fname":"x","POD_NAME":1,"a":{"pod_name":"}"},"node_name":[1,"\"]"]}`))
	f.Add([]byte(`{"cluſter":null,"agent_id":-1.5e3 , "severity":"HIGH"}`))
	s := stamp.New(place)
	f.Fuzz(func(t *testing.T, in []byte) {
		got, _, _, err := s.Event(nil, event.Raw(in))
		v := jsontext.Value(in)
		if valid := v.IsValid(jsontext.AllowDuplicateNames(true)) && v.Kind() == '{' && depth(v) <= 100; valid != (err == nil) {
			t.Fatalf("%q: got %v, valid is %v", in, err, valid)
		}
		if err != nil {
			return
		}
		if !jsontext.Value(got).IsValid(jsontext.AllowDuplicateNames(true)) {
			t.Fatalf("%q became %q", in, got)
		}
		if twice(t, got) {
			t.Fatalf("%q became %q, which says a place twice", in, got)
		}
		names := map[string]string{"agent_id": "prod/p", "cluster": "prod", "node_name": "n1", "pod_name": "p", "pod_namespace": "shop"}
		before, after := object(t, in), object(t, got)
		for name, want := range names {
			if string(after[name]) != `"`+want+`"` {
				t.Fatalf("%q became %q, in which %s is %s", in, got, name, after[name])
			}
			delete(before, name)
			delete(after, name)
		}
		for name := range after {
			for ours := range names {
				if strings.EqualFold(name, ours) {
					t.Fatalf("%q became %q, which has %q", in, got, name)
				}
			}
		}
		for name := range before {
			for ours := range names {
				if strings.EqualFold(name, ours) {
					delete(before, name)
				}
			}
		}
		if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b json.RawMessage) bool { return bytes.Equal(a, b) })); diff != "" {
			t.Fatalf("%q became %q (-want +got):\n%s", in, got, diff)
		}
	})
}

// twice reports whether an object has one of the identity's names twice.
func twice(t *testing.T, b []byte) bool {
	t.Helper()
	d := jsontext.NewDecoder(bytes.NewReader(b), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{"agent_id": false, "cluster": false, "node_name": false, "pod_name": false, "pod_namespace": false}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			t.Fatal(err)
		}
		if was, ours := seen[name.String()]; was {
			return true
		} else if ours {
			seen[name.String()] = true
		}
		if err := d.SkipValue(); err != nil {
			t.Fatal(err)
		}
	}
	return false
}

func depth(v jsontext.Value) (deepest int) {
	d := jsontext.NewDecoder(bytes.NewReader(v), jsontext.AllowDuplicateNames(true))
	for {
		if _, err := d.ReadToken(); err != nil {
			return deepest
		}
		deepest = max(deepest, d.StackDepth())
	}
}

func object(t *testing.T, b []byte) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func BenchmarkEvent(b *testing.B) {
	s := stamp.New(place)
	events := eventtest.Many(1000, 1)
	raws := make([]event.Raw, len(events))
	total := 0
	for i, e := range events {
		e.AgentID, e.Cluster, e.NodeName, e.PodName, e.PodNamespace = place.AgentID, place.Cluster, place.Node, place.Pod, place.Namespace
		raws[i] = e.AppendJSON(nil)
		total += len(raws[i])
	}
	var room []byte
	b.SetBytes(int64(total / len(raws)))
	i := 0
	for b.Loop() {
		var err error
		if room, _, _, err = s.Event(room[:0], raws[i%len(raws)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
