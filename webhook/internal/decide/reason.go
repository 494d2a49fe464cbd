package decide

// Reason says why a pod is or is not injected: a label of metrics and audit annotations.
type Reason string

// The reasons.
const (
	Injected            Reason = "injected"
	AlreadyInjected     Reason = "already-injected"
	Present             Reason = "present" // a container or volume of our name, not yet looked at
	Foreign             Reason = "foreign-sidecar"
	OwnNamespace        Reason = "own-namespace"
	ManagedNamespace    Reason = "managed-namespace"
	NamespaceDisabled   Reason = "namespace-disabled"
	NamespaceNotEnabled Reason = "namespace-not-enabled"
	PodOptedOut         Reason = "pod-opted-out"
	MirrorPod           Reason = "mirror-pod"
	Windows             Reason = "windows"
	HostNetwork         Reason = "host-network"
	HostPID             Reason = "host-pid"
	NoContainers        Reason = "no-containers"
	NeedsNative         Reason = "needs-native-sidecar"
	NotAPod             Reason = "not-a-pod"
	NotACreation        Reason = "not-a-creation"
	Elsewhere           Reason = "elsewhere"
	Unreadable          Reason = "unreadable"
	NamespaceUnknown    Reason = "namespace-unknown"
	Starting            Reason = "starting"
	Failed              Reason = "failed"
)

// Text explains r to a person.
func (r Reason) Text() string {
	switch r {
	case Injected:
		return "the agent was put beside the pod's containers"
	case AlreadyInjected:
		return "the agent is there already"
	case Present, Foreign:
		return "a container or volume has our name but is not ours: rename it, or remove it to get the agent"
	case OwnNamespace:
		return "our own namespace is not injected"
	case ManagedNamespace:
		return "namespaces of the system and excluded ones are not injected"
	case NamespaceDisabled:
		return "the namespace is labelled " + LabelInject + "=disabled"
	case NamespaceNotEnabled:
		return "the namespace is not labelled " + LabelInject + "=enabled"
	case PodOptedOut:
		return "the pod is annotated " + LabelInject + ": \"false\""
	case MirrorPod:
		return "static pods are made by a kubelet, a sidecar would only be in their mirror"
	case Windows:
		return "the agent runs on Linux"
	case HostNetwork:
		return "the pod uses its node's network: a sidecar's ports would be the node's; the node's agent sees it"
	case HostPID:
		return "the pod sees its node's processes: a sidecar would see all of them; the node's agent does that"
	case NoContainers:
		return "the pod has no containers"
	case NeedsNative:
		return "the pod is to end by itself, and only a native sidecar lets it: that needs every kubelet at 1.29 or later"
	case NotAPod:
		return "only pods are injected"
	case NotACreation:
		return "only pods that are created are injected"
	case Elsewhere:
		return "the review came at a path that is not the webhook's: no API server sent it, or one that learns late of a change"
	case Unreadable:
		return "the review could not be read"
	case NamespaceUnknown:
		return "the namespace's labels are not known yet"
	case Starting:
		return "the webhook started and does not know the cluster yet"
	case Failed:
		return "the review failed here; the log says why"
	}
	return string(r)
}
