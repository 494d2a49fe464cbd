package pods

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Own is the pod of a sidecar, as the downward API and the injector told it.
type Own struct {
	Name, Namespace string
	UID             string            // optional: without it every container in view is the pod's
	Workload        string            // optional: "<Kind>/<name>"
	Images          map[string]string // optional: of its containers, by name
}

// NewOwn returns the directory of a sidecar. It asks no API: what [Directory.Seen] is given is its pod's.
func NewOwn(o Own, log *slog.Logger) *Directory {
	d := newDirectory(log)
	d.own = &pod{uid: o.UID, place: Container{Pod: o.Name, Namespace: o.Namespace, Workload: o.Workload}}
	for _, name := range slices.Sorted(maps.Keys(o.Images)) {
		d.own.images = append(d.own.images, container{Name: name, Image: o.Images[name]})
	}
	d.pods[o.Namespace+"/"+o.Name] = d.own
	d.status = Status{State: StateOwn, Reason: "a sidecar knows its own pod and asks no API", Pods: 1}
	return d
}

// Run keeps the directory until ctx ends. It returns nil then and never before.
func (d *Directory) Run(ctx context.Context) error {
	if d.watch != nil {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			d.watch.run(ctx)
		}()
		defer func() { <-watched }()
	}
	tick := time.NewTicker(keep / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.mu.Lock()
			d.publish() // forgets
			d.mu.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}
