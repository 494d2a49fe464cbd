package cgroup

import "bytes"

// Container says where a process runs. The zero value is the host.
type Container struct {
	// ID is 64 hexadecimal digits; empty when it is hidden.
	ID string
	// PodUID is the uid of the pod, with dashes. For a static pod it is the hash that its mirror has in the annotation
	// kubernetes.io/config.mirror, and which is not the mirror's uid.
	PodUID string
	// Name is the container's name in its pod. Only mountinfo tells it.
	Name string
	// Runtime is "containerd", "cri-o", "docker" or "podman"; empty when the path does not tell.
	Runtime string
}

const (
	idLen   = 64
	uidLen  = 36 // types.UID of a pod is a UUID
	hashLen = 32 // of a static pod: an MD5 of its file
)

// place is a Container whose parts are in the parsed bytes.
type place struct{ id, pod, name, runtime []byte }

func (p place) container() Container {
	return Container{ID: string(p.id), PodUID: uid(p.pod), Name: string(p.name), Runtime: runtimeOf(p.runtime)}
}

// runtimeOf knows the names that runtimes give themselves in a cgroup's path.
func runtimeOf(name []byte) string {
	switch string(name) {
	case "cri-containerd", "nerdctl":
		return "containerd"
	case "crio":
		return "cri-o"
	case "docker":
		return "docker"
	case "libpod", "libpod_parent":
		return "podman"
	}
	return ""
}

// Parse returns the container of a process from the contents of its cgroup file, whose lines are
// "<hierarchy>:<controllers>:<path>" (cgroups(7)). The hierarchies may disagree; the first that has most to say wins.
func Parse(file []byte) Container { return parse(file).container() }

func parse(file []byte) place {
	var best place
	for line := range bytes.Lines(file) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		_, line, _ = bytes.Cut(line, []byte(":"))
		_, path, ok := bytes.Cut(line, []byte(":")) // the path may hold more of them
		if !ok {
			continue
		}
		p := parsePath(path)
		if p.id != nil && p.pod != nil {
			return p
		}
		if (p.id != nil && best.id == nil) || (p.pod != nil && best.pod == nil && best.id == nil) {
			best = p
		}
	}
	return best
}

// parsePath takes the first id below the first pod. Without a pod: the first in a path that leads out of our own cgroup
// namespace (a neighbour in our pod), else the last (the innermost container).
func parsePath(path []byte) (p place) {
	outermost := bytes.HasPrefix(path, []byte("/.."))
	var before []byte
	for len(path) > 0 {
		n := 0
		for n < len(path) && path[n] != '/' && path[n] != ':' { // containerd's misconfigured systemd driver joins by colons
			n++
		}
		segment := path[:n]
		path = path[min(n+1, len(path)):]
		if pod := podOf(segment); pod != nil && p.pod == nil {
			p, outermost = place{pod: pod}, true
		} else if id, runtime := idOf(segment); id != nil && (p.id == nil || !outermost) {
			if runtime == nil {
				runtime = before
			}
			p.id, p.runtime = id, runtime
		}
		before = segment
	}
	return p
}

// podOf returns the uid in a kubelet's segment: "pod<uid>", or "kubepods-burstable-pod<uid with underscores>.slice".
func podOf(segment []byte) []byte {
	segment = bytes.TrimSuffix(segment, []byte(".slice"))
	n := bytes.LastIndex(segment, []byte("pod")) // a uid has no p
	if n < 0 || (n > 0 && segment[n-1] != '-') {
		return nil
	}
	if id := segment[n+len("pod"):]; isUID(id) {
		return id
	}
	return nil
}

// idOf returns the id in a runtime's segment: "<id>", "crio-<id>" or "docker-<id>.scope". A conmon watches a container
// from outside.
func idOf(segment []byte) (id, runtime []byte) {
	segment = bytes.TrimSuffix(segment, []byte(".scope"))
	if len(segment) < idLen || !isHex(segment[len(segment)-idLen:]) {
		return nil, nil
	}
	id, runtime = segment[len(segment)-idLen:], segment[:len(segment)-idLen]
	if len(runtime) == 0 {
		return id, nil
	}
	runtime, ok := bytes.CutSuffix(runtime, []byte("-"))
	if !ok || bytes.HasSuffix(runtime, []byte("conmon")) {
		return nil, nil
	}
	return id, runtime
}

// isUID accepts a uid as a path has it, with dashes or underscores, and a static pod's hash.
func isUID(b []byte) bool {
	if len(b) == hashLen {
		return isHex(b)
	}
	if len(b) != uidLen {
		return false
	}
	for i, c := range b {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-' || c == '_') || (!dash && !isHexDigit(c)) {
			return false
		}
	}
	return true
}

// uid returns the uid with the dashes that systemd's names have no room for (systemd.slice(5)).
func uid(b []byte) string {
	if len(b) != uidLen || b[8] == '-' {
		return string(b)
	}
	var dashed [uidLen]byte
	for i, c := range b {
		if c == '_' {
			c = '-'
		}
		dashed[i] = c
	}
	return string(dashed[:])
}

func isHex(b []byte) bool {
	for _, c := range b {
		if !isHexDigit(c) {
			return false
		}
	}
	return true
}

func isHexDigit(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }
