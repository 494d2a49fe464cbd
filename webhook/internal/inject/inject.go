// Package inject puts the agent beside a pod's containers: it decides (package decide), builds the sidecar and writes the
// patch (package patch).
//
//	object (raw JSON) -> pod.Parse -> decide.Pod -> sidecar of the tier -> operations
//
// The sidecar is written once for each tier when the program starts; of a pod only its uid, gid and workload go in, so an
// injection costs little more than reading the pod. Injecting twice changes nothing: a sidecar that is there is compared
// with the one that we would write, member by member, and one that was altered or made up is [decide.Foreign].
package inject

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/patch"
	"github.com/apss-sensor/apss/webhook/internal/pod"
)

// StatusAnnotation tells which sidecar a pod got. It proves nothing: the sidecar itself is looked at.
const StatusAnnotation = "apss.dev/status"

// Injector injects by fixed settings. Safe for concurrent use.
type Injector struct {
	decide  decide.Settings
	port    int
	forms   map[form]*template
	volumes [2]jsontext.Value // with the names in decide
	pull    []string          // Secrets that images are pulled with
	status  map[form]jsontext.Value
}

// form is what tells sidecars of different pods apart, but for what the pods themselves say.
type form struct {
	tier   decide.Tier
	native bool
	// capped: another container has a limit of ephemeral storage. A pod is evicted when all that it stores exceeds the sum
	// of its containers' limits, however few have one (pkg/kubelet/eviction, podEphemeralStorageLimitEviction): a limit of
	// ours alone would be the application's.
	capped bool
	// pooled: the pod has resources as a whole, and those of containers must fit in
	// (https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources): ours have no part of their own.
	pooled bool
	// silent: a container says that our port is its own.
	silent bool
}

// forms are all that there are.
func forms(yield func(form) bool) {
	both := [...]bool{false, true}
	for _, tier := range [...]decide.Tier{decide.Full, decide.SameUID, decide.Limited} {
		for _, native := range both {
			for _, capped := range both {
				for _, pooled := range both {
					for _, silent := range both {
						if !yield(form{tier, native, capped, pooled, silent}) {
							return
						}
					}
				}
			}
		}
	}
}

// form is the one for p.
func (in *Injector) form(p *pod.Pod, d *decide.Decision) form {
	f := form{tier: d.Tier, native: d.Native, pooled: p.Spec.Resources != nil}
	for _, all := range [...][]pod.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range all {
			limit := all[i].Resources.Limits.Storage
			f.capped = f.capped || len(limit) > 0 && limit.Kind() != 'n'
			f.silent = f.silent || slices.ContainsFunc(all[i].Ports, func(o pod.Port) bool { return o.Number == int64(in.port) })
		}
	}
	return f
}

// New prepares an Injector. version goes into the status annotation. The error holds all that is wrong.
func New(d decide.Settings, s Sidecar, version string) (*Injector, error) {
	if err := errors.Join(d.Validate(), s.Validate()); err != nil {
		return nil, err
	}
	in := &Injector{decide: d, port: s.Port, pull: s.PullSecrets, forms: map[form]*template{}, status: map[form]jsontext.Value{}}
	for i, v := range s.volumes() {
		in.volumes[i] = encode(v)
	}
	for f := range forms {
		t := newTemplate(s.container(f))
		sum := sha256.Sum256(t.fill(nil, new(int64(0)), nil, ""))
		in.forms[f] = t
		in.status[f] = encode(string(encode(struct {
			Version string      `json:"version"`
			Tier    decide.Tier `json:"tier"`
			Native  bool        `json:"native"`
			Sidecar string      `json:"sidecar"`
		}{version, f.tier, f.native, hex.EncodeToString(sum[:6])})))
	}
	return in, nil
}

// encode writes what is ours, and cannot fail.
func encode(v any) jsontext.Value {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return b
}

// Pod decides about the pod in object, which is JSON, and returns the patch that carries the decision out; it is nil when
// there is nothing to change. An error means that object is no pod that can be read; where the namespace decides it is not
// read.
func (in *Injector) Pod(object []byte, ns decide.Namespace, c decide.Cluster) (decide.Decision, []byte, error) {
	if d := decide.InNamespace(ns, &in.decide); d.Reason != decide.Injected {
		return d, nil, nil
	}
	p, err := pod.Parse(object)
	if err != nil {
		return decide.Decision{Reason: decide.Unreadable}, nil, err
	}
	d := decide.Pod(p, ns, &in.decide, c)
	if d.Reason == decide.Injected {
		return d, in.patch(p, &d), nil
	}
	if d.Reason == decide.Present {
		d.Reason = decide.Foreign
		if in.genuine(object, p, ns, c) {
			d.Reason = decide.AlreadyInjected
		} else {
			d.Warnings = append(d.Warnings, decide.Foreign.Text())
		}
	}
	return d, nil, nil
}

// patch carries d out.
func (in *Injector) patch(p *pod.Pod, d *decide.Decision) []byte {
	var out patch.Patch
	f := in.form(p, d)
	container := in.forms[f].fill(make([]byte, 0, 4<<10), d.UID, d.GID, d.Workload)
	switch {
	case d.Native:
		place(&out, "/spec/initContainers", p.Spec.InitContainers == nil, d.First, container)
	default:
		place(&out, "/spec/containers", p.Spec.Containers == nil, false, container)
	}
	for i, v := range in.volumes {
		place(&out, "/spec/volumes", p.Spec.Volumes == nil && i == 0, false, v)
	}
	missing := p.Spec.PullSecrets == nil
	for _, name := range in.pull {
		if !slices.Contains(p.Spec.PullSecrets, pod.PullSecret{Name: name}) {
			place(&out, "/spec/imagePullSecrets", missing, false, encode(map[string]string{"name": name}))
			missing = false
		}
	}
	if d.Share && p.Spec.ShareProcessNamespace == nil {
		out.Add("/spec/shareProcessNamespace", []byte("true"))
	}
	if p.Metadata.Annotations == nil {
		out.Add("/metadata/annotations", encode(map[string]jsontext.Value{StatusAnnotation: in.status[f]}))
	} else {
		out.Add("/metadata/annotations/"+patch.Escape(StatusAnnotation), in.status[f])
	}
	return out.Bytes()
}

// place adds value to the array at path, which may have to be made.
func place(p *patch.Patch, path string, missing, first bool, value []byte) {
	switch {
	case missing:
		p.Add(path, append(append(append(make([]byte, 0, len(value)+2), '['), value...), ']'))
	case first:
		p.Add(path+"/0", value)
	default:
		p.Add(path+"/-", value)
	}
}

// template is a container as JSON, cut where a pod's own values go.
type template struct{ beforeUser, beforeWorkload, end []byte }

// Marks stand in a container for what a pod brings. encode sorts no struct's members: the user comes first.
const (
	userMark     = `"runAsUser":-1`
	workloadMark = `"@workload@"`
)

func newTemplate(c container) *template {
	t := new(template)
	var ok1, ok2 bool
	rest := []byte(encode(c))
	t.beforeUser, rest, ok1 = bytes.Cut(rest, []byte(userMark))
	t.beforeWorkload, t.end, ok2 = bytes.Cut(rest, []byte(workloadMark))
	if !ok1 || !ok2 {
		panic("the sidecar has no place for a pod's own values")
	}
	return t
}

// fill returns the container with a pod's values, appended to b.
func (t *template) fill(b []byte, uid, gid *int64, workload string) []byte {
	b = append(b, t.beforeUser...)
	separator := ""
	for _, id := range [...]struct {
		name  string
		value *int64
	}{{`"runAsUser":`, uid}, {`"runAsGroup":`, gid}} {
		if id.value != nil {
			b = append(append(b, separator...), id.name...)
			b = strconv.AppendInt(b, *id.value, 10)
			separator = ","
		}
	}
	b = append(b, t.beforeWorkload...)
	b, _ = jsontext.AppendQuote(b, workload) // names come from valid JSON
	return append(b, t.end...)
}
