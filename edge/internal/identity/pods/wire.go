package pods

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// These types are what this package needs of k8s.io/api/core/v1, under the same names on both wires. A pod of 20 KiB is
// decoded into one of 2; the rest is skipped as it arrives. The full types would cost the agent 4 MiB of its binary and
// as much of resident memory.

// Pod is the part of a core/v1 Pod that names containers. It implements what client-go asks of an API object.
type Pod struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   podSpec   `json:"spec"`
	Status podStatus `json:"status"`
}

// PodList is a core/v1 PodList of them.
type PodList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []Pod `json:"items"`
}

type podSpec struct {
	Containers          []container `json:"containers"`
	InitContainers      []container `json:"initContainers"`
	EphemeralContainers []container `json:"ephemeralContainers"`
}

type container struct {
	Name  string `json:"name"`
	Image string `json:"image"`
}

type podStatus struct {
	Containers          []containerStatus `json:"containerStatuses"`
	InitContainers      []containerStatus `json:"initContainerStatuses"`
	EphemeralContainers []containerStatus `json:"ephemeralContainerStatuses"`
}

type containerStatus struct {
	Name        string         `json:"name"`
	Image       string         `json:"image"`
	ContainerID string         `json:"containerID"` // "containerd://<id>"
	LastState   containerState `json:"lastState"`
}

type containerState struct {
	Terminated terminated `json:"terminated"`
}

type terminated struct {
	ContainerID string `json:"containerID"`
}

var coreV1 = schema.GroupVersion{Version: "v1"}

// newScheme knows pods, and what every API group has: options, watch events, Status.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypes(coreV1, &Pod{}, &PodList{})
	metav1.AddToGroupVersion(s, coreV1)
	return s
}

// DeepCopyObject implements [runtime.Object].
func (p *Pod) DeepCopyObject() runtime.Object {
	c := p.clone()
	return &c
}

// DeepCopyObject implements [runtime.Object].
func (l *PodList) DeepCopyObject() runtime.Object {
	c := &PodList{TypeMeta: l.TypeMeta, Items: slices.Clone(l.Items)}
	l.DeepCopyInto(&c.ListMeta)
	for i := range c.Items {
		c.Items[i] = l.Items[i].clone()
	}
	return c
}

func (p *Pod) clone() Pod {
	c := Pod{
		TypeMeta: p.TypeMeta,
		Spec: podSpec{
			Containers: slices.Clone(p.Spec.Containers), InitContainers: slices.Clone(p.Spec.InitContainers),
			EphemeralContainers: slices.Clone(p.Spec.EphemeralContainers),
		},
		Status: podStatus{
			Containers: slices.Clone(p.Status.Containers), InitContainers: slices.Clone(p.Status.InitContainers),
			EphemeralContainers: slices.Clone(p.Status.EphemeralContainers),
		},
	}
	p.DeepCopyInto(&c.ObjectMeta)
	return c
}

// Reset and Unmarshal are the protobuf codec's interface to a message. The field numbers are those of
// k8s.io/api/core/v1/generated.proto and k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto; a test compares with them.

// Reset empties p.
func (p *Pod) Reset() { *p = Pod{} }

// Reset empties l.
func (l *PodList) Reset() { *l = PodList{} }

// Unmarshal reads a PodList.
func (l *PodList) Unmarshal(b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		switch n {
		case 1:
			return l.ListMeta.Unmarshal(v)
		case 2:
			var p Pod
			if err := p.Unmarshal(v); err != nil {
				return err
			}
			l.Items = append(l.Items, p)
		}
		return nil
	})
}

// Unmarshal reads a Pod.
func (p *Pod) Unmarshal(b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		switch n {
		case 1:
			return unmarshalMeta(&p.ObjectMeta, v)
		case 2:
			return p.Spec.unmarshal(v)
		case 3:
			return p.Status.unmarshal(v)
		}
		return nil
	})
}

func unmarshalMeta(m *metav1.ObjectMeta, b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		switch n {
		case 1:
			m.Name = string(v)
		case 3:
			m.Namespace = string(v)
		case 5:
			m.UID = types.UID(v)
		case 6:
			m.ResourceVersion = string(v)
		case 11:
			return keepEntry(&m.Labels, v, keptLabel)
		case 12:
			return keepEntry(&m.Annotations, v, keptAnnotation)
		case 13:
			var r metav1.OwnerReference
			if err := r.Unmarshal(v); err != nil {
				return err
			}
			m.OwnerReferences = append(m.OwnerReferences, r)
		}
		return nil
	})
}

// keepEntry adds a map's entry to m when its key is wanted.
func keepEntry(m *map[string]string, entry []byte, wanted func(key string) bool) error {
	var key, value []byte
	err := eachField(entry, func(n int, v []byte) error {
		switch n {
		case 1:
			key = v
		case 2:
			value = v
		}
		return nil
	})
	if err != nil || !wanted(string(key)) {
		return err
	}
	if *m == nil {
		*m = make(map[string]string, 1)
	}
	(*m)[string(key)] = string(value)
	return nil
}

func (s *podSpec) unmarshal(b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		switch n {
		case 2:
			return each(&s.Containers, v, (*container).unmarshal)
		case 20:
			return each(&s.InitContainers, v, (*container).unmarshal)
		case 34:
			return each(&s.EphemeralContainers, v, (*container).unmarshalEphemeral)
		}
		return nil
	})
}

func (c *container) unmarshal(b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		switch n {
		case 1:
			c.Name = string(v)
		case 2:
			c.Image = string(v)
		}
		return nil
	})
}

// unmarshalEphemeral reads an EphemeralContainer, whose field 1 has a Container's fields.
func (c *container) unmarshalEphemeral(b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		if n != 1 {
			return nil
		}
		return c.unmarshal(v)
	})
}

func (s *podStatus) unmarshal(b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		switch n {
		case 8:
			return each(&s.Containers, v, (*containerStatus).unmarshal)
		case 10:
			return each(&s.InitContainers, v, (*containerStatus).unmarshal)
		case 13:
			return each(&s.EphemeralContainers, v, (*containerStatus).unmarshal)
		}
		return nil
	})
}

func (s *containerStatus) unmarshal(b []byte) error {
	return eachField(b, func(n int, v []byte) error {
		switch n {
		case 1:
			s.Name = string(v)
		case 3: // a ContainerState; its field 3 is a ContainerStateTerminated
			return eachField(v, func(n int, v []byte) error {
				if n != 3 {
					return nil
				}
				return eachField(v, func(n int, v []byte) error {
					if n == 7 {
						s.LastState.Terminated.ContainerID = string(v)
					}
					return nil
				})
			})
		case 6:
			s.Image = string(v)
		case 8:
			s.ContainerID = string(v)
		}
		return nil
	})
}

// each appends one message to list.
func each[T any](list *[]T, b []byte, unmarshal func(*T, []byte) error) error {
	var v T
	if err := unmarshal(&v, b); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

// eachField calls f with each field that has a length: a string, a message or a map's entry. Others are skipped.
func eachField(b []byte, f func(n int, v []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("reading a pod's protobuf: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return fmt.Errorf("reading a pod's protobuf: %w", protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return fmt.Errorf("reading a pod's protobuf: %w", protowire.ParseError(n))
		}
		if err := f(int(number), v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
