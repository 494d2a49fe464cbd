// Package identity says where an event comes from.
//
// An agent knows its own place from its settings and gives it to every event that has none. A sidecar's place is its
// pod; a node's agent has a node but no pod, and what a sensor knows better stands.
package identity

import (
	"time"

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
}

// New returns the identity with its agent id: the given one, or "<cluster>/<pod, else node, else host>".
func New(agentID, cluster, node, pod, namespace, host string) Identity {
	if agentID == "" {
		place := host
		if node != "" {
			place = node
		}
		if pod != "" {
			place = pod
		}
		agentID = cluster + "/" + place
	}
	return Identity{AgentID: agentID, Cluster: cluster, Node: node, Pod: pod, Namespace: namespace}
}

// Source says who seals a message.
func (i Identity) Source() envelope.Source {
	return envelope.Source{AgentID: i.AgentID, Cluster: i.Cluster}
}

// Fill gives e an id and a time where it has none, the agent's id, and the agent's place where its own is not known.
func (i Identity) Fill(e *event.Event) {
	if e.ID == "" {
		e.ID = event.NewID()
	}
	if e.Timestamp.IsZero() {
		e.Timestamp = time.Now()
	}
	e.AgentID = i.AgentID
	i.place(&e.Cluster, &e.NodeName, &e.PodName, &e.PodNamespace)
}

// FillAlert does for an alert what Fill does for an event.
func (i Identity) FillAlert(a *event.Alert) {
	if a.ID == "" {
		a.ID = event.NewID()
	}
	if a.Timestamp.IsZero() {
		a.Timestamp = time.Now()
	}
	i.place(&a.Cluster, &a.NodeName, &a.PodName, &a.PodNamespace)
}

func (i Identity) place(cluster, node, pod, namespace *string) {
	if *cluster == "" {
		*cluster = i.Cluster
	}
	if *node == "" {
		*node = i.Node
	}
	if *pod == "" && *namespace == "" { // our name in another pod's namespace would be a third pod
		*pod, *namespace = i.Pod, i.Namespace
	}
}
