package inject

import (
	"encoding/json"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/apss-sensor/apss/webhook/internal/decide"
)

// injected returns the sidecar of a pod whose spec has these members, with its volumes.
func injected(t *testing.T, spec string) (corev1.Container, []corev1.Volume) {
	t.Helper()
	in, object := injector(t), []byte(`{"metadata":{"name":"web"},"spec":{`+spec+`}}`)
	d, patch, err := in.Pod(object, enabled, modern)
	if err != nil || d.Reason != decide.Injected {
		t.Fatalf("%s: %s, %v", spec, d.Reason, err)
	}
	patched := apply(t, object, patch)
	again(t, in, patched, d.Reason)
	var p corev1.Pod
	if err := json.Unmarshal(patched, &p); err != nil {
		t.Fatal(err)
	}
	return p.Spec.InitContainers[len(p.Spec.InitContainers)-1], p.Spec.Volumes
}

func setting(t *testing.T, c *corev1.Container, name string) string {
	t.Helper()
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	t.Fatalf("the sidecar has no %s", name)
	return ""
}

// Nothing of the sidecar bounds what the application may store, use or listen on.
func TestNoHarm(t *testing.T) {
	for _, tt := range []struct {
		name, spec     string
		capped, pooled bool
		addr           string
	}{
		{"a plain pod", `"containers":[{"name":"web"}]`, false, false, ":18080"},
		{"others have a limit of storage", `"containers":[{"name":"web","resources":{"limits":{"ephemeral-storage":"1Gi"}}}]`, true, false, ":18080"},
		{"others have none", `"containers":[{"name":"web","resources":{"limits":{"cpu":1,"ephemeral-storage":null}}}]`, false, false, ":18080"},
		{"the pod has resources", `"resources":{"requests":{"cpu":"100m"}},"containers":[{"name":"web","resources":{"requests":{"cpu":"100m"}}}]`, false, true, ":18080"},
		{"the port is the application's", `"containers":[{"name":"web","ports":[{"containerPort":80},{"containerPort":18080}]}]`, false, false, "off"},
		{"the port is an init container's", `"initContainers":[{"name":"i","ports":[{"containerPort":18080}]}],"containers":[{"name":"web"}]`, false, false, "off"},
	} {
		c, _ := injected(t, tt.spec)
		if _, got := c.Resources.Limits[corev1.ResourceEphemeralStorage]; got != tt.capped {
			t.Errorf("%s: a limit of storage is %t, want %t: the kubelet evicts pods by their sum", tt.name, got, tt.capped)
		}
		_, request := c.Resources.Requests[corev1.ResourceCPU]
		_, limit := c.Resources.Limits[corev1.ResourceMemory]
		if request == tt.pooled || limit == tt.pooled {
			t.Errorf("%s: got resources %v", tt.name, c.Resources)
		}
		if got := setting(t, &c, "HTTP_ADDR"); got != tt.addr || (len(c.Ports) == 0) != (tt.addr == "off") {
			t.Errorf("%s: got HTTP_ADDR %s, ports %v, want %s", tt.name, got, c.Ports, tt.addr)
		}
	}
}

// What the agent keeps fits in its volume: a volume that is too full costs the whole pod.
func TestSpoolFits(t *testing.T) {
	c, volumes := injected(t, `"containers":[{"name":"web"}]`)
	number := func(name string) int64 {
		n, err := strconv.ParseInt(setting(t, &c, name), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	events, alerts, segment := number("SPOOL_MAX_BYTES"), number("SPOOL_ALERTS_MAX_BYTES"), number("SPOOL_SEGMENT_BYTES")
	if size := volumes[0].EmptyDir.SizeLimit.Value(); events+alerts+2*segment >= size {
		t.Errorf("%d of events, %d of alerts and two files of %d do not fit in %d with room for the rest", events, alerts, segment, size)
	}
	if min(events, alerts) < 2*segment || segment < 64<<10 {
		t.Errorf("the agent refuses %d, %d with files of %d", events, alerts, segment)
	}
	s := sidecar()
	s.Spool = "1Mi"
	if s.Validate() == nil {
		t.Error("a spool without room for its files is accepted")
	}
}

// Who pulls with Secrets goes on to, and the agent's image is pulled with those that the operator names.
func TestPullSecrets(t *testing.T) {
	s := sidecar()
	s.PullSecrets = []string{"regcred", "other"}
	in, err := New(settings(), s, "v1")
	if err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		``:                         `[{"name":"regcred"},{"name":"other"}]`,
		`"imagePullSecrets":null,`: `[{"name":"regcred"},{"name":"other"}]`,
		`"imagePullSecrets":[{"name":"mine"},{"name":"other"}],`: `[{"name":"mine"},{"name":"other"},{"name":"regcred"}]`,
	} {
		object := []byte(`{"metadata":{"name":"web"},"spec":{` + spec + `"containers":[{"name":"web"}]}}`)
		_, patch, err := in.Pod(object, enabled, modern)
		if err != nil {
			t.Fatal(err)
		}
		patched := apply(t, object, patch)
		var p corev1.Pod
		if err := json.Unmarshal(patched, &p); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(p.Spec.ImagePullSecrets); err != nil || string(got) != want {
			t.Errorf("%s: got %s want %s", spec, got, want)
		}
		again(t, in, patched, decide.Injected)
	}
	s.PullSecrets = []string{"A b"}
	if s.Validate() == nil {
		t.Error("a name that is none is accepted")
	}
}
