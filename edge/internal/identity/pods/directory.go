package pods

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
	"github.com/apss-sensor/apss/shared/event"
)

const (
	// keep is how long a container that vanished is still named: what it did may be found out late.
	keep = 10 * time.Minute
	// maxPods bounds the pods of a node. GKE allows 256, OpenShift 500 and more after tuning; Kubernetes advises 110
	// (https://kubernetes.io/docs/setup/best-practices/cluster-large/).
	maxPods = 1024
	// maxPodContainers bounds the containers of a pod, previous runs counted.
	maxPodContainers = 64
	// maxOthers bounds those that were only seen, and those that vanished, each.
	maxOthers = 4096
)

// Container is what a container is called. It is shared by all who ask: it must not be changed.
type Container struct {
	event.Container // with id, name and image

	Pod       string
	Namespace string
	Workload  string // "<Kind>/<name>"
}

// Directory knows the containers of a node, or of a pod. Its methods may be called concurrently.
type Directory struct {
	log     *slog.Logger
	watch   *watcher // nil: nothing is watched
	names   atomic.Pointer[names]
	unnamed atomic.Int64

	mu     sync.Mutex
	pods   map[string]*pod // by "<namespace>/<name>"
	own    *pod            // of a sidecar
	seen   map[string]*sighting
	gone   []departed // oldest first
	synced bool       // the whole list was read once
	status Status
}

// names is never changed once it can be looked up in.
type names struct {
	live, gone map[string]*Container // by id
}

type pod struct {
	uid, mirror string
	place       Container // without the container
	images      []container
	containers  []*Container
}

// sighting is a container that the kernel showed and no status named yet.
type sighting struct {
	cgroup.Container
	of    *pod // that named is made of
	named *Container
	until time.Time // it is kept without a pod
}

type departed struct {
	c     *Container
	until time.Time
}

func newDirectory(log *slog.Logger) *Directory {
	d := &Directory{log: log, pods: map[string]*pod{}, seen: map[string]*sighting{}}
	d.names.Store(&names{})
	return d
}

// Lookup returns what the container is called, nil when that is not known (yet).
func (d *Directory) Lookup(id string) *Container {
	n := d.names.Load()
	if c := n.live[id]; c != nil {
		return c
	}
	if c := n.gone[id]; c != nil {
		return c
	}
	d.unnamed.Add(1)
	return nil
}

// Seen takes what the kernel tells of a container: it is named by its pod until the kubelet publishes its id. It is for
// [cgroup.NewReader].
func (d *Directory) Seen(c cgroup.Container) {
	if c.ID == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names.Load().live[c.ID] != nil && d.seen[c.ID] == nil {
		return // a status names it
	}
	if d.seen[c.ID] == nil && len(d.seen) >= maxOthers {
		d.status.Refused++
		return
	}
	d.seen[c.ID] = &sighting{Container: c, until: time.Now().Add(keep)}
	d.publish()
}

// publish makes what is known now what Lookup finds. The caller holds the lock.
func (d *Directory) publish() {
	now, old := time.Now(), d.names.Load()
	next := &names{live: make(map[string]*Container, len(old.live)+8), gone: old.gone}
	byUID := make(map[string]*pod, 2*len(d.pods))
	for _, p := range d.pods {
		byUID[p.uid], byUID[p.mirror] = p, p
		for _, c := range p.containers {
			next.live[c.ID] = c
		}
	}
	delete(byUID, "")
	named := len(next.live)
	for id, s := range d.seen {
		if next.live[id] != nil {
			delete(d.seen, id)
			continue
		}
		p := byUID[s.PodUID]
		if p == nil && (s.PodUID == "" || d.own != nil && d.own.uid == "") {
			p = d.own
		}
		if p == nil {
			if now.After(s.until) {
				delete(d.seen, id)
			}
			continue
		}
		if s.of != p {
			s.of, s.named = p, p.container(id, s.Name, "")
		}
		next.live[id] = s.named
	}

	stay := slices.DeleteFunc(d.gone, func(g departed) bool { return now.After(g.until) || next.live[g.c.ID] != nil })
	changed := len(stay) != len(d.gone)
	for id, c := range old.live {
		if next.live[id] == nil {
			stay, changed = append(stay, departed{c, now.Add(keep)}), true
		}
	}
	d.gone = slices.Delete(stay, 0, max(len(stay)-maxOthers, 0))
	if changed {
		next.gone = make(map[string]*Container, len(d.gone))
		for _, g := range d.gone {
			next.gone[g.c.ID] = g.c
		}
	}
	d.status.Pods, d.status.Containers, d.status.Seen, d.status.Gone = len(d.pods), named, len(next.live)-named, len(next.gone)
	d.names.Store(next)
}

// newPod takes what is needed out of an API object, whose other bytes can then be freed, and returns how many of its
// containers there was no room for.
func newPod(o *Pod) (p *pod, refused int64) {
	p = &pod{
		uid: string(o.UID), mirror: o.Annotations[annotationMirror],
		place:  Container{Pod: o.Name, Namespace: o.Namespace, Workload: workloadOf(&o.ObjectMeta)},
		images: slices.Concat(o.Spec.Containers, o.Spec.InitContainers, o.Spec.EphemeralContainers),
	}
	for _, s := range slices.Concat(o.Status.Containers, o.Status.InitContainers, o.Status.EphemeralContainers) {
		for _, of := range []string{s.ContainerID, s.LastState.Terminated.ContainerID} {
			if _, id, ok := strings.Cut(of, "://"); !ok || id == "" {
				continue // it was not created yet
			} else if len(p.containers) == maxPodContainers {
				refused++
			} else {
				p.containers = append(p.containers, p.container(id, s.Name, s.Image))
			}
		}
	}
	return p, refused
}

// container returns a container of p with the image that the pod's author wrote, else with the one given.
func (p *pod) container(id, name, image string) *Container {
	c := p.place
	c.Container = event.Container{ID: id, Name: name, Image: image}
	for _, of := range p.images {
		if of.Name == name {
			c.Image = of.Image
		}
	}
	return &c
}

// same says that nothing that is kept of a pod differs.
func (p *pod) same(q *pod) bool {
	return q != nil && p.uid == q.uid && p.mirror == q.mirror && p.place.Workload == q.place.Workload &&
		slices.Equal(p.images, q.images) &&
		slices.EqualFunc(p.containers, q.containers, func(a, b *Container) bool {
			return a.ID == b.ID && a.Name == b.Name && a.Image == b.Image
		})
}
