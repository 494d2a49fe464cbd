package inject

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/pod"
)

// genuine reports whether the container and volumes of our name in object are ones that we write: a pod that was injected
// comes again when a later webhook changed it, or when it is created from a copy. What that webhook did to the rest of the
// pod, a container of another user or with our port, another order, makes ours no less ours: of all sidecars that we write
// theirs is compared with the one that is of its user, and of a user that it may be of.
func (in *Injector) genuine(object []byte, p *pod.Pod, ns decide.Namespace, c decide.Cluster) bool {
	theirs, err := pod.Named(object, decide.Sidecar, decide.SpoolVolume, decide.TokenVolume)
	containers := slices.Concat(theirs.InitContainers, theirs.Containers)
	if err != nil || len(containers) != 1 {
		return false
	}
	bare := *p // as it was before
	bare.Spec.InitContainers = without(p.Spec.InitContainers, func(c pod.Container) string { return c.Name })
	bare.Spec.Containers = without(p.Spec.Containers, func(c pod.Container) string { return c.Name })
	bare.Spec.Volumes = without(p.Spec.Volumes, func(v pod.Volume) string { return v.Name })
	d := decide.Pod(&bare, ns, &in.decide, c)
	if d.Reason != decide.Injected || d.Native != (len(theirs.InitContainers) == 1) {
		return false
	}
	ours := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	own := ours[slices.IndexFunc(ours, func(c pod.Container) bool { return c.Name == decide.Sidecar })]
	uid, gid := own.SecurityContext.RunAsUser, own.SecurityContext.RunAsGroup
	tier, ok := decide.TierOf(&bare, uid, gid)
	if !ok {
		return false
	}
	// Resources are not compared: whether it is capped or pooled does not matter.
	t := in.forms[form{tier: tier, native: d.Native, silent: len(own.Ports) == 0}]
	if !covers(t.fill(nil, uid, gid, d.Workload), containers[0]) {
		return false
	}
	for _, ours := range in.volumes {
		if !slices.ContainsFunc(theirs.Volumes, func(v jsontext.Value) bool { return covers(ours, v) }) {
			return false
		}
	}
	return true
}

// without returns the items whose name is not one of ours.
func without[T any](all []T, name func(T) string) []T {
	return slices.DeleteFunc(slices.Clone(all), func(x T) bool {
		n := name(x)
		return n == decide.Sidecar || n == decide.SpoolVolume || n == decide.TokenVolume
	})
}

// covers reports whether theirs is what the API server makes of ours: the same, with nothing more than its defaults and
// the default token's mount. Resources may differ: GKE Autopilot raises them to its minimums
// (https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-resource-requests).
func covers(ours, theirs jsontext.Value) bool {
	var a, b any
	return json.Unmarshal(ours, &a) == nil && json.Unmarshal(theirs, &b) == nil && equal("", a, b)
}

// defaulted are members that the API server and its own admission plugins add to what we write.
var defaulted = map[string]any{ //nolint:gochecknoglobals // a table
	".imagePullPolicy":          nil, // any
	".terminationMessagePath":   "/dev/termination-log",
	".terminationMessagePolicy": "File",
}

// orderless are lists whose order means nothing in what we write, by the member that tells their items apart: who marshals a
// pod again from maps may change it.
var orderless = map[string]string{".env": "name", ".volumeMounts": "mountPath", ".securityContext.capabilities.add": "-"} //nolint:gochecknoglobals // a table

func sorted(all []any, key string) []any {
	of := func(x any) string {
		m, _ := x.(map[string]any)
		s, ok := m[key].(string)
		if !ok {
			s, _ = x.(string)
		}
		return s
	}
	return slices.SortedStableFunc(slices.Values(all), func(x, y any) int { return cmp.Compare(of(x), of(y)) })
}

// accountMount is where the ServiceAccount admission plugin mounts a pod's default token.
const accountMount = "/var/run/secrets/kubernetes.io/serviceaccount"

func equal(path string, ours, theirs any) bool {
	switch a := ours.(type) {
	case map[string]any:
		b, ok := theirs.(map[string]any)
		if !ok {
			return false
		}
		for name, value := range b {
			mine, has := a[name]
			if !has {
				usual, known := defaulted[path+"."+name]
				if !known || usual != nil && usual != value {
					return false
				}
			} else if path+"."+name != ".resources" && !equal(path+"."+name, mine, value) {
				return false
			}
		}
		for name := range maps.Keys(a) {
			if _, has := b[name]; !has && !reflect.ValueOf(a[name]).IsZero() {
				return false
			}
		}
		return true
	case []any:
		b, ok := theirs.([]any)
		if !ok {
			return false
		}
		if key := orderless[path]; key != "" {
			a, b = sorted(a, key), sorted(b, key)
		}
		if path == ".volumeMounts" {
			b = slices.DeleteFunc(slices.Clone(b), func(x any) bool {
				m, _ := x.(map[string]any)
				return m["mountPath"] == accountMount && m["readOnly"] == true
			})
		}
		return slices.EqualFunc(a, b, func(x, y any) bool { return equal(path+"[]", x, y) })
	}
	return ours == theirs
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), cmp.Compare[string])
}
