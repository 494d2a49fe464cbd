package inject

import (
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/webhook/internal/decide"
)

var update = flag.Bool("update", false, "write the golden files")

func sidecar() Sidecar {
	return Sidecar{
		Image:   "registry.example/apss-agent@sha256:" + strings.Repeat("ab", 32),
		Cluster: "prod-1", Relay: "https://apss-relay.apss.svc:8444", RelayCA: "-----BEGIN CERTIFICATE-----\n", Audience: "apss-relay",
		Port: 18080, Spool: "64Mi", Request: Amount{"50m", "64Mi"}, Limit: Amount{"0.25", "128Mi"}, Env: map[string]string{"LOG_LEVEL": "WARN", "HEARTBEAT_INTERVAL": "30s"},
	}
}

func settings() decide.Settings {
	return decide.Settings{OptOut: decide.ByNamespace, Tier: decide.Auto, Own: "apss"}
}

var (
	enabled = decide.Namespace{Name: "shop", Labels: map[string]string{decide.LabelInject: "enabled"}}
	modern  = decide.Cluster{Minor: 34}
)

func injector(tb testing.TB) *Injector {
	tb.Helper()
	in, err := New(settings(), sidecar(), "v1.2.3")
	if err != nil {
		tb.Fatal(err)
	}
	return in
}

// apply applies a patch as the API server does.
func apply(tb testing.TB, object, patch []byte) []byte {
	tb.Helper()
	if patch == nil {
		return object
	}
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		tb.Fatalf("%v: %s", err, patch)
	}
	out, err := p.Apply(object)
	if err != nil {
		tb.Fatalf("%v: %s of %s", err, patch, object)
	}
	return out
}

func indent(t *testing.T, b []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

// Pods as people write them, in testdata/*.json, with what comes of them in *.golden.
func TestGolden(t *testing.T) {
	in := injector(t)
	pods, err := filepath.Glob("testdata/*.json")
	if err != nil || len(pods) < 5 {
		t.Fatal(pods, err)
	}
	for _, file := range pods {
		t.Run(filepath.Base(file), func(t *testing.T) {
			object, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d, patch, err := in.Pod(object, enabled, modern)
			if err != nil {
				t.Fatal(err)
			}
			patched := apply(t, object, patch)
			got := string(d.Reason) + " " + string(d.Tier) + "\n" + strings.Join(append(d.Warnings, ""), "\n") + indent(t, patched)
			golden := strings.TrimSuffix(file, ".json") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got), go test -update writes it:\n%s", diff)
			}
			again(t, in, patched, d.Reason)
		})
	}
}

// again: injecting twice changes nothing.
func again(t *testing.T, in *Injector, patched []byte, before decide.Reason) {
	t.Helper()
	d, patch, err := in.Pod(patched, enabled, modern)
	if err != nil || patch != nil {
		t.Errorf("the patched pod is patched again: %s, %v", patch, err)
	}
	if before == decide.Injected && d.Reason != decide.AlreadyInjected {
		t.Errorf("the patched pod: got %s want %s", d.Reason, decide.AlreadyInjected)
	}
}

const plain = `{"metadata":{"name":"web"},"spec":{"containers":[{"name":"web","image":"nginx"}]}}`

// A sidecar that came back from the API server is ours with its defaults, and not with anything else.
func TestGenuine(t *testing.T) {
	in := injector(t)
	_, patch, err := in.Pod([]byte(plain), enabled, modern)
	if err != nil {
		t.Fatal(err)
	}
	patched := apply(t, []byte(plain), patch)
	type object = map[string]any
	own := func(pod object) object { return pod["spec"].(object)["initContainers"].([]any)[0].(object) }
	for name, c := range map[string]struct {
		alter func(pod object)
		want  decide.Reason
	}{
		"as patched": {func(object) {}, decide.AlreadyInjected},
		"with defaults": {func(pod object) {
			maps.Copy(own(pod), object{"imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
			own(pod)["volumeMounts"] = append(own(pod)["volumeMounts"].([]any), object{"name": "kube-api-access-x", "mountPath": accountMount, "readOnly": true})
			delete(own(pod)["env"].([]any)[0].(object), "value") // empty
		}, decide.AlreadyInjected},
		"with Autopilot's resources": {func(pod object) { own(pod)["resources"] = object{"limits": object{"memory": "1Gi"}} }, decide.AlreadyInjected},
		"other image":                {func(pod object) { own(pod)["image"] = "evil" }, decide.Foreign},
		"command":                    {func(pod object) { own(pod)["command"] = []any{"sleep", "inf"} }, decide.Foreign},
		"one more env": {func(pod object) {
			own(pod)["env"] = append(own(pod)["env"].([]any), object{"name": "LD_PRELOAD", "value": "/x"})
		}, decide.Foreign},
		"other relay": {func(pod object) { own(pod)["env"].([]any)[7].(object)["value"] = "https://evil" }, decide.Foreign},
		"privileged":  {func(pod object) { own(pod)["securityContext"].(object)["privileged"] = true }, decide.Foreign},
		"one more mount": {func(pod object) {
			own(pod)["volumeMounts"] = append(own(pod)["volumeMounts"].([]any), object{"name": "x", "mountPath": "/etc"})
		}, decide.Foreign},
		"lifecycle": {func(pod object) { own(pod)["lifecycle"] = object{} }, decide.Foreign},
		"ends":      {func(pod object) { delete(own(pod), "restartPolicy") }, decide.Foreign},
		"twice": {func(pod object) {
			c := pod["spec"].(object)["containers"].([]any)
			pod["spec"].(object)["containers"] = append(c, own(pod))
		}, decide.Foreign},
		"a host's folder": {func(pod object) {
			pod["spec"].(object)["volumes"].([]any)[0] = object{"name": decide.SpoolVolume, "hostPath": object{"path": "/"}}
		}, decide.Foreign},
		"only the volume": {func(pod object) { delete(pod["spec"].(object), "initContainers") }, decide.Foreign},
	} {
		var pod object
		if err := json.Unmarshal(patched, &pod); err != nil {
			t.Fatal(err)
		}
		c.alter(pod)
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		d, patch, err := in.Pod(raw, enabled, modern)
		if err != nil || patch != nil || d.Reason != c.want {
			t.Errorf("%s: got %s, patch %s, error %v; want %s and no patch", name, d.Reason, patch, err, c.want)
		}
		if (d.Reason == decide.Foreign) != (len(d.Warnings) == 1) {
			t.Errorf("%s: got warnings %q", name, d.Warnings)
		}
	}
}

// What a later webhook does to the rest of the pod makes the sidecar no less ours; what is done to it does.
func TestGenuineAfterALaterWebhook(t *testing.T) {
	in := injector(t)
	object := []byte(`{"metadata":{"name":"web"},"spec":{"securityContext":{"runAsUser":1000,"runAsGroup":1000},"initContainers":[{"name":"i"}],"containers":[{"name":"web"},{"name":"b"}]}}`)
	d, patch, err := in.Pod(object, enabled, modern)
	if err != nil || d.Tier != decide.SameUID {
		t.Fatal(d, err)
	}
	patched := apply(t, object, patch)
	type m = map[string]any
	list := func(spec m, name string) []any { return spec[name].([]any) }
	own := func(spec m) m { return list(spec, "initContainers")[1].(m) }
	for name, tt := range map[string]struct {
		alter func(spec m)
		want  decide.Reason
	}{
		"a container of another user": {func(spec m) {
			spec["containers"] = append(list(spec, "containers"), m{"name": "proxy", "securityContext": m{"runAsUser": 1337}})
		}, decide.AlreadyInjected},
		"an init container of root, first": {func(spec m) {
			spec["initContainers"] = append([]any{m{"name": "iptables", "securityContext": m{"runAsUser": 0}}}, list(spec, "initContainers")...)
		}, decide.AlreadyInjected},
		"another order": {func(spec m) {
			for _, name := range []string{"initContainers", "containers", "volumes"} {
				slices.Reverse(list(spec, name))
			}
		}, decide.AlreadyInjected},
		"another order in it": {func(spec m) {
			slices.Reverse(list(own(spec), "env"))
			slices.Reverse(list(own(spec), "volumeMounts"))
		}, decide.AlreadyInjected},
		"a container with our port": {func(spec m) { list(spec, "containers")[0].(m)["ports"] = []any{m{"containerPort": 18080}} }, decide.AlreadyInjected},
		"a container with a limit of space": {func(spec m) {
			list(spec, "containers")[0].(m)["resources"] = m{"limits": m{"ephemeral-storage": "1Gi"}}
		}, decide.AlreadyInjected},
		"one container gets another user":   {func(spec m) { list(spec, "containers")[0].(m)["securityContext"] = m{"runAsUser": 7} }, decide.AlreadyInjected},
		"all get another user":              {func(spec m) { spec["securityContext"] = m{"runAsUser": 7} }, decide.Foreign},
		"the sidecar gets another user":     {func(spec m) { own(spec)["securityContext"].(m)["runAsUser"] = 7 }, decide.Foreign},
		"the sidecar becomes root":          {func(spec m) { own(spec)["securityContext"].(m)["runAsUser"] = 0 }, decide.Foreign},
		"the sidecar gets no user":          {func(spec m) { delete(own(spec)["securityContext"].(m), "runAsUser") }, decide.Foreign},
		"the sidecar gets another variable": {func(spec m) { own(spec)["env"] = append(list(own(spec), "env"), m{"name": "AWS_ROLE", "value": "x"}) }, decide.Foreign},
		"the sidecar twice":                 {func(spec m) { spec["initContainers"] = append(list(spec, "initContainers"), own(spec)) }, decide.Foreign},
	} {
		var pod m
		if err := json.Unmarshal(patched, &pod); err != nil {
			t.Fatal(err)
		}
		tt.alter(pod["spec"].(m))
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		if d, again, err := in.Pod(raw, enabled, modern); err != nil || again != nil || d.Reason != tt.want {
			t.Errorf("%s: got %s, patch %s, error %v; want %s and no patch", name, d.Reason, again, err, tt.want)
		}
	}
}

// A setting that is ours has the operator's value, once.
func TestTheOperatorsSettingsComeFirst(t *testing.T) {
	s := sidecar()
	s.Env = map[string]string{"PUBLISHER": "stdout", "POD_UID": "x", "NEW": "y"}
	got := map[string]env{}
	for _, e := range s.container(form{tier: decide.Full, native: true}).Env {
		if _, twice := got[e.Name]; twice {
			t.Errorf("%s is there twice", e.Name)
		}
		got[e.Name] = e
	}
	for name, value := range s.Env {
		if got[name].Value != value || got[name].From != nil {
			t.Errorf("%s: got %+v want %s", name, got[name], value)
		}
	}
}

func TestNewReportsAllFaults(t *testing.T) {
	_, err := New(decide.Settings{OptOut: "x", Tier: "y", Excluded: []string{"[", "ok-*"}},
		Sidecar{Image: "apss:latest", Relay: "http://relay", Port: 80, Spool: "x", Request: Amount{"50m", "-1"}, Limit: Amount{"1", "1Gi"}, Env: map[string]string{"a b": ""}}, "v")
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{`who may opt out is "x"`, `the tier is "y"`, `"[" is no pattern`, "by digest", "https://", "audience", "port is 80", `spool is "x"`, `memory request is "-1"`, `"a b"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %q in it", err, want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	in := injector(t)
	for _, object := range []string{"", "null", "[]", "{", `{"spec":{"containers":{}}}`, `{"spec":{"containers":[1]}}`, `{"metadata":{"annotations":{"apss.dev/tier":1}}}`, "{\"a\":\"\xff\"}"} {
		d, patch, err := in.Pod([]byte(object), enabled, modern)
		if err == nil || d.Reason != decide.Unreadable || patch != nil {
			t.Errorf("%q: got %s, %s, %v; want an error", object, d.Reason, patch, err)
		}
	}
	for _, object := range []string{"{}", `{"spec":null,"metadata":null}`, `{"spec":{"containers":null}}`} {
		if d, patch, err := in.Pod([]byte(object), enabled, modern); err != nil || d.Reason != decide.NoContainers || patch != nil {
			t.Errorf("%s: got %s, %s, %v; want %s", object, d.Reason, patch, err, decide.NoContainers)
		}
	}
}
