package pods

import (
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// labelHash is on the pods of a Deployment, and ends the name of their ReplicaSet
	// (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label).
	labelHash = "pod-template-hash"
	// labelRollout is the same of an Argo Rollout.
	labelRollout = "rollouts-pod-template-hash"
	// annotationMirror holds the uid that the kubelet knows a static pod by
	// (https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror).
	annotationMirror = "kubernetes.io/config.mirror"
)

func keptLabel(key string) bool { return key == labelHash || key == labelRollout }

func keptAnnotation(key string) bool {
	return key == annotationMirror || key == metav1.InitialEventsAnnotationKey
}

// workload returns "<Kind>/<name>" of what a person deployed. A pod names its owner; that one's owner is in its name:
//
//   - a Deployment's ReplicaSet is "<deployment>-<pod-template-hash>", and the hash a label of the pod;
//   - a CronJob's Job is "<cronjob>-<scheduled time in minutes since 1970>"; up to Kubernetes 1.20 it was seconds.
//
// A ReplicaSet or Job that a person called so is taken for one of these; the owner of another kind's object (a
// StatefulSet of an operator) is not looked for: reading it would need rights on every kind. A static pod is its own.
func workload(m *metav1.ObjectMeta) string {
	owner := metav1.GetControllerOfNoCopy(m)
	if owner == nil || owner.Kind == "Node" {
		return "Pod/" + m.Name
	}
	switch owner.Kind {
	case "ReplicaSet":
		for _, of := range []struct{ label, kind string }{{labelHash, "Deployment"}, {labelRollout, "Rollout"}} {
			if hash := m.Labels[of.label]; hash != "" {
				if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && name != "" {
					return of.kind + "/" + name
				}
			}
		}
	case "Job":
		if n := strings.LastIndexByte(owner.Name, '-'); n > 0 && isScheduled(owner.Name[n+1:]) {
			return "CronJob/" + owner.Name[:n]
		}
	}
	return owner.Kind + "/" + owner.Name
}

// isScheduled accepts minutes or seconds since 1970 from 2016 on, when CronJobs came. A date such as 20261122 is neither.
func isScheduled(s string) bool {
	const from, minute = 1_451_606_400, 60 // 2016-01-01
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && (len(s) == 8 && n >= from/minute || len(s) == 10 && n >= from)
}
