package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/inject"
)

// TestPolicyParameters: the chart's policy compares sidecars with what they are. One that it would not know keeps its pod from
// starting. The file is what the chart renders, see infra/helm.
func TestPolicyParameters(t *testing.T) {
	b, err := os.ReadFile("../../../infra/helm/testdata/policy.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var charts map[string]struct {
		Webhook    map[string]string
		Parameters map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &charts); err != nil || len(charts) < 2 {
		t.Fatalf("%d charts, %v", len(charts), err)
	}
	pods := map[string]string{
		"full":     `{"metadata":{},"spec":{"containers":[{"name":"web"}]}}`,
		"same uid": `{"metadata":{},"spec":{"securityContext":{"runAsUser":1000,"runAsGroup":1000},"containers":[{"name":"web"},{"name":"b","securityContext":{"runAsUser":1000}}]}}`,
		"limited":  `{"metadata":{"annotations":{"apss.dev/tier":"pod-limited"}},"spec":{"containers":[{"name":"web"}]}}`,
		"capped":   `{"metadata":{},"spec":{"containers":[{"name":"web","resources":{"limits":{"ephemeral-storage":"1Gi"}}}]}}`,
		"pooled":   `{"metadata":{},"spec":{"resources":{"limits":{"cpu":"1"}},"containers":[{"name":"web"}]}}`,
		"silent":   `{"metadata":{},"spec":{"containers":[{"name":"web","ports":[{"containerPort":9787}]}]}}`,
	}
	for name, c := range charts {
		t.Run(name, func(t *testing.T) {
			var environ []string
			for key, value := range c.Webhook {
				environ = append(environ, key+"="+value)
			}
			s, err := load(environ)
			if err != nil {
				t.Fatal(err)
			}
			in, err := inject.New(s.decide(), s.sidecar("a bundle"), "v1")
			if err != nil {
				t.Fatal(err)
			}
			j := newJudge(t, c.Parameters)
			ns := decide.Namespace{Name: "shop", Labels: map[string]string{decide.LabelInject: "enabled"}}
			for what, object := range pods {
				for _, minor := range []int{28, 34} { // a container, a native sidecar
					_, operations, err := in.Pod([]byte(object), ns, decide.Cluster{Minor: minor})
					if err != nil {
						t.Fatal(err)
					}
					patch, err := jsonpatch.DecodePatch(operations)
					if err != nil {
						t.Fatal(err)
					}
					patched, err := patch.Apply([]byte(object))
					if err != nil {
						t.Fatal(err)
					}
					if err := j.judge(t, patched); err != nil {
						t.Errorf("%s on kubelets of 1.%d: ours is refused: %v\n%s", what, minor, err, patched)
					}
				}
			}
		})
	}
}

// TestPolicyRefuses: what is like ours, and is not.
func TestPolicyRefuses(t *testing.T) {
	type m = map[string]any
	s, err := load(environ())
	if err != nil {
		t.Fatal(err)
	}
	in, err := inject.New(s.decide(), s.sidecar(""), "v1")
	if err != nil {
		t.Fatal(err)
	}
	const object = `{"metadata":{},"spec":{"securityContext":{"runAsUser":1000},"containers":[{"name":"web"}]}}`
	_, operations, err := in.Pod([]byte(object), decide.Namespace{Name: "shop", Labels: map[string]string{decide.LabelInject: "enabled"}}, decide.Cluster{Minor: 34})
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(operations)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := patch.Apply([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	quoted := func(v any) json.RawMessage {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	env := []string{"CLUSTER_NAME=local", "PUBLISHER=relay", "CONTROLLER_ENDPOINT=https://apss-relay.apss.svc:8444", "RELAY_TOKEN_FILE=/var/run/secrets/apss/token",
		"HTTP_ADDR=:18080", "SPOOL_DIR=/var/lib/apss/spool", "STATE_DIR=/var/lib/apss/state"}
	j := newJudge(t, map[string]json.RawMessage{
		"images": quoted([]string{"registry.example/next", image}), "env": quoted([][]string{append([]string{"NEW=1"}, env...), env}),
		"audiences": quoted([]string{"next", "apss-relay"}), "least": quoted(map[string][]string{"cpu": {"100m", "50m"}, "memory": {"64Mi"}, "ephemeral-storage": {"64Mi"}}),
	})
	security := func(name string, value any) func(spec, own m) {
		return func(_, own m) { own["securityContext"].(m)[name] = value }
	}
	mount := func(i int, name string, value any) func(spec, own m) {
		return func(_, own m) { own["volumeMounts"].([]any)[i].(m)[name] = value }
	}
	limits := func(l m) func(spec, own m) { return func(_, own m) { own["resources"] = m{"limits": l} } }
	root := func(_, own m) {
		security("runAsUser", 0)(nil, own)
		security("runAsNonRoot", false)(nil, own)
		security("capabilities", m{"add": []any{"SYS_PTRACE", "DAC_OVERRIDE"}, "drop": []any{"ALL"}})(nil, own)
	}
	for _, tt := range []struct {
		name   string
		change func(spec, own m)
		says   string // empty: it is admitted
	}{
		{"ours", func(_, _ m) {}, ""},
		{"root with its capabilities", root, ""},
		{"nobody", security("runAsUser", 65534), ""},
		{"a later container of another user", func(spec, _ m) {
			spec["containers"] = append(spec["containers"].([]any), m{"name": "proxy", "securityContext": m{"runAsUser": 1337}})
		}, ""},
		{"Autopilot's resources", limits(m{"cpu": "250m", "memory": "512Mi", "ephemeral-storage": "1Gi"}), ""},
		{"no limits", limits(m{}), ""},
		{"the default token", func(_, own m) {
			own["volumeMounts"] = append(own["volumeMounts"].([]any), m{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true})
		}, ""},
		{"root", func(_, own m) { security("runAsUser", 0)(nil, own); security("runAsNonRoot", false)(nil, own) }, "as a user"},
		{"no user", security("runAsUser", nil), "as a user"},
		{"another user", security("runAsUser", 12345), "as a user"},
		{"capabilities of a user", func(_, own m) { root(nil, own); security("runAsUser", 1000)(nil, own) }, "as a user"},
		{"some capabilities", func(_, own m) {
			root(nil, own)
			security("capabilities", m{"add": []any{"SYS_PTRACE"}, "drop": []any{"ALL"}})(nil, own)
		}, "other rights"},
		{"nothing dropped", security("capabilities", m{}), "other rights"},
		{"no seccomp", security("seccompProfile", m{"type": "Unconfined"}), "other rights"},
		{"its spool elsewhere", mount(0, "mountPath", "/spool"), "elsewhere"},
		{"its token elsewhere", mount(1, "mountPath", "/t"), "elsewhere"},
		{"its token over its spool", mount(1, "mountPath", "/var/lib/apss"), "elsewhere"},
		{"a spool that cannot be written", mount(0, "readOnly", true), "elsewhere"},
		{"a part of the token's volume", mount(1, "subPath", "x"), "elsewhere"},
		{"no token", func(_, own m) { own["volumeMounts"] = own["volumeMounts"].([]any)[:1] }, "elsewhere"},
		{"a CPU limit that starves it", limits(m{"cpu": "1m"}), "too little"},
		{"a memory limit that kills it", limits(m{"memory": 1}), "too little"},
		{"a limit of storage that evicts the pod", limits(m{"ephemeral-storage": "1Mi"}), "too little"},
		{"a token that is an empty folder", func(spec, _ m) { spec["volumes"].([]any)[1] = m{"name": "apss-token", "emptyDir": m{}} }, "volumes apss-spool and"},
		{"no token in it", func(spec, _ m) { spec["volumes"].([]any)[1] = m{"name": "apss-token", "projected": m{}} }, "volumes apss-spool and"},
		{"a token beside others", func(spec, _ m) {
			p := spec["volumes"].([]any)[1].(m)["projected"].(m)
			p["sources"] = append(p["sources"].([]any), m{"secret": m{"name": "x"}})
		}, "volumes apss-spool and"},
		{"a spool of memory", func(spec, _ m) { spec["volumes"].([]any)[0].(m)["emptyDir"] = m{"medium": "Memory"} }, "volumes apss-spool and"},
		{"a small spool", func(spec, _ m) { spec["volumes"].([]any)[0].(m)["emptyDir"] = m{"sizeLimit": "1Ki"} }, "volumes apss-spool and"},
		{"settings of two releases", func(_, own m) { own["env"] = append(own["env"].([]any), m{"name": "NEW", "value": "2"}) }, "settings"},
		{"a port of the node", func(_, own m) { own["ports"] = []any{m{"containerPort": 1, "hostPort": 1}} }, "something else"},
	} {
		var pod m
		if err := json.Unmarshal(patched, &pod); err != nil {
			t.Fatal(err)
		}
		spec := pod["spec"].(m)
		own := spec["initContainers"].([]any)[0].(m)
		tt.change(spec, own)
		if security := own["securityContext"].(m); security["runAsUser"] == nil {
			delete(security, "runAsUser")
		}
		err := j.judge(t, quoted(pod))
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.says)
		}
	}
}
