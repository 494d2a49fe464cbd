// Package reconcile looks for pods that should have an agent and have none: they were created while the webhook could not
// be asked, or before it was there. Failing open goes unseen otherwise.
//
// Every interval the pods of the injected namespaces are listed, in pages, and decided about as if they were created now.
// What should be injected and is not is counted, told as a Kubernetes Event at its controller (at the pod itself when it has
// none) and as an agent_coverage event. Any replica may look; the name of the Kubernetes Event follows from its owner, so
// the one that creates it tells, and the others find it there. The API server forgets it after an hour, and then it is told
// again. A look tells of [tellAtMost] owners, the next one of others: an outage that left thousands of pods without an agent
// is no storm of writes.
//
// Restarting is a setting: one pod of each owner and look is evicted, which honours disruption budgets, and only where a
// controller makes another one that does not end by itself. When the pods that came after an eviction lack the agent too,
// no more of that owner are for ten minutes.
package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// Counter counts.
type Counter interface{ Add(n int64) }

// Config says what is looked at. All fields are required.
type Config struct {
	Client *kube.Client
	// Ready returns nil when namespaces are known.
	Ready      func() error
	Namespaces func(func(decide.Namespace) bool)
	// Injected says whether pods of a namespace may be.
	Injected func(decide.Namespace) bool
	// Pod decides about a pod in JSON.
	Pod     func(object []byte, ns decide.Namespace) (decide.Decision, error)
	Tell    func(*event.Event)
	Every   time.Duration
	Restart bool
	// Evicted counts evictions, Budgeted those that a disruption budget did not allow, Failed looks that did not come to
	// their end.
	Evicted, Budgeted, Failed Counter
	Log                       *slog.Logger
}

// Counts are the pods of the injected namespaces at the last look that came to its end.
type Counts struct {
	Covered int64 // have the agent that they would get now
	Differs int64 // have another: from before a change of the settings, or altered
	Missing int64 // have none and should
	Excused int64 // have none, with a reason
}

// Reconciler is made by New.
type Reconciler struct {
	cfg     Config
	counts  atomic.Pointer[Counts]
	looked  bool                 // at least once to the end
	evicted map[string]eviction  // by the owner's uid
	toldOf  map[string]time.Time // likewise
}

// New returns a Reconciler that does nothing before Run.
func New(c Config) *Reconciler {
	r := &Reconciler{cfg: c, evicted: map[string]eviction{}, toldOf: map[string]time.Time{}}
	r.counts.Store(&Counts{})
	return r
}

// Counts may be called concurrently.
func (r *Reconciler) Counts() Counts { return *r.counts.Load() }

// Run looks until ctx ends.
func (r *Reconciler) Run(ctx context.Context) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		if r.cfg.Ready() != nil {
			wait.Reset(time.Second)
			continue
		}
		if err := r.Look(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Failed.Add(1)
			r.cfg.Log.WarnContext(ctx, "pods without an agent could not be looked for; it is tried again", "error", err.Error())
		}
		wait.Reset(r.cfg.Every*3/4 + rand.N(r.cfg.Every/2)) //nolint:gosec // replicas look at different times, nothing more
	}
}

// tellAtMost is how many owners one look tells of, and forgotten after how long one is told of again: the API server keeps
// Events for an hour (kube-apiserver --event-ttl).
const (
	tellAtMost = 50
	forgotten  = time.Hour
)

// page is how many pods a list brings at a time.
const page = 250

// missing is a pod without its agent.
type missing struct {
	metadata
	workload string
}

// metadata is a pod's.
type metadata struct {
	Name     string    `json:"name"`
	UID      string    `json:"uid"`
	Created  time.Time `json:"creationTimestamp"`
	Deletion string    `json:"deletionTimestamp"`
	Owners   []owner   `json:"ownerReferences"`
}

type owner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
	Controller bool   `json:"controller"`
}

// controller is who makes such pods; a pod that nobody controls is its own.
func (m *metadata) controller() owner {
	for _, o := range m.Owners {
		if o.Controller {
			return o
		}
	}
	return owner{"v1", "Pod", m.Name, m.UID, false}
}

// Look looks once.
func (r *Reconciler) Look(ctx context.Context) error {
	var counts Counts
	var err error
	lacking := map[string]bool{} // owners
	asked, left := 0, 0
	r.cfg.Namespaces(func(ns decide.Namespace) bool {
		if !r.cfg.Injected(ns) {
			return true
		}
		var found map[string][]missing
		if found, err = r.namespace(ctx, ns, &counts); err != nil {
			return false
		}
		for _, uid := range slices.Sorted(maps.Keys(found)) {
			lacking[uid] = true
			switch {
			case time.Since(r.toldOf[uid]) < forgotten:
			case asked == tellAtMost:
				left++
			default:
				asked++
				if r.report(ctx, ns.Name, found[uid]) {
					r.toldOf[uid] = time.Now()
				}
			}
			if r.cfg.Restart && r.looked { // the first time we have just begun to be called
				r.evict(ctx, ns.Name, found[uid])
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	maps.DeleteFunc(r.evicted, func(uid string, _ eviction) bool { return !lacking[uid] })
	maps.DeleteFunc(r.toldOf, func(uid string, _ time.Time) bool { return !lacking[uid] })
	if left > 0 {
		r.cfg.Log.WarnContext(ctx, "more owners of pods without an agent are told of at the next looks", "owners", left)
	}
	r.counts.Store(&counts)
	r.looked = true
	return nil
}

// namespace counts a namespace's pods and returns those without an agent, by their controller's uid.
func (r *Reconciler) namespace(ctx context.Context, ns decide.Namespace, counts *Counts) (map[string][]missing, error) {
	found := map[string][]missing{}
	for next := ""; ; {
		items, more, err := r.list(ctx, ns.Name, next)
		if err != nil {
			return nil, err
		}
		for _, object := range items {
			var p struct {
				Metadata metadata `json:"metadata"`
			}
			if err := json.Unmarshal(object, &p, jsontext.AllowDuplicateNames(true)); err != nil {
				return nil, fmt.Errorf("reading a pod of namespace %s: %w", ns.Name, err)
			}
			if p.Metadata.Deletion != "" {
				continue
			}
			d, err := r.cfg.Pod(object, ns)
			switch {
			case err != nil: // no pod keeps us from seeing the others
				counts.Excused++
				r.cfg.Log.WarnContext(ctx, "a pod cannot be read", "namespace", ns.Name, "pod", p.Metadata.Name, "error", err.Error())
			case d.Reason == decide.AlreadyInjected:
				counts.Covered++
			case d.Reason == decide.Foreign:
				counts.Differs++
			case d.Reason == decide.Injected:
				counts.Missing++
				uid := p.Metadata.controller().UID
				found[uid] = append(found[uid], missing{p.Metadata, d.Workload})
			default:
				counts.Excused++
			}
		}
		if next = more; next == "" {
			return found, nil
		}
	}
}

// list returns a page of the pods that did not end.
func (r *Reconciler) list(ctx context.Context, namespace, next string) (items []jsontext.Value, more string, err error) {
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	b, err := r.cfg.Client.Core.Get().Namespace(namespace).Resource("pods").SetHeader("Accept", "application/json").
		Param("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed").
		Param("limit", fmt.Sprint(page)).Param("continue", next).DoRaw(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("listing the pods of namespace %s: %w", namespace, err)
	}
	var list struct {
		Metadata struct {
			Continue string `json:"continue"`
		} `json:"metadata"`
		Items []jsontext.Value `json:"items"`
	}
	if err := json.Unmarshal(b, &list, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, "", fmt.Errorf("reading the pods of namespace %s: %w", namespace, err)
	}
	return list.Items, list.Metadata.Continue, nil
}
