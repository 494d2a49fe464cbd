// Package pod is the part of a Kubernetes pod that says whether and how an agent goes beside its containers, and what of
// it an auditor wants to know. The rest of a pod is passed over and never written again: a patch adds, so that no field
// that we don't know is lost.
//
// Objects come from an API server, but its users wrote them: what is read is bounded by the size of the review, and
// nothing here fails on a value that the API server would refuse later.
package pod

import (
	"bytes"
	"errors"
	"fmt"

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
	GenerateName    string       `json:"generateName"`
	Namespace       string       `json:"namespace"`
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
	HostIPC               bool         `json:"hostIPC"`
	ShareProcessNamespace *bool        `json:"shareProcessNamespace"`
	RestartPolicy         string       `json:"restartPolicy"`
	OS                    OS           `json:"os"`
	NodeSelector          NodeSelector `json:"nodeSelector"`
	SecurityContext       Security     `json:"securityContext"`
	InitContainers        []Container  `json:"initContainers"`
	Containers            []Container  `json:"containers"`
	EphemeralContainers   []Container  `json:"ephemeralContainers"`
	Volumes               []Volume     `json:"volumes"`
}

// OS is the system that a pod says it needs.
type OS struct {
	Name string `json:"name"`
}

// NodeSelector is the one label of it that matters.
type NodeSelector struct {
	OS string `json:"kubernetes.io/os"`
}

// Security is a pod's securityContext.
type Security struct {
	RunAsUser    *int64 `json:"runAsUser"`
	RunAsGroup   *int64 `json:"runAsGroup"`
	RunAsNonRoot *bool  `json:"runAsNonRoot"`
}

// Container is one of a pod's, of any sort.
type Container struct {
	Name            string            `json:"name"`
	Image           string            `json:"image"`
	RestartPolicy   string            `json:"restartPolicy"`
	SecurityContext ContainerSecurity `json:"securityContext"`
}

// ContainerSecurity is a container's securityContext.
type ContainerSecurity struct {
	Privileged   bool         `json:"privileged"`
	RunAsUser    *int64       `json:"runAsUser"`
	RunAsGroup   *int64       `json:"runAsGroup"`
	Capabilities Capabilities `json:"capabilities"`
}

// Capabilities are those added to the runtime's.
type Capabilities struct {
	Add []string `json:"add"`
}

// Volume is one of a pod's.
type Volume struct {
	Name     string    `json:"name"`
	HostPath *HostPath `json:"hostPath"`
}

// HostPath is a folder or file of the node.
type HostPath struct {
	Path string `json:"path"`
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

// RawContainers returns the containers of a pod of that name as they are written, init containers first.
func RawContainers(object []byte, name string) (init, main []jsontext.Value, err error) {
	var p struct {
		Spec struct {
			InitContainers []jsontext.Value `json:"initContainers"`
			Containers     []jsontext.Value `json:"containers"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(object, &p); err != nil {
		return nil, nil, fmt.Errorf("reading the pod's containers: %w", err)
	}
	pick := func(all []jsontext.Value) (some []jsontext.Value) {
		for _, raw := range all {
			if named(raw) == name {
				some = append(some, raw)
			}
		}
		return some
	}
	return pick(p.Spec.InitContainers), pick(p.Spec.Containers), nil
}

// RawVolume returns the volume of that name as it is written, nil when there is none.
func RawVolume(object []byte, name string) (jsontext.Value, error) {
	var p struct {
		Spec struct {
			Volumes []jsontext.Value `json:"volumes"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(object, &p); err != nil {
		return nil, fmt.Errorf("reading the pod's volumes: %w", err)
	}
	for _, raw := range p.Spec.Volumes {
		if named(raw) == name {
			return raw, nil
		}
	}
	return nil, nil
}

// named returns the name in raw.
func named(raw jsontext.Value) string {
	var v struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(raw, &v) != nil {
		return ""
	}
	return v.Name
}
