package decide

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/apss-sensor/apss/webhook/internal/pod"
)

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
	d.share(p, s)
	uid, gid := user(p)
	plain := uid != nil && *uid > 0
	level := securityOf(ns, s)
	capable := level == privileged
	most, less := Limited, PodSecurity
	switch {
	case !d.Share:
		less = NotShared
	case plain:
		most, less = SameUID, Enough
	case capable:
		most, less = Full, ""
	}
	refused := ""
	switch asked {
	case Full:
		switch {
		case !d.Share:
			refused = "its containers do not share their processes"
		case !capable:
			refused, less = fmt.Sprintf("namespace %s is held to Pod Security %.40q, which refuses SYS_PTRACE", ns.Name, level), PodSecurity
		default:
			most, less = Full, ""
		}
	case SameUID:
		switch {
		case !d.Share:
			refused = "its containers do not share their processes"
		case !plain:
			most, less, refused = Limited, SeveralUIDs, "its containers do not all run as one uid other than 0 by runAsUser"
		default:
			most, less = SameUID, Wanted
		}
	case Limited:
		most, less = Limited, Wanted
	case Auto:
	}
	d.Less = less
	switch {
	case refused != "" && annotations(p).Tier != nil:
		d.warn("annotation apss.dev/tier: %s is not possible: %s; taken as %s", asked, refused, most)
	case most == Limited && less == PodSecurity:
		d.warn("the agent sees little of this pod: namespace %s is held to Pod Security %.40q, which refuses SYS_PTRACE; let all containers run as one uid other than 0 (runAsUser), and it sees them", ns.Name, level)
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

// TierOf returns the tier of a sidecar beside p's containers that runs as this user, false where it cannot be ours: root,
// nobody, or one that a container runs as.
func TierOf(p *pod.Pod, uid, gid *int64) (t Tier, ours bool) {
	one := func(id, of, all *int64) bool {
		if of == nil {
			of = all
		}
		return of != nil && *of == *id
	}
	switch {
	case uid == nil:
		return "", false
	case *uid == 0:
		return Full, gid != nil && *gid == 0
	case *uid == nobody && gid != nil && *gid == nobody:
		return Limited, true
	}
	all := &p.Spec.SecurityContext
	return SameUID, slices.ContainsFunc(p.Spec.Containers, func(c pod.Container) bool {
		s := &c.SecurityContext
		return one(uid, s.RunAsUser, all.RunAsUser) && (gid == nil || one(gid, s.RunAsGroup, all.RunAsGroup))
	})
}

// share decides about the process namespace. The pod itself comes first, then its annotation, then the settings. With one for
// all, the application is not process 1 any more, which some programs (init systems) want to be.
func (d *Decision) share(p *pod.Pod, s *Settings) {
	const annotation = "apss.dev/share-processes"
	d.Share = d.boolean(annotation, annotations(p).Share, !s.Unshared)
	said := p.Spec.ShareProcessNamespace
	if said == nil {
		return
	}
	if annotations(p).Share != nil && *said != d.Share {
		d.warn("annotation %s: the pod sets shareProcessNamespace to %t, and that holds", annotation, *said)
	}
	d.Share = *said
}

// privileged is the level of Pod Security that refuses nothing.
const privileged = "privileged"

// securityOf returns the level that ns is held to. SYS_PTRACE is in neither of the others
// (https://kubernetes.io/docs/concepts/security/pod-security-standards). What is no level is taken as restricted
// (k8s.io/pod-security-admission/api ParseLevel).
func securityOf(ns Namespace, s *Settings) string {
	if level, labelled := ns.Labels[labelPSA]; labelled {
		return level
	}
	return cmp.Or(s.Security, privileged)
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
