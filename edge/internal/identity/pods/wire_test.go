package pods_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"

	"github.com/apss-sensor/apss/edge/internal/identity/pods"
)

// What is decoded of a pod's protobuf is what is decoded of its JSON, where names instead of numbers decide; pods are of
// Kubernetes' own types with everything in them filled.
func TestUnmarshal(t *testing.T) {
	for seed := range int64(200) {
		var o corev1.Pod
		randfill.NewWithSeed(seed).NilChance(0.2).NumElements(1, 3).MaxDepth(8).Fill(&o)
		o.OwnerReferences = []metav1.OwnerReference{{Kind: "Job", Name: fmt.Sprint(seed), Controller: new(true)}}
		o.Labels = map[string]string{"a": "b", "pod-template-hash": "h", "rollouts-pod-template-hash": "r"}
		o.Annotations = map[string]string{"kubernetes.io/config.mirror": "m", "k8s.io/initial-events-end": "true", "c": "d"}
		raw, err := o.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		o.ManagedFields = nil // no JSON
		text, err := json.Marshal(&o)
		if err != nil {
			t.Fatal(err)
		}
		var got, want pods.Pod
		if err := got.Unmarshal(raw); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		want.TypeMeta = metav1.TypeMeta{}
		m := want.ObjectMeta
		want.ObjectMeta = metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, OwnerReferences: m.OwnerReferences}
		want.Labels = map[string]string{"pod-template-hash": "h", "rollouts-pod-template-hash": "r"}
		want.Annotations = map[string]string{"kubernetes.io/config.mirror": "m", "k8s.io/initial-events-end": "true"}
		if diff := cmp.Diff(&want, &got); diff != "" {
			t.Fatalf("seed %d (-JSON +protobuf):\n%s", seed, diff)
		}
		if diff := cmp.Diff(&got, got.DeepCopyObject()); diff != "" {
			t.Fatalf("seed %d: its copy (-it +copy):\n%s", seed, diff)
		}
	}
}

// A copy of a list shares nothing with it.
func TestDeepCopy(t *testing.T) {
	var l pods.PodList
	raw, err := (&corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []corev1.Pod{*app("web", id(1))}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	c := l.DeepCopyObject().(*pods.PodList)
	if diff := cmp.Diff(&l, c); diff != "" || c.ResourceVersion != "7" {
		t.Errorf("copy (-it +copy):\n%s", diff)
	}
	c.Items[0].Spec.Containers[0].Name, c.Items[0].Status.Containers[0].Name, c.Items[0].Labels["pod-template-hash"] = "x", "x", "x"
	if p := l.Items[0]; p.Spec.Containers[0].Name != "c0" || p.Status.Containers[0].Name != "c0" || p.Labels["pod-template-hash"] == "x" {
		t.Error("a change of the copy changed the original")
	}
}

// Any bytes: no panic, and what Kubernetes' own decoder takes is decoded to the same.
func FuzzUnmarshal(f *testing.F) {
	raw, err := app("web", id(1)).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got pods.Pod
		var want corev1.Pod
		if got.Unmarshal(raw) != nil || want.Unmarshal(raw) != nil {
			return
		}
		if got.Name != want.Name || got.Namespace != want.Namespace || got.UID != want.UID || got.ResourceVersion != want.ResourceVersion {
			t.Errorf("got %+v, want %+v", got.ObjectMeta, want.ObjectMeta)
		}
		if len(got.Spec.Containers) != len(want.Spec.Containers) || len(got.Spec.EphemeralContainers) != len(want.Spec.EphemeralContainers) {
			t.Errorf("got %+v, want %+v", got.Spec, want.Spec)
		}
		if len(got.Status.Containers) != len(want.Status.ContainerStatuses) {
			t.Fatalf("got %+v, want %+v", got.Status, want.Status)
		}
		for i, s := range got.Status.Containers {
			if w := want.Status.ContainerStatuses[i]; s.ContainerID != w.ContainerID || s.Name != w.Name {
				t.Errorf("got %+v, want %+v", s, w)
			}
		}
	})
}

func TestWorkload(t *testing.T) {
	owned := func(kind, name string, labels ...string) *corev1.Pod {
		p := app("x", id(1))
		p.Labels = map[string]string{}
		for _, l := range labels {
			k, v, _ := strings.Cut(l, "=")
			p.Labels[k] = v
		}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "Other", Name: "not-the-controller"}, {Kind: kind, Name: name, Controller: new(true)}}
		return p
	}
	bare := app("bare", id(1))
	bare.OwnerReferences = nil
	for _, tt := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"Deployment", owned("ReplicaSet", "web-app-5d4f", "pod-template-hash=5d4f"), "Deployment/web-app"},
		{"CronJob", owned("Job", "back-up-29387520"), "CronJob/back-up"},
		{"static", owned("Node", "node-1"), "Pod/x-7c9d8f6b5d-x2k4j"},
		{"bare", bare, "Pod/bare-7c9d8f6b5d-x2k4j"},
	} {
		raw, err := tt.pod.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var p pods.Pod
		if err := p.Unmarshal(raw); err != nil {
			t.Fatal(err)
		}
		if got := pods.Workload(&p.ObjectMeta); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
