package main

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

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
		Parameters struct {
			Images, Env []string
			Audience    string
		}
	}
	if err := json.Unmarshal(b, &charts); err != nil || len(charts) < 2 {
		t.Fatalf("%d charts, %v", len(charts), err)
	}
	free := []string{"WORKLOAD", "RELAY_CA", "SPOOL_MAX_BYTES", "SPOOL_ALERTS_MAX_BYTES", "SPOOL_SEGMENT_BYTES"}
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
			object := []byte(`{"metadata":{},"spec":{"containers":[{"name":"web"}]}}`)
			ns := decide.Namespace{Name: "shop", Labels: map[string]string{decide.LabelInject: "enabled"}}
			_, operations, err := in.Pod(object, ns, decide.Cluster{Minor: 34})
			if err != nil {
				t.Fatal(err)
			}
			patch, err := jsonpatch.DecodePatch(operations)
			if err != nil {
				t.Fatal(err)
			}
			patched, err := patch.Apply(object)
			if err != nil {
				t.Fatal(err)
			}
			var p corev1.Pod
			if err := json.Unmarshal(patched, &p); err != nil {
				t.Fatal(err)
			}
			sidecar, lines := p.Spec.InitContainers[0], c.Parameters.Env
			var got []string
			for _, e := range sidecar.Env {
				line := e.Name + "=" + e.Value
				if e.ValueFrom == nil && (slices.Contains(lines, line) || !slices.Contains(free, e.Name)) {
					got = append(got, line)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, lines) {
				t.Errorf("the sidecar has the settings\n%q\nand the policy wants\n%q", got, lines)
			}
			if images := c.Parameters.Images; !slices.Contains(images, sidecar.Image) {
				t.Errorf("the policy's images are %q, the sidecar's is %s", images, sidecar.Image)
			}
			if got := p.Spec.Volumes[1].Projected.Sources[0].ServiceAccountToken.Audience; got != c.Parameters.Audience {
				t.Errorf("the token is for %q, the policy wants %q", got, c.Parameters.Audience)
			}
		})
	}
}
