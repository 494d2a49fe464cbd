package pods

import (
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// State is what a directory lives on.
type State string

// The states of a directory.
const (
	StateOff      State = "off"      // no access: ids only
	StateStarting State = "starting" // the list did not arrive yet
	StateWatching State = "watching"
	StateFailing  State = "failing" // the last request failed: what was known is, and may be old
	StateOwn      State = "own pod" // a sidecar's
)

// Status is a directory for the heartbeat.
type Status struct {
	State State `json:"state"`
	// Reason says why a state is not "watching": Kubernetes' own word for it (Forbidden, Unauthorized, ...) where there
	// is one, and what the server said.
	Reason     string `json:"reason,omitempty"`
	Pods       int    `json:"pods"`
	Containers int    `json:"containers"`        // that the kubelet published
	Seen       int    `json:"seen"`              // that are named by their pod until it does; sandboxes stay so
	Gone       int    `json:"gone"`              // that vanished lately
	Unnamed    int64  `json:"unnamed"`           // look-ups without an answer
	Refused    int64  `json:"refused,omitempty"` // pods and containers that the bounds had no room for
}

// Status returns the directory's state now.
func (d *Directory) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.status
	s.Unnamed = d.unnamed.Load()
	return s
}

// note takes the end of a request.
func (d *Directory) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil:
		d.become(Status{State: StateFailing, Reason: reason(err)})
	case d.synced:
		d.become(Status{State: StateWatching})
	}
}

// become changes the state, and says so when it is another. The caller holds the lock.
func (d *Directory) become(s Status) {
	was := d.status.State
	d.status.State, d.status.Reason = s.State, s.Reason
	switch {
	case was == s.State:
	case s.State == StateFailing:
		d.log.Warn("the node's pods cannot be watched: new containers have an id only; it is tried again", "reason", s.Reason)
	default:
		d.log.Info("the node's pods are watched", "pods", d.status.Pods, "containers", d.status.Containers)
	}
}

// reason is an error in at most 300 bytes.
func reason(err error) string {
	text := err.Error()
	if why := string(apierrors.ReasonForError(err)); why != "" {
		text = why + ": " + text
	}
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
