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

// Decision is what to do with a pod.
type Decision struct {
	Reason   Reason
	Tier     Tier
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
	case p.Spec.OS.Name == "windows", p.Spec.NodeSelector.OS == "windows":
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

// form chooses the tier and with it the user and the process namespace.
func (d *Decision) form(p *pod.Pod, ns Namespace, s *Settings) {
	asked := s.Tier
	if t := annotations(p).Tier; t != nil {
		switch Tier(*t) {
		case Full, SameUID, Limited:
			asked = Tier(*t)
		default:
			d.warn("annotation apss.dev/tier is %.40q, want %s, %s or %s; taken as %s", *t, Full, SameUID, Limited, asked)
		}
	}
	d.Share = p.Spec.ShareProcessNamespace == nil || *p.Spec.ShareProcessNamespace
	uid, gid := user(p)
	plain := uid != nil && *uid > 0
	// SYS_PTRACE is in neither profile (https://kubernetes.io/docs/concepts/security/pod-security-standards).
	enforced := ns.Labels[labelPSA]
	// What is no level is taken as restricted (k8s.io/pod-security-admission/api ParseLevel).
	_, labelled := ns.Labels[labelPSA]
	capable := !labelled || enforced == "privileged"
	most := Limited
	switch {
	case !d.Share:
	case plain:
		most = SameUID
	case capable:
		most = Full
	}
	refused := ""
	switch asked {
	case Full:
		switch {
		case !d.Share:
			refused = "the pod sets shareProcessNamespace to false"
		case !capable:
			refused = fmt.Sprintf("namespace %s enforces Pod Security %q, which refuses SYS_PTRACE", ns.Name, enforced)
		default:
			most = Full
		}
	case SameUID:
		switch {
		case !d.Share:
			refused = "the pod sets shareProcessNamespace to false"
		case !plain:
			most, refused = Limited, "its containers do not all run as one uid other than 0 by runAsUser"
		default:
			most = SameUID
		}
	case Limited:
		most = Limited
	case Auto:
	}
	if refused != "" && annotations(p).Tier != nil {
		d.warn("annotation apss.dev/tier: %s is not possible: %s; taken as %s", asked, refused, most)
	}
	d.Tier = most
	switch most {
	case Full:
		d.UID, d.GID = new(int64(0)), new(int64(0))
	case SameUID:
		d.UID, d.GID = uid, gid
	default:
		d.UID, d.GID = new(int64(nobody)), new(int64(nobody))
	}
}

// nobody is a user without rights of its own.
const nobody = 65534

// user returns the uid and gid that all of p's containers run as, as far as p says; nil where they differ.
func user(p *pod.Pod) (uid, gid *int64) {
	one := func(all *int64, of func(*pod.ContainerSecurity) *int64) *int64 {
		var found *int64
		for i := range p.Spec.Containers {
			c := &p.Spec.Containers[i]
			if c.Name == Sidecar {
				continue
			}
			id := of(&c.SecurityContext)
			if id == nil {
				id = all
			}
			if id == nil || found != nil && *found != *id {
				return nil
			}
			found = id
		}
		return found
	}
	uid = one(p.Spec.SecurityContext.RunAsUser, func(c *pod.ContainerSecurity) *int64 { return c.RunAsUser })
	gid = one(p.Spec.SecurityContext.RunAsGroup, func(c *pod.ContainerSecurity) *int64 { return c.RunAsGroup })
	return uid, gid
}
