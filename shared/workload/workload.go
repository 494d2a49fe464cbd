// Package workload names what a pod belongs to, as the person knows it who deployed it.
package workload

import (
	"strconv"
	"strings"
)

// Labels of pods whose value ends the name of their ReplicaSet.
const (
	LabelHash    = "pod-template-hash"          // https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label
	LabelRollout = "rollouts-pod-template-hash" // the same of an Argo Rollout
)

// Of returns "<Kind>/<name>" for a pod and the owner that controls it, "" and "" when there is none; label returns the
// pod's label of a name. A pod names its owner; that one's owner is in its name:
//
//   - a Deployment's ReplicaSet is "<deployment>-<pod-template-hash>", and the hash a label of the pod;
//   - a CronJob's Job is "<cronjob>-<scheduled time in minutes since 1970>"; up to Kubernetes 1.20 it was seconds.
//
// A ReplicaSet or Job that a person called so is taken for one of these; the owner of another kind's object (a
// StatefulSet of an operator) is not looked for: reading it would need rights on every kind. A static pod, which its node
// owns, is its own.
func Of(pod, kind, owner string, label func(string) string) string {
	switch kind {
	case "", "Node":
		return "Pod/" + pod
	case "ReplicaSet":
		for _, of := range [...]struct{ label, kind string }{{LabelHash, "Deployment"}, {LabelRollout, "Rollout"}} {
			if hash := label(of.label); hash != "" {
				if name, ok := strings.CutSuffix(owner, "-"+hash); ok && name != "" {
					return of.kind + "/" + name
				}
			}
		}
	case "Job":
		if n := strings.LastIndexByte(owner, '-'); n > 0 && isScheduled(owner[n+1:]) {
			return "CronJob/" + owner[:n]
		}
	}
	return kind + "/" + owner
}

// isScheduled accepts minutes or seconds since 1970 from 2016 on, when CronJobs came. A date such as 20261122 is neither.
func isScheduled(s string) bool {
	const from, minute = 1_451_606_400, 60 // 2016-01-01
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && (len(s) == 8 && n >= from/minute || len(s) == 10 && n >= from)
}
