// Package decide says whether a pod gets an agent beside its containers, in what form, and why not.
//
// It is a pure function of the pod, its namespace, the settings and what is known of the cluster, so every decision can
// be repeated from its inputs. It never chooses a form that the API server would refuse: a pod must start, with the agent
// or without it. What it cannot give as asked comes with a warning for the pod's author.
package decide

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/webhook/internal/pod"
)

// Sidecar is the name of the agent's container.
const Sidecar = "apss-agent"

// Volumes of the sidecar.
const (
	SpoolVolume = "apss-spool"
	TokenVolume = "apss-token"
)

// Labels of namespaces.
const (
	LabelInject = "apss.dev/inject"                    // enabled or disabled
	LabelOptOut = "apss.dev/pod-opt-out"               // allowed: its pods may opt out
	labelPSA    = "pod-security.kubernetes.io/enforce" // https://kubernetes.io/docs/concepts/security/pod-security-admission
)

// NamespaceLabels are the labels of a namespace that decisions look at.
func NamespaceLabels() []string { return []string{LabelInject, LabelOptOut, labelPSA} }

// Tier is what the sidecar may do, see the design.
type Tier string

// The tiers of a sidecar; Auto takes the one that sees most of what is admitted.
const (
	Auto    Tier = "auto"
	Full    Tier = "pod-full"
	SameUID Tier = "pod-same-uid"
	Limited Tier = "pod-limited"
)

// OptOut says whose pods may do without by annotation.
type OptOut string

// The choices.
const (
	Never       OptOut = "never"
	ByNamespace OptOut = "namespace" // those with the label LabelOptOut
	Always      OptOut = "always"
)

// Settings are the operator's.
type Settings struct {
	All      bool     // all namespaces but those labelled disabled; else only those labelled enabled
	OptOut   OptOut   // by pods
	Tier     Tier     // unless a pod asks for another
	Own      string   // our namespace
	Excluded []string // patterns of path.Match of further namespaces
	Classic  bool     // no native sidecars
	First    bool     // before the application's init containers, unless a pod asks for another place
	Unshared bool     // containers keep their own processes to themselves, unless a pod asks to share them
	Security string   // the level of Pod Security that namespaces without a label are held to; empty: privileged
}

// Validate reports all that is wrong with s.
func (s *Settings) Validate() error {
	var errs []error
	if !slices.Contains([]OptOut{Never, ByNamespace, Always}, s.OptOut) {
		errs = append(errs, fmt.Errorf("who may opt out is %q, want %s, %s or %s", s.OptOut, Never, ByNamespace, Always))
	}
	if !slices.Contains([]Tier{Auto, Full, SameUID, Limited}, s.Tier) {
		errs = append(errs, fmt.Errorf("the tier is %q, want %s, %s, %s or %s", s.Tier, Auto, Full, SameUID, Limited))
	}
	if !slices.Contains([]string{"", privileged, "baseline", "restricted"}, s.Security) {
		errs = append(errs, fmt.Errorf("the level of Pod Security is %q, want privileged, baseline or restricted", s.Security))
	}
	for _, pattern := range s.Excluded {
		if _, err := path.Match(pattern, ""); err != nil {
			errs = append(errs, fmt.Errorf("%q is no pattern of namespaces: %w", pattern, err))
		}
	}
	return errors.Join(errs...)
}

// Cluster is what is known of the cluster.
type Cluster struct {
	Minor int // of the oldest kubelet's version 1.x; 0 when it is not known
}

// nativeFrom: sidecar containers are on by default from Kubernetes 1.29 on
// (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers).
const nativeFrom = 29

// Namespace is the pod's.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Less says why a sidecar is not of the tier that sees everything, pod-full.
type Less string

// The reasons.
const (
	Wanted      Less = "asked-for"     // by the settings or the pod
	Enough      Less = "one-user"      // all containers run as one user, and so does the sidecar: it sees as much of them
	NotShared   Less = "not-shared"    // the pod's containers keep their processes to themselves
	PodSecurity Less = "pod-security"  // the namespace's level refuses SYS_PTRACE
	SeveralUIDs Less = "several-users" // pod-same-uid was asked for, and the containers do not run as one user
)

// Decision is what to do with a pod.
type Decision struct {
	Reason   Reason
	Tier     Tier
	Less     Less // why it is no tier that sees more
	Native   bool // an init container that goes on running; else one of the containers
	First    bool // before the other init containers
	Share    bool // one process namespace for all containers
	UID, GID *int64
	Workload string
	Warnings []string // for who creates the pod
}

// Pod decides about p.
func Pod(p *pod.Pod, ns Namespace, s *Settings, c Cluster) Decision {
	d := InNamespace(ns, s)
	if d.Reason != Injected {
		return d
	}
	d.Workload = p.Workload()
	if d.Reason = d.whether(p, ns, s); d.Reason != Injected {
		return d
	}
	d.Native = !s.Classic && c.Minor >= nativeFrom
	if !d.Native && (p.Spec.RestartPolicy == "Never" || p.Spec.RestartPolicy == "OnFailure" || p.Controller().Kind == "Job") {
		d.Reason = NeedsNative
		return d
	}
	d.First = d.Native && d.boolean("apss.dev/first", annotations(p).First, s.First)
	d.form(p, ns, s)
	return d
}

// annotations are p's, the empty ones when it has none.
func annotations(p *pod.Pod) pod.Annotations {
	if p.Metadata.Annotations == nil {
		return pod.Annotations{}
	}
	return *p.Metadata.Annotations
}

func (d *Decision) warn(format string, args ...any) {
	d.Warnings = append(d.Warnings, fmt.Sprintf(format, args...))
}

// boolean reads an annotation.
func (d *Decision) boolean(name string, value *string, otherwise bool) bool {
	if value == nil {
		return otherwise
	}
	switch *value {
	case "true":
		return true
	case "false":
		return false
	}
	d.warn("annotation %s is %.40q, want \"true\" or \"false\"; taken as %t", name, *value, otherwise)
	return otherwise
}

// InNamespace decides as far as the namespace does: for most pods no more is needed. [Injected] means that the pod itself
// has to be looked at.
func InNamespace(ns Namespace, s *Settings) Decision {
	var d Decision
	d.Reason = d.namespace(ns, s)
	return d
}

func (d *Decision) namespace(ns Namespace, s *Settings) Reason {
	switch {
	case ns.Name == s.Own:
		return OwnNamespace
	case managed(ns.Name) || slices.ContainsFunc(s.Excluded, func(pattern string) bool { ok, _ := path.Match(pattern, ns.Name); return ok }):
		return ManagedNamespace
	}
	switch label := ns.Labels[LabelInject]; label {
	case "enabled":
		return Injected
	case "disabled":
		return NamespaceDisabled
	default:
		if label != "" {
			d.warn("label %s of namespace %s is %.40q, want enabled or disabled; taken as not set", LabelInject, ns.Name, label)
		}
	}
	if !s.All {
		return NamespaceNotEnabled
	}
	return Injected
}

// whether returns Injected when nothing of the pod speaks against it.
func (d *Decision) whether(p *pod.Pod, ns Namespace, s *Settings) Reason {
	a := annotations(p)
	switch {
	case a.Mirror != nil, a.Source != nil && *a.Source != "api":
		return MirrorPod
	case p.Windows():
		return Windows
	case p.Spec.HostNetwork:
		return HostNetwork
	case p.Spec.HostPID:
		return HostPID
	case len(p.Spec.Containers) == 0:
		return NoContainers
	}
	if !d.boolean(LabelInject, a.Inject, true) {
		if s.OptOut == Always || s.OptOut == ByNamespace && ns.Labels[LabelOptOut] == "allowed" {
			return PodOptedOut
		}
		d.warn("annotation %s: pods of namespace %s may not opt out; ask who runs the cluster", LabelInject, ns.Name)
	}
	if has(p) {
		return Present
	}
	return Injected
}

// managed are namespaces of Kubernetes and of Google's: an injector in these is what GKE calls unsafe
// (https://cloud.google.com/kubernetes-engine/docs/how-to/optimize-webhooks#unsafe-webhooks).
func managed(name string) bool {
	switch name {
	case "kube-system", "kube-public", "kube-node-lease", "config-management-system", "gatekeeper-system", "resource-group-system":
		return true
	}
	return strings.HasPrefix(name, "gke-") || strings.HasPrefix(name, "gmp-")
}

// has reports whether p has a container or volume of our name.
func has(p *pod.Pod) bool {
	ours := func(c pod.Container) bool { return c.Name == Sidecar }
	return slices.ContainsFunc(p.Spec.InitContainers, ours) || slices.ContainsFunc(p.Spec.Containers, ours) ||
		slices.ContainsFunc(p.Spec.Volumes, func(v pod.Volume) bool { return v.Name == SpoolVolume || v.Name == TokenVolume })
}
