package helm

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

type values = map[string]any

// given are the values that a person must give; each of more is laid over them.
func given(more ...values) values {
	v := values{
		"mode": "sidecar", "project": "acme-security", "cluster": "prod-1",
		"images": values{"registry": "europe-west1-docker.pkg.dev/acme-security/apss", "digests": values{
			"agent": digest("a"), "relay": digest("b"), "webhook": digest("c"),
		}},
	}
	for _, m := range more {
		v = util.CoalesceTables(m, v)
	}
	return v
}

func digest(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

// rendering is what the chart comes to.
type rendering struct {
	objects []*unstructured.Unstructured
	notes   string
}

// render renders the chart as for a cluster with these further APIs.
func render(t *testing.T, v values, apis ...string) (*rendering, error) {
	t.Helper()
	chart, err := loader.Load("apss")
	if err != nil {
		t.Fatal(err)
	}
	caps := common.DefaultCapabilities.Copy()
	caps.APIVersions = append(append(slices.Clone(caps.APIVersions), "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"), apis...)
	release := common.ReleaseOptions{Name: "apss", Namespace: "apss-system", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(chart, v, release, caps)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		return nil, err
	}
	r := &rendering{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, "NOTES.txt") {
			r.notes = files[name]
			continue
		}
		for doc := range strings.SplitSeq("\n"+files[name], "\n---") {
			var object map[string]any
			if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
				t.Fatalf("%s: %v in\n%s", name, err, doc)
			}
			if len(object) > 0 {
				r.objects = append(r.objects, &unstructured.Unstructured{Object: object})
			}
		}
	}
	return r, nil
}

func mustRender(t *testing.T, v values, apis ...string) *rendering {
	t.Helper()
	r, err := render(t, v, apis...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// names are kind/name of what was rendered.
func (r *rendering) names() []string {
	var names []string
	for _, o := range r.objects {
		names = append(names, o.GetKind()+"/"+o.GetName())
	}
	slices.Sort(names)
	return names
}

// strict decodes with every field known.
var strict = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// typed returns o as the type of Kubernetes; nil for kinds that Kubernetes does not have itself.
func typed(t *testing.T, o *unstructured.Unstructured) runtime.Object {
	t.Helper()
	if !scheme.Scheme.Recognizes(o.GroupVersionKind()) {
		return nil
	}
	b, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	object, _, err := strict.Decode(b, nil, nil)
	if err != nil {
		t.Errorf("%s/%s: %v", o.GetKind(), o.GetName(), err)
	}
	return object
}
