package cluster

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// names are the namespaces, as a reflector fills them.
type names struct {
	mu     sync.RWMutex
	labels map[string]map[string]string // nil: not listed yet
}

func (n *names) listed() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.labels != nil
}

// Add implements [cache.ReflectorStore], as the others do.
func (n *names) Add(object any) error { return n.Update(object) }

// Update takes a namespace as it is now.
func (n *names) Update(object any) error {
	ns, ok := object.(*corev1.Namespace)
	if !ok {
		return fmt.Errorf("got a %T for a namespace", object)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.labels == nil {
		return nil // Replace comes first
	}
	n.labels[ns.Name] = ours(ns.Labels)
	return nil
}

// Delete forgets a namespace.
func (n *names) Delete(object any) error {
	ns, ok := object.(*corev1.Namespace)
	if !ok {
		return fmt.Errorf("got a %T for a namespace", object)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.labels, ns.Name)
	return nil
}

// Replace takes the whole list.
func (n *names) Replace(list []any, _ string) error {
	next := make(map[string]map[string]string, len(list))
	for _, object := range list {
		ns, ok := object.(*corev1.Namespace)
		if !ok {
			return fmt.Errorf("got a %T for a namespace", object)
		}
		next[ns.Name] = ours(ns.Labels)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.labels = next
	return nil
}

// Resync implements the interface; nothing asks for it.
func (n *names) Resync() error { return nil }

// ours are the labels that decide.
func ours(all map[string]string) map[string]string {
	var kept map[string]string
	for _, label := range decide.NamespaceLabels() {
		if value, ok := all[label]; ok {
			if kept == nil {
				kept = make(map[string]string, 1)
			}
			kept[label] = value
		}
	}
	return kept
}

// versions are the minor versions of the kubelets that run Linux.
type versions struct {
	mu     sync.RWMutex
	minors map[string]int // by node; 0: it has none that can be read. nil: not listed yet
}

func (v *versions) listed() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.minors != nil
}

// lowest returns the oldest kubelet's version, and how many there are.
func (v *versions) lowest() (minor, nodes int) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	first := true
	for _, m := range v.minors {
		if first || m < minor {
			minor, first = m, false
		}
	}
	return minor, len(v.minors)
}

// Add implements [cache.ReflectorStore], as the others do.
func (v *versions) Add(object any) error { return v.Update(object) }

// Update takes a node as it is now.
func (v *versions) Update(object any) error {
	n, ok := object.(*corev1.Node)
	if !ok {
		return fmt.Errorf("got a %T for a node", object)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.minors != nil {
		put(v.minors, n)
	}
	return nil
}

// Delete forgets a node.
func (v *versions) Delete(object any) error {
	n, ok := object.(*corev1.Node)
	if !ok {
		return fmt.Errorf("got a %T for a node", object)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.minors, n.Name)
	return nil
}

// Replace takes the whole list.
func (v *versions) Replace(list []any, _ string) error {
	next := make(map[string]int, len(list))
	for _, object := range list {
		n, ok := object.(*corev1.Node)
		if !ok {
			return fmt.Errorf("got a %T for a node", object)
		}
		put(next, n)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.minors = next
	return nil
}

// Resync implements the interface; nothing asks for it.
func (v *versions) Resync() error { return nil }

// put keeps n's version. Windows' kubelets run none of our pods; one that has not said its version yet runs none at all.
func put(minors map[string]int, n *corev1.Node) {
	info := n.Status.NodeInfo
	if info.OperatingSystem == "windows" || info.KubeletVersion == "" {
		delete(minors, n.Name)
		return
	}
	minor, _ := kube.Minor(info.KubeletVersion) // one that is no version counts as too old
	minors[n.Name] = minor
}
