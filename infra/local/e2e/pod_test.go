package e2e

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// container runs a program of our image as a user, with these capabilities and no other.
func (c *cluster) container(name string, uid int64, capabilities []corev1.Capability, command ...string) corev1.Container {
	no, yes := false, true
	return corev1.Container{
		Name: name, Image: c.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: command,
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: &uid, RunAsGroup: &uid, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
		}},
	}
}

// pod is a pod that is not started again. It ends at once when it is deleted.
func (c *cluster) pod(name string, containers ...corev1.Container) *corev1.Pod {
	now, no := int64(0), false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &now, AutomountServiceAccountToken: &no,
			Containers: containers,
		},
	}
}

// everything is what lets an agent read all of its pod, or with hostPID of its node.
var everything = []corev1.Capability{"SYS_PTRACE", "DAC_OVERRIDE"}

// nodeAgent makes of a pod what the DaemonSet's are: the machine's processes and network, its files read-only.
func nodeAgent(p *corev1.Pod) *corev1.Pod {
	p.Spec.HostPID, p.Spec.HostNetwork = true, true
	p.Spec.Volumes = append(p.Spec.Volumes,
		corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}},
		corev1.Volume{Name: "state", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	for i := range p.Spec.Containers {
		agent := &p.Spec.Containers[i]
		agent.VolumeMounts = append(agent.VolumeMounts,
			corev1.VolumeMount{Name: "host", MountPath: "/host", ReadOnly: true},
			corev1.VolumeMount{Name: "state", MountPath: "/var/lib/apss"})
		agent.Env = append(agent.Env,
			corev1.EnvVar{Name: "HOST_ROOT", Value: "/host"},
			corev1.EnvVar{Name: "PUBLISHER", Value: "stdout"},
			corev1.EnvVar{Name: "HTTP_ADDR", Value: "off"},
			corev1.EnvVar{Name: "HEARTBEAT_INTERVAL", Value: "2s"},
			downward("NODE_NAME", "spec.nodeName"))
	}
	return p
}

func downward(name, field string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}}
}
