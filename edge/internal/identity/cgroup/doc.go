// Package cgroup tells which container a process runs in, by what the kernel says in /proc/PID/cgroup and, where that
// is hidden, in /proc/PID/mountinfo. Both can be read of any process in view, without privilege.
//
// Known are cgroup v1 and v2, the cgroupfs and systemd drivers, containerd, CRI-O, Docker and Podman, and kubelets
// inside containers (kind): in a pod the container is the one that the outermost kubelet started, because that one has
// a name in the node's pod list.
//
// The two sources are not worth the same. A process without privilege over the host cannot leave its container's cgroup,
// so [Parse] is as true as the kernel. In a user namespace of its own, however, it can mount what it likes: [ParseMounts]
// takes only mounts that a file system of the container's own could not imitate, and [Reader] asks it only for what the
// cgroup does not tell: the container's name, and all of it in a cgroup namespace, where the own cgroup reads "/".
//
// Limits: an id is 64 lowercase hexadecimal digits, as all these runtimes make them; of each file the first 64 KiB count.
// In a pod, mountinfo names the pod and the container's name but not its id: the files that carry an id in their path
// belong to the pod's sandbox. A kubelet whose root is not called ".../pods" is not recognised in mountinfo. gVisor shows
// a pod and no container.
package cgroup
