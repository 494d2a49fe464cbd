// Package pods tells what a container of this node is called: its name and image, its pod, namespace and workload.
//
// A node's agent keeps the list of its node's pods by one list and watch with client-go, limited by the field selector
// spec.nodeName. It needs the verbs list and watch on pods and nothing else; RBAC cannot limit them to one node. Of a pod
// only names, images and ids are decoded. A sidecar knows its pod from the downward API and needs no access ([NewOwn]).
//
// The kubelet publishes a container's id up to some seconds after its start. [Directory.Seen] takes what the kernel tells
// of a container when its first process is met, the pod's uid above all, and so gives a name to processes that end before
// the API knows of them. Containers that vanished are still named for 10 minutes.
//
// Promises: [Directory.Lookup] neither waits nor allocates nor locks. Without access, or with an API server that is away,
// what is known stays and the reason is in [Directory.Status]; client-go tries again after 1 to 60 s. Memory is bounded:
// what is beyond the bounds is counted there.
//
// Limits: the workload is the owner's owner, and that is read from the names that Kubernetes' own controllers give, see
// package shared/workload. Client-go speaks HTTP by its own transport: it reloads tokens, pings dead connections and follows the API
// server's retry hints, which is why shared/httpx is not used here.
package pods
