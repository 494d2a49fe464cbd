package pods

import "fmt"

// store is the directory as a reflector fills it.
type store Directory

func (s *store) directory() *Directory { return (*Directory)(s) }

// Add implements [k8s.io/client-go/tools/cache.ReflectorStore], as the others do.
func (s *store) Add(object any) error { return s.Update(object) }

// Update takes a pod as it is now.
func (s *store) Update(object any) error {
	o, ok := object.(*Pod)
	if !ok {
		return fmt.Errorf("got a %T for a pod", object)
	}
	d, key := s.directory(), o.Namespace+"/"+o.Name
	p, refused := newPod(o)
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.same(d.pods[key]) {
		return nil // most news of a pod are about its conditions
	}
	d.status.Refused += refused
	d.put(key, p)
	d.publish()
	return nil
}

// Delete forgets a pod; its containers are named for a while.
func (s *store) Delete(object any) error {
	o, ok := object.(*Pod)
	if !ok {
		return fmt.Errorf("got a %T for a pod", object)
	}
	d := s.directory()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pods, o.Namespace+"/"+o.Name)
	d.publish()
	return nil
}

// Replace takes the whole list.
func (s *store) Replace(list []any, _ string) error {
	next := make(map[string]*pod, len(list))
	d := s.directory()
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.pods
	d.pods = next
	for _, object := range list {
		o, ok := object.(*Pod)
		if !ok {
			d.pods = old
			return fmt.Errorf("got a %T for a pod", object)
		}
		key := o.Namespace + "/" + o.Name
		p, refused := newPod(o)
		d.status.Refused += refused
		if was := old[key]; p.same(was) {
			p = was
		}
		d.put(key, p)
	}
	d.publish()
	d.synced = true
	d.become(Status{State: StateWatching})
	return nil
}

// Resync implements the interface; nothing asks for it.
func (s *store) Resync() error { return nil }

// put adds a pod within the bound. The caller holds the lock.
func (d *Directory) put(key string, p *pod) {
	if d.pods[key] == nil && len(d.pods) >= maxPods {
		d.status.Refused++
		return
	}
	d.pods[key] = p
}
