package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/webhook/internal/admission"
	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/pod"
)

// kindOf says what event a request makes; "" for none.
func kindOf(q *admission.Request) event.Type {
	switch {
	case q.Kind.Group != "":
	case q.Kind.Kind == "Pod" && q.SubResource == "" && q.Operation == "CREATE":
		return event.AdmissionPod
	case q.Operation == "CONNECT" && (q.SubResource == "exec" || q.SubResource == "attach"):
		return event.AdmissionExec
	}
	return ""
}

// Bounds of what a pod's author may make us say.
const (
	maxList   = 32
	maxString = 256
)

// list is a set in order of arrival, within bounds.
type list []string

func (l *list) add(s string) {
	if len(s) > maxString {
		s = strings.ToValidUTF8(s[:maxString], "") + "..."
	}
	if len(*l) < maxList && s != "" && !slices.Contains(*l, s) {
		*l = append(*l, s)
	}
}

// created is what matters of a pod here.
type created struct {
	Metadata struct {
		GenerateName string `json:"generateName"`
	} `json:"metadata"`
	Spec struct {
		ServiceAccount      string             `json:"serviceAccountName"`
		HostNetwork         bool               `json:"hostNetwork"`
		HostPID             bool               `json:"hostPID"`
		HostIPC             bool               `json:"hostIPC"`
		InitContainers      []createdContainer `json:"initContainers"`
		Containers          []createdContainer `json:"containers"`
		EphemeralContainers []createdContainer `json:"ephemeralContainers"`
		Volumes             []struct {
			HostPath *struct {
				Path string `json:"path"`
			} `json:"hostPath"`
		} `json:"volumes"`
	} `json:"spec"`
}

type createdContainer struct {
	Name     string `json:"name"`
	Image    string `json:"image"`
	Security struct {
		Privileged   bool `json:"privileged"`
		Capabilities struct {
			Add []string `json:"add"`
		} `json:"capabilities"`
	} `json:"securityContext"`
}

// describe makes the event of a request.
func describe(i *item) *event.Event {
	q := &i.request
	e := &event.Event{
		Type: kindOf(q), Timestamp: i.at.UTC(), PodNamespace: cut(q.Namespace), PodName: cut(q.Name),
		Metadata: map[string]any{"attempted": true, "user": cut(q.User.Name)},
	}
	var groups list
	for _, g := range q.User.Groups {
		groups.add(g)
	}
	put(e, "groups", groups)
	if e.Type == event.AdmissionExec {
		describeExec(e, q)
	} else {
		describePod(e, q, &i.decision)
	}
	return e
}

// put sets a list that has something.
func put(e *event.Event, key string, l list) {
	if len(l) > 0 {
		e.Metadata[key] = []string(l)
	}
}

func cut(s string) string {
	var l list
	l.add(s)
	if len(l) == 0 {
		return ""
	}
	return l[0]
}

func describePod(e *event.Event, q *admission.Request, d *decide.Decision) {
	e.Metadata["decision"] = string(d.Reason)
	if d.Tier != "" {
		e.Metadata["tier"] = string(d.Tier)
	}
	if d.Less != "" {
		e.Metadata["tier_reason"] = string(d.Less)
	}
	var p created
	// What is of the wrong kind is passed over: the API server refuses it later, and the rest is still told.
	if err := json.Unmarshal(q.Object, &p, jsontext.AllowDuplicateNames(true)); err != nil {
		e.Metadata["unreadable"] = true
	}
	if parsed, err := pod.Parse(q.Object); err == nil {
		e.Workload = cut(parsed.Workload())
		if e.PodName == "" {
			e.PodName = cut(parsed.Metadata.Name)
		}
	}
	var images, noDigest, privileged, capabilities, paths, namespaces list
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers, p.Spec.EphemeralContainers) {
		if c.Name == decide.Sidecar { // it may be ours, of an earlier call
			continue
		}
		images.add(c.Image)
		if !strings.Contains(c.Image, "@sha256:") {
			noDigest.add(c.Image)
		}
		if c.Security.Privileged {
			privileged.add(c.Name)
		}
		for _, capability := range c.Security.Capabilities.Add {
			capabilities.add(strings.TrimPrefix(strings.ToUpper(capability), "CAP_"))
		}
	}
	for _, v := range p.Spec.Volumes {
		if v.HostPath != nil {
			paths.add(path.Clean(v.HostPath.Path))
		}
	}
	for _, n := range []struct {
		name string
		is   bool
	}{{"network", p.Spec.HostNetwork}, {"pid", p.Spec.HostPID}, {"ipc", p.Spec.HostIPC}} {
		if n.is {
			namespaces.add(n.name)
		}
	}
	e.Severity = event.Info
	if len(privileged)+len(namespaces)+len(paths)+len(capabilities) > 0 {
		e.Severity = event.Medium
	}
	put(e, "images", images)
	put(e, "images_without_digest", noDigest)
	put(e, "privileged", privileged)
	put(e, "capabilities", capabilities)
	put(e, "host_paths", paths)
	put(e, "host_namespaces", namespaces)
	for key, value := range map[string]string{"generate_name": p.Metadata.GenerateName, "service_account": p.Spec.ServiceAccount} {
		if value != "" {
			e.Metadata[key] = cut(value)
		}
	}
	e.Metadata["dedupe"] = dedupe(e, p.Metadata.GenerateName, fmt.Sprint(images, privileged, capabilities, paths, namespaces))
}

func describeExec(e *event.Event, q *admission.Request) {
	var o struct {
		Container string   `json:"container"`
		Command   []string `json:"command"`
		TTY       bool     `json:"tty"`
		Stdin     bool     `json:"stdin"`
	}
	if err := json.Unmarshal(q.Object, &o, jsontext.AllowDuplicateNames(true)); err != nil {
		e.Metadata["unreadable"] = true
	}
	e.Severity = event.Low
	if o.TTY || o.Stdin { // a person at a shell, or something that is fed to one
		e.Severity = event.Medium
	}
	e.Metadata["how"], e.Metadata["tty"], e.Metadata["stdin"] = q.SubResource, o.TTY, o.Stdin
	program := ""
	if len(o.Command) > 0 {
		program = cut(o.Command[0])
		e.Metadata["program"], e.Metadata["arguments"] = program, len(o.Command)-1
	}
	if o.Container != "" {
		e.Container = &event.Container{Name: cut(o.Container)}
	}
	e.Metadata["dedupe"] = dedupe(e, q.SubResource, o.Container, program, fmt.Sprint(o.TTY, o.Stdin, len(o.Command)))
}

// dedupe is equal for what a person would call the same: who, what and where, without the time and the review's uid.
func dedupe(e *event.Event, more ...string) string {
	h := sha256.New()
	for _, s := range append([]string{string(e.Type), fmt.Sprint(e.Metadata["user"]), e.PodNamespace, e.PodName, e.Workload}, more...) {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
