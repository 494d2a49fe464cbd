package cgroup

import "bytes"

// ParseMounts returns what the contents of a process's mountinfo file tell of its container: in a pod the pod's uid and
// the container's name, else the container's id. Its lines are "id parent major:minor root mountpoint options
// [optional...] - type source options" (proc_pid_mountinfo(5)).
//
// The kubelet binds <root>/pods/<uid>/etc-hosts on /etc/hosts and <root>/pods/<uid>/containers/<name>/<n> on the
// container's terminationMessagePath; Docker and Podman bind a container's /etc/hostname, hosts and resolv.conf from a
// folder named after it.
func ParseMounts(file []byte) Container { return parseMounts(file).container() }

func parseMounts(file []byte) (p place) {
	var id, runtime []byte
	for line := range bytes.Lines(file) {
		root, point, kind := mount(line)
		if root == nil || own(kind) {
			continue
		}
		if uid, rest := kubelet(root); uid != nil {
			name := containerName(rest)
			if name == nil && (string(rest) != "etc-hosts" || string(point) != "/etc/hosts") {
				continue // a volume can be bound anywhere, also outside its pod
			}
			if p.pod == nil {
				p.pod = uid
			}
			if p.name == nil && string(p.pod) == string(uid) {
				p.name = name
			}
			continue
		}
		if id == nil && (string(point) == "/etc/hostname" || string(point) == "/etc/hosts" || string(point) == "/etc/resolv.conf") {
			id, runtime = engine(root)
		}
	}
	if p.pod == nil {
		p.id, p.runtime = id, runtime
	}
	return p
}

// mount returns a line's root, mount point and file system type; nil when the line is none.
func mount(line []byte) (root, point, kind []byte) {
	before, after, ok := bytes.Cut(line, []byte(" - "))
	if !ok {
		return nil, nil, nil
	}
	for range 3 {
		if _, before, ok = bytes.Cut(before, []byte(" ")); !ok {
			return nil, nil, nil
		}
	}
	root, before, _ = bytes.Cut(before, []byte(" "))
	point, _, _ = bytes.Cut(before, []byte(" "))
	kind, _, _ = bytes.Cut(after, []byte(" "))
	return root, point, kind
}

// own says that a file system of this type may be the container's own, where it can make any path it likes.
func own(kind []byte) bool {
	switch string(kind) {
	case "overlay", "tmpfs", "ramfs", "aufs", "proc", "sysfs":
		return true
	}
	return bytes.HasPrefix(kind, []byte("fuse"))
}

// kubelet splits a path at the first "/pods/<uid>/": what a pod's own volumes hold is further down.
func kubelet(root []byte) (uid, rest []byte) {
	const pods = "/pods/"
	for at := 0; ; {
		n := bytes.Index(root[at:], []byte(pods))
		if n < 0 {
			return nil, nil
		}
		at += n + len(pods)
		if uid, rest, ok := bytes.Cut(root[at:], []byte("/")); ok && isUID(uid) {
			return uid, rest
		}
		at-- // the slash may begin the next one
	}
}

// containerName returns the name in "containers/<name>/<n>": a DNS label of at most 63 characters.
func containerName(rest []byte) []byte {
	rest, ok := bytes.CutPrefix(rest, []byte("containers/"))
	if !ok {
		return nil
	}
	name, _, ok := bytes.Cut(rest, []byte("/"))
	if !ok || len(name) == 0 || len(name) > 63 {
		return nil
	}
	for _, c := range name {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return nil
		}
	}
	return name
}

// engine returns the id in "/var/lib/docker/containers/<id>/hostname", ".../overlay-containers/<id>/userdata/hostname"
// (Podman), ".../containers/<namespace>/<id>/resolv.conf" (nerdctl). A folder of "sandboxes" is a pod's.
func engine(root []byte) (id, runtime []byte) {
	var before []byte
	for segment := range bytes.SplitSeq(root, []byte("/")) {
		if len(segment) == idLen && isHex(segment) && string(before) != "sandboxes" {
			switch {
			case string(before) == "overlay-containers":
				return segment, []byte("libpod")
			case bytes.Contains(root, []byte("/docker/")):
				return segment, []byte("docker")
			}
			return segment, nil
		}
		before = segment
	}
	return nil, nil
}
