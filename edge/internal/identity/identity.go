// Package identity says where an event comes from.
//
// An agent knows its own place from its settings and gives it to every event that has none. A sidecar's place is its
// pod; a node's agent has a node but no pod, and what a sensor knows better stands. A sensor says which container it saw
// by the container's id (package cgroup); what that container, its pod and its workload are called is added here
// (package pods). An event never waits for that: a container that nobody knows yet goes out by its id.
package identity

import (
	"cmp"
	"time"

	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// Identity is an agent's place. The zero value fills in ids and times only.
type Identity struct {
	AgentID   string
	Cluster   string
	Node      string
	Pod       string // of a sidecar; empty for a node's agent
	Namespace string // of Pod
	Workload  string // of Pod, where it is known

	// Containers knows what containers are called; nil: nobody does.
	Containers *pods.Directory
}

// New returns the identity with its agent id: the given one, or "<cluster>/<pod, else node, else host>". The host is the
// node unless a node or a pod is given: in a pod the host's name is the pod's.
func New(agentID, cluster, node, pod, namespace, host string) Identity {
	if node == "" && pod == "" {
		node = host
	}
	if agentID == "" {
		agentID = cluster + "/" + cmp.Or(pod, node)
	}
	return Identity{AgentID: agentID, Cluster: cluster, Node: node, Pod: pod, Namespace: namespace}
}

// Source says who seals a message.
func (i Identity) Source() envelope.Source {
	return envelope.Source{AgentID: i.AgentID, Cluster: i.Cluster}
}

// Fill gives e an id and a time where it has none, the agent's id, the names of its container, and the agent's place
// where its own is not known. It changes no Container that it was given, and the one that it gives must not be changed:
// events share it.
func (i Identity) Fill(e *event.Event) {
	if e.ID == "" {
		e.ID = event.NewID()
	}
	if e.Timestamp.IsZero() {
		e.Timestamp = time.Now()
	}
	e.AgentID = i.AgentID
	if e.Container != nil && e.Container.ID != "" && i.Containers != nil {
		if known := i.Containers.Lookup(e.Container.ID); known != nil {
			name(e, known)
		}
	}
	i.place(&e.Cluster, &e.NodeName, &e.PodName, &e.PodNamespace, &e.Workload)
}

// name adds to e what is known of its container.
func name(e *event.Event, known *pods.Container) {
	switch c := e.Container; {
	case c.Name == "" && c.Image == "" && len(c.Extra) == 0:
		e.Container = &known.Container
	case c.Name == "" || c.Name == known.Name && c.Image == "":
		mixed := *c
		mixed.Name, mixed.Image = known.Name, cmp.Or(c.Image, known.Image)
		e.Container = &mixed
	}
	belong(&e.PodName, &e.PodNamespace, &e.Workload, known.Pod, known.Namespace, known.Workload)
}

// belong sets a pod and its namespace where neither is known, and the workload where the pod is the same: our name in
// another pod's namespace would be a third pod.
func belong(pod, namespace, workload *string, ofPod, ofNamespace, ofWorkload string) {
	if *pod == "" && *namespace == "" {
		*pod, *namespace = ofPod, ofNamespace
	}
	if *workload == "" && *pod == ofPod && *namespace == ofNamespace {
		*workload = ofWorkload
	}
}

// FillAlert does for an alert what Fill does for an event.
func (i Identity) FillAlert(a *event.Alert) {
	if a.ID == "" {
		a.ID = event.NewID()
	}
	if a.Timestamp.IsZero() {
		a.Timestamp = time.Now()
	}
	i.place(&a.Cluster, &a.NodeName, &a.PodName, &a.PodNamespace, &a.Workload)
}

func (i Identity) place(cluster, node, pod, namespace, workload *string) {
	if *cluster == "" {
		*cluster = i.Cluster
	}
	if *node == "" {
		*node = i.Node
	}
	belong(pod, namespace, workload, i.Pod, i.Namespace, i.Workload)
}
