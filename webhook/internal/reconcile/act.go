package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// reason is the Kubernetes Event's.
const reason = "ApssAgentMissing"

// maxNames bounds the pods that are named.
const maxNames = 32

// report tells of the pods of one owner, unless another replica did. It returns whether nothing is left to be told.
func (r *Reconciler) report(ctx context.Context, namespace string, pods []missing) bool {
	o, now := pods[0].controller(), metav1.Now()
	what := fmt.Sprintf("%d of its pods run without the agent, for instance %s", len(pods), pods[0].Name)
	if o.Kind == "Pod" {
		what = "it runs without the agent"
	}
	e := &corev1.Event{
		// A uid is a DNS label; the name is the same for all replicas.
		ObjectMeta:     metav1.ObjectMeta{Name: "apss-agent-missing." + o.UID, Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: namespace, Name: o.Name, UID: types.UID(o.UID)},
		Reason:         reason, Type: corev1.EventTypeWarning, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Message: what + ": the webhook was not there or could not be asked when it was created; a pod that is created anew gets one",
		Source:  corev1.EventSource{Component: "apss-webhook"},
	}
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	err := r.cfg.Client.Core.Post().Namespace(namespace).Resource("events").Body(e).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		return true
	} else if err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		r.cfg.Log.WarnContext(ctx, "the Kubernetes Event of pods without an agent could not be created", "namespace", namespace, "owner", o.Kind+"/"+o.Name, "error", err.Error())
		return false
	}
	names := make([]string, 0, min(len(pods), maxNames))
	for _, p := range pods[:min(len(pods), maxNames)] {
		names = append(names, p.Name)
	}
	told := &event.Event{
		Type: event.AgentCoverage, Severity: event.Medium, Timestamp: now.UTC(), PodNamespace: namespace, PodName: pods[0].Name, Workload: pods[0].workload,
		Metadata: map[string]any{"reason": "no-sidecar", "owner": o.Kind + "/" + o.Name, "missing": len(pods), "pods": names},
	}
	r.cfg.Tell(told)
	r.cfg.Log.WarnContext(ctx, "pods run without an agent", "namespace", namespace, "owner", o.Kind+"/"+o.Name, "pods", names)
	return true
}

// replaced are the kinds whose pods are made anew and do not end by themselves.
var replaced = []string{"ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController"} //nolint:gochecknoglobals // a table

// futile is how long no pod of an owner is evicted when that did not help the last time.
const futile = 10 * time.Minute

// eviction is what is remembered of an owner's.
type eviction struct{ last, pause time.Time }

// evict evicts the oldest of the pods of one owner, where that may help.
func (r *Reconciler) evict(ctx context.Context, namespace string, pods []missing) {
	o := pods[0].controller()
	if !slices.Contains(replaced, o.Kind) {
		return
	}
	now, e := time.Now(), r.evicted[o.UID]
	if now.Before(e.pause) {
		return
	}
	if !e.last.IsZero() && slices.ContainsFunc(pods, func(p missing) bool { return p.Created.After(e.last) }) {
		r.cfg.Log.WarnContext(ctx, "pods that were created anew have no agent either: no more of them are evicted for a while", "namespace", namespace, "owner", o.Kind+"/"+o.Name, "while", futile.String())
		r.evicted[o.UID] = eviction{now, now.Add(futile)}
		return
	}
	p := slices.MinFunc(pods, func(a, b missing) int { return a.Created.Compare(b.Created) })
	uid := types.UID(p.UID)
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	err := r.cfg.Client.Core.Post().Namespace(namespace).Resource("pods").Name(p.Name).SubResource("eviction").Body(&policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: p.Name, Namespace: namespace},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}},
	}).MaxRetries(0).Do(ctx).Error()
	switch {
	case err == nil:
		r.evicted[o.UID] = eviction{last: now}
		r.cfg.Evicted.Add(1)
		r.cfg.Log.InfoContext(ctx, "evicted a pod that runs without an agent", "namespace", namespace, "pod", p.Name)
	case apierrors.IsTooManyRequests(err): // https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/#how-api-initiated-eviction-works
		r.cfg.Budgeted.Add(1)
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // it has gone, or another has its name
	default:
		r.cfg.Log.WarnContext(ctx, "a pod that runs without an agent could not be evicted", "namespace", namespace, "pod", p.Name, "error", err.Error())
	}
}
