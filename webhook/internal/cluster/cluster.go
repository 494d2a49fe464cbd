// Package cluster knows what decisions need of the cluster: the labels of namespaces and the oldest kubelet's version.
//
// Both are watched and answered from memory; of each object only that is kept. It needs list and watch on namespaces and
// nodes (a kubelet's version is in a node's status and nowhere else). Without nodes (a cluster that scaled to zero) it
// takes the oldest kubelet that the API server may have. With an API server that is away, what is known stays.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// skew is how many minor versions a kubelet may be older than its API server
// (https://kubernetes.io/releases/version-skew-policy/#kubelet).
const skew = 3

// Cluster is watched by Run. Its other methods never wait and may be called concurrently.
type Cluster struct {
	client     *kube.Client
	log        *slog.Logger
	namespaces names
	nodes      versions
	server     atomic.Int64 // the API server's minor version; 0: not known
}

// New returns the cluster of client.
func New(client *kube.Client, log *slog.Logger) *Cluster { return &Cluster{client: client, log: log} }

// Run watches until ctx ends.
func (c *Cluster) Run(ctx context.Context) {
	quiet := klog.NewContext(ctx, logr.FromSlogHandler(slog.DiscardHandler))
	var watching sync.WaitGroup
	defer watching.Wait()
	for _, w := range []struct {
		resource string
		object   runtime.Object
		store    cache.ReflectorStore
	}{
		{"namespaces", &corev1.Namespace{}, &c.namespaces},
		{"nodes", &corev1.Node{}, &c.nodes},
	} {
		source := &loud{ListWatch: cache.NewListWatchFromClient(c.client.Core, w.resource, metav1.NamespaceAll, fields.Everything()), what: w.resource, log: c.log}
		r := cache.NewReflectorWithOptions(source, w.object, w.store, cache.ReflectorOptions{Name: w.resource})
		watching.Go(func() { r.RunWithContext(quiet) })
	}
	watching.Go(func() { c.watchServer(ctx) })
}

// watchServer asks for the API server's version: it is updated while we run.
func (c *Cluster) watchServer(ctx context.Context) {
	const often, retry = time.Hour, 10 * time.Second
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		minor, err := c.client.Minor(ctx)
		if err != nil {
			if ctx.Err() == nil {
				c.log.WarnContext(ctx, "the API server's version is not known; it is asked again", "error", err.Error())
			}
			wait.Reset(retry)
			continue
		}
		c.server.Store(int64(minor))
		wait.Reset(often)
	}
}

// Ready returns nil once everything was listed.
func (c *Cluster) Ready() error {
	var errs []error
	if !c.namespaces.listed() {
		errs = append(errs, errors.New("namespaces are not listed yet"))
	}
	if !c.nodes.listed() {
		errs = append(errs, errors.New("nodes are not listed yet"))
	}
	if c.server.Load() == 0 {
		errs = append(errs, errors.New("the API server's version is not known yet"))
	}
	return errors.Join(errs...)
}

// Namespace returns the labels of a namespace that concern us, false when it is not known.
func (c *Cluster) Namespace(name string) (map[string]string, bool) {
	c.namespaces.mu.RLock()
	defer c.namespaces.mu.RUnlock()
	labels, ok := c.namespaces.labels[name]
	return labels, ok
}

// Each calls f with each namespace until it returns false. It works on a copy: f may take its time.
func (c *Cluster) Each(f func(decide.Namespace) bool) {
	c.namespaces.mu.RLock()
	all := make([]decide.Namespace, 0, len(c.namespaces.labels))
	for name, labels := range c.namespaces.labels {
		all = append(all, decide.Namespace{Name: name, Labels: labels})
	}
	c.namespaces.mu.RUnlock()
	for _, ns := range all {
		if !f(ns) {
			return
		}
	}
}

// Cluster returns what is known now.
func (c *Cluster) Cluster() decide.Cluster {
	minor, nodes := c.nodes.lowest()
	if server := int(c.server.Load()); nodes == 0 && server > 0 {
		minor = max(server-skew, 0)
	}
	return decide.Cluster{Minor: minor}
}

// loud says when a list or a watch fails; client-go tries again, after 1 to 60 s.
type loud struct {
	*cache.ListWatch
	what string
	log  *slog.Logger
}

// ListWithContext implements [cache.ListerWithContext].
func (l *loud) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	list, err := l.ListWatch.ListWithContext(ctx, options)
	if err != nil && ctx.Err() == nil {
		l.log.WarnContext(ctx, "a list failed; what was known stays, and it is tried again", "resource", l.what, "error", err.Error())
	}
	if err != nil {
		err = fmt.Errorf("listing %s: %w", l.what, err)
	}
	return list, err
}
