// Package pod is the part of a Kubernetes pod that says whether and how an agent goes beside its containers. The
// rest of a pod is passed over and never written again: a patch adds, so that no field that we don't know is lost.
//
// Objects come from an API server, but its users wrote them: what is read is bounded by the size of the review, and
// nothing here fails on a value that the API server would refuse later.
package pod

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/shared/workload"
)

// Pod is a pod as an admission review brings it.
type Pod struct {
	Metadata Metadata `json:"metadata"`
	Spec     Spec     `json:"spec"`
}

// Metadata is a pod's.
type Metadata struct {
	Name            string       `json:"name"`
	Labels          Labels       `json:"labels"`
	Annotations     *Annotations `json:"annotations"` // nil: there is no object to add to
	OwnerReferences []Owner      `json:"ownerReferences"`
}

// Labels are those that name a pod's workload, see package workload.
type Labels struct {
	Hash    string `json:"pod-template-hash"`
	Rollout string `json:"rollouts-pod-template-hash"`
}

// Annotations are those of a pod that concern us.
type Annotations struct {
	Inject *string `json:"apss.dev/inject"`
	Tier   *string `json:"apss.dev/tier"`
	First  *string `json:"apss.dev/first"`
	Share  *string `json:"apss.dev/share-processes"`
	// Mirror and Source mark pods that a kubelet made by itself, from a file of its node
	// (https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror).
	Mirror *string `json:"kubernetes.io/config.mirror"`
	Source *string `json:"kubernetes.io/config.source"`
}

// Owner is what made the pod.
type Owner struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Controller bool   `json:"controller"`
}

// Spec is a pod's. A nil slice is one that is missing or null: there is nothing to append to.
type Spec struct {
	HostNetwork           bool         `json:"hostNetwork"`
	HostPID               bool         `json:"hostPID"`
	ShareProcessNamespace *bool        `json:"shareProcessNamespace"`
	RestartPolicy         string       `json:"restartPolicy"`
	OS                    OS           `json:"os"`
	NodeSelector          NodeSelector `json:"nodeSelector"`
	Affinity              Affinity     `json:"affinity"`
	Resources             *struct{}    `json:"resources"` // of the pod as a whole, from Kubernetes 1.34 on
	SecurityContext       Security     `json:"securityContext"`
	InitContainers        []Container  `json:"initContainers"`
	Containers            []Container  `json:"containers"`
	Volumes               []Volume     `json:"volumes"`
	PullSecrets           []PullSecret `json:"imagePullSecrets"`
}

// PullSecret names a Secret that images are pulled with.
type PullSecret struct {
	Name string `json:"name"`
}

// OS is the system that a pod says it needs.
type OS struct {
	Name string `json:"name"`
}

// Labels of nodes that tell their system; the first is beta's of the second, and kubelets still set it.
const (
	labelBetaOS  = "beta.kubernetes.io/os"
	labelOS      = "kubernetes.io/os"
	labelWindows = "node.kubernetes.io/windows-build"
)

// NodeSelector are the labels of it that matter.
type NodeSelector struct {
	OS     string `json:"kubernetes.io/os"`
	BetaOS string `json:"beta.kubernetes.io/os"`
}

// Affinity is the part of a pod's that binds it to nodes.
type Affinity struct {
	Node struct {
		Required struct {
			Terms []NodeTerm `json:"nodeSelectorTerms"`
		} `json:"requiredDuringSchedulingIgnoredDuringExecution"`
	} `json:"nodeAffinity"`
}

// NodeTerm is one of the terms of which a node has to fulfil one
// (https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity).
type NodeTerm struct {
	Expressions []NodeExpression `json:"matchExpressions"`
}

// NodeExpression is one of a term's, which a node has to fulfil all.
type NodeExpression struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values"`
}

// Windows reports whether the pod says that it runs on Windows and nowhere else.
func (p *Pod) Windows() bool {
	const windows, linux = "windows", "linux"
	s := &p.Spec
	if s.OS.Name == windows || s.NodeSelector.OS == windows || s.NodeSelector.BetaOS == windows {
		return true
	}
	terms := s.Affinity.Node.Required.Terms
	return len(terms) > 0 && !slices.ContainsFunc(terms, func(t NodeTerm) bool {
		return !slices.ContainsFunc(t.Expressions, func(e NodeExpression) bool {
			switch {
			case e.Key == labelWindows:
				return e.Operator == "Exists" || e.Operator == "In"
			case e.Key != labelOS && e.Key != labelBetaOS:
				return false
			case e.Operator == "In":
				return len(e.Values) > 0 && !slices.ContainsFunc(e.Values, func(v string) bool { return v != windows })
			}
			return e.Operator == "NotIn" && slices.Contains(e.Values, linux)
		})
	})
}

// Security is a pod's securityContext.
type Security struct {
	RunAsUser  *int64 `json:"runAsUser"`
	RunAsGroup *int64 `json:"runAsGroup"`
}

// Container is one of a pod's, of any sort.
type Container struct {
	Name            string            `json:"name"`
	SecurityContext ContainerSecurity `json:"securityContext"`
	Ports           []Port            `json:"ports"`
	Resources       Resources         `json:"resources"`
}

// Port is one that a container says it listens on.
type Port struct {
	Number int64 `json:"containerPort"`
}

// Resources are a container's.
type Resources struct {
	Limits Limits `json:"limits"`
}

// Limits are a container's, as far as they bound its pod; a quantity may be written as a number.
type Limits struct {
	Storage jsontext.Value `json:"ephemeral-storage"`
}

// ContainerSecurity is a container's securityContext.
type ContainerSecurity struct {
	RunAsUser  *int64 `json:"runAsUser"`
	RunAsGroup *int64 `json:"runAsGroup"`
}

// Volume is one of a pod's.
type Volume struct {
	Name string `json:"name"`
}

// Parse reads a pod. Unknown members are passed over, null counts as missing.
func Parse(object []byte) (*Pod, error) {
	p := new(Pod)
	if len(object) == 0 || bytes.Equal(object, []byte("null")) {
		return nil, errors.New("the review has no object")
	}
	// The API server wrote the object: no name is in it twice, and looking for that costs more than all the rest.
	if err := json.Unmarshal(object, p, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, fmt.Errorf("reading the pod: %w", err)
	}
	return p, nil
}

// Controller returns the owner that controls the pod; the zero Owner when there is none.
func (p *Pod) Controller() Owner {
	for _, o := range p.Metadata.OwnerReferences {
		if o.Controller {
			return o
		}
	}
	return Owner{}
}

// Workload names what the pod belongs to as a person knows it, "Deployment/my-app"; a pod without an owner is its own, ""
// (it may get its name only after admission).
func (p *Pod) Workload() string {
	o := p.Controller()
	if o.Kind == "" {
		return ""
	}
	return workload.Of(p.Metadata.Name, o.Kind, o.Name, func(label string) string {
		switch label {
		case workload.LabelHash:
			return p.Metadata.Labels.Hash
		case workload.LabelRollout:
			return p.Metadata.Labels.Rollout
		}
		return ""
	})
}

// Raw are containers and volumes as they are written.
type Raw struct{ InitContainers, Containers, Volumes []jsontext.Value }

// Named returns the containers of a name and the volumes of some that are in object.
func Named(object []byte, container string, volumes ...string) (Raw, error) {
	var p struct {
		Spec struct {
			InitContainers []jsontext.Value `json:"initContainers"`
			Containers     []jsontext.Value `json:"containers"`
			Volumes        []jsontext.Value `json:"volumes"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(object, &p); err != nil {
		return Raw{}, fmt.Errorf("reading the pod's containers and volumes: %w", err)
	}
	pick := func(all []jsontext.Value, names ...string) []jsontext.Value {
		return slices.DeleteFunc(all, func(raw jsontext.Value) bool {
			var v struct {
				Name string `json:"name"`
			}
			return json.Unmarshal(raw, &v) != nil || !slices.Contains(names, v.Name)
		})
	}
	return Raw{pick(p.Spec.InitContainers, container), pick(p.Spec.Containers, container), pick(p.Spec.Volumes, volumes...)}, nil
}
