package pods

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/shared/workload"
)

// annotationMirror holds the uid that the kubelet knows a static pod by
// (https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror).
const annotationMirror = "kubernetes.io/config.mirror"

func keptLabel(key string) bool { return key == workload.LabelHash || key == workload.LabelRollout }

func keptAnnotation(key string) bool {
	return key == annotationMirror || key == metav1.InitialEventsAnnotationKey
}

// workloadOf names what the pod belongs to.
func workloadOf(m *metav1.ObjectMeta) string {
	kind, name := "", ""
	if owner := metav1.GetControllerOfNoCopy(m); owner != nil {
		kind, name = owner.Kind, owner.Name
	}
	return workload.Of(m.Name, kind, name, func(label string) string { return m.Labels[label] })
}
