package inject

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/randfill"

	"github.com/apss-sensor/apss/webhook/internal/decide"
)

// What injecting adds, taken away again, leaves the pod as it was; and injecting twice changes nothing.
func holds(t *testing.T, in *Injector, object []byte, c decide.Cluster) {
	t.Helper()
	d, patch, err := in.Pod(object, enabled, c)
	if err != nil {
		return // unreadable: not changed
	}
	if (patch != nil) != (d.Reason == decide.Injected) {
		t.Fatalf("decided %s, patch %s", d.Reason, patch)
	}
	if patch == nil {
		return
	}
	patched := apply(t, object, patch)
	if d2, again, err := in.Pod(patched, enabled, c); err != nil || again != nil || d2.Reason != decide.AlreadyInjected {
		t.Fatalf("the patched pod: got %s, patch %s, error %v\n%s", d2.Reason, again, err, patched)
	}
	var before, after map[string]any
	if json.Unmarshal(object, &before) != nil || json.Unmarshal(patched, &after) != nil {
		t.Fatalf("no object: %s, %s", object, patched)
	}
	strip(before, after)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("more than ours changed (-before +after without ours):\n%s", diff)
	}
}

// strip takes out of after what is ours, with what had to be made for it.
func strip(before, after map[string]any) {
	spec, was := after["spec"].(map[string]any), before["spec"].(map[string]any)
	for _, list := range []string{"initContainers", "containers", "volumes"} {
		all, _ := spec[list].([]any)
		all = slices.DeleteFunc(all, func(x any) bool {
			name, _ := x.(map[string]any)["name"].(string)
			return strings.HasPrefix(name, "apss-")
		})
		if spec[list] = all; len(all) == 0 {
			restore(spec, was, list)
		}
	}
	if was["shareProcessNamespace"] == nil {
		restore(spec, was, "shareProcessNamespace")
	}
	metadata, hadMetadata := after["metadata"].(map[string]any), before["metadata"].(map[string]any)
	annotations := metadata["annotations"].(map[string]any)
	if old, _ := hadMetadata["annotations"].(map[string]any); old[StatusAnnotation] != nil {
		annotations[StatusAnnotation] = old[StatusAnnotation]
	} else {
		delete(annotations, StatusAnnotation)
	}
	if len(annotations) == 0 {
		restore(metadata, hadMetadata, "annotations")
	}
}

// restore: nothing, null and an empty list stay apart.
func restore(now, was map[string]any, key string) {
	if v, ok := was[key]; ok {
		now[key] = v
	} else {
		delete(now, key)
	}
}

// Pods of Kubernetes' own types with everything in them filled.
func TestEveryPod(t *testing.T) {
	in := injector(t)
	injected := 0
	for seed := range int64(300) {
		var p corev1.Pod
		randfill.NewWithSeed(seed).NilChance(0.4).NumElements(0, 3).MaxDepth(10).Fill(&p)
		p.Spec.HostNetwork, p.Spec.HostPID, p.Spec.OS = false, false, nil
		delete(p.Annotations, corev1.MirrorPodAnnotationKey)
		object, err := json.Marshal(&p)
		if err != nil {
			continue // quantities that no one can write
		}
		if _, patch, err := in.Pod(object, enabled, modern); err == nil && patch != nil {
			injected++
		}
		holds(t, in, object, modern)
		holds(t, in, object, decide.Cluster{Minor: 28})
	}
	if injected < 50 {
		t.Errorf("only %d of 300 pods were injected", injected)
	}
}

func FuzzPod(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		object, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object, 34)
	}
	f.Add([]byte(`{"metadata":{"annotations":null},"spec":{"initContainers":null,"containers":[{}],"volumes":[],"shareProcessNamespace":null}}`), 28)
	in := injector(f)
	f.Fuzz(func(t *testing.T, object []byte, minor int) {
		var v map[string]any
		if json.Unmarshal(object, &v) != nil {
			return
		}
		if _, ok := v["metadata"].(map[string]any); !ok { // the API server sends no other
			return
		}
		object, err := json.Marshal(v) // nor one with a name twice
		if err != nil {
			t.Fatal(err)
		}
		holds(t, in, object, decide.Cluster{Minor: minor})
	})
}

// review sizes: a small pod of about 2 KiB, and one of 400 KiB.
func benchPod(size int) []byte {
	var b strings.Builder
	b.WriteString(`{"metadata":{"generateName":"web-5d4f9c-","namespace":"shop","labels":{"app":"web","pod-template-hash":"5d4f9c"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-5d4f9c","uid":"0c7c0f8e-2f6e-4a43-9a26-7f4d0f1cf7b5","controller":true}]},"spec":{"volumes":[{"name":"kube-api-access-x","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}}],"defaultMode":420}}],"containers":[{"name":"web","image":"nginx:1.29","env":[`)
	for i := 0; b.Len() < size-300; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"name":"SETTING_%d","value":"the value of setting %d"}`, i, i)
	}
	b.WriteString(`],"resources":{},"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","serviceAccountName":"default","securityContext":{},"schedulerName":"default-scheduler"}}`)
	return []byte(b.String())
}

func BenchmarkPod(b *testing.B) {
	in := injector(b)
	for _, size := range []int{2 << 10, 400 << 10} {
		object := benchPod(size)
		for name, ns := range map[string]decide.Namespace{"inject": enabled, "skip": {Name: "other"}} {
			b.Run(fmt.Sprintf("%s-%dKiB", name, size>>10), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, patch, err := in.Pod(object, ns, modern); err != nil || (patch != nil) != (name == "inject") {
						b.Fatal(err)
					}
				}
			})
		}
	}
	// What a typed injector does at least: read the pod into Kubernetes' types and write it again.
	b.Run("typed-2KiB", func(b *testing.B) {
		object := benchPod(2 << 10)
		b.ReportAllocs()
		for b.Loop() {
			var p corev1.Pod
			if err := json.Unmarshal(object, &p); err != nil {
				b.Fatal(err)
			}
			if _, err := json.Marshal(&p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
