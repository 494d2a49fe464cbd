package cgroup_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
)

const (
	pod   = "3f1c2a58-9b0e-4d7a-8c61-0a2b4c6d8e0f"
	podU  = "3f1c2a58_9b0e_4d7a_8c61_0a2b4c6d8e0f"
	other = "00000000-1111-2222-3333-444444444444"
	hash  = "9c1f3f6c2b8e4d7aa0b1c2d3e4f50617" // of a static pod
)

var (
	idA = strings.Repeat("a1", 32)
	idB = strings.Repeat("b2", 32)
	idC = strings.Repeat("c3", 32)
)

func TestParse(t *testing.T) {
	c := func(id, pod, runtime string) cgroup.Container {
		return cgroup.Container{ID: id, PodUID: pod, Runtime: runtime}
	}
	for _, tt := range []struct {
		name, file string
		want       cgroup.Container
	}{
		{"nothing", "", c("", "", "")},
		{"host, v2", "0::/system.slice/ssh.service\n", c("", "", "")},
		{"root, v2", "0::/\n", c("", "", "")},
		{"a user's session", "0::/user.slice/user-1000.slice/session-3.scope\n", c("", "", "")},

		{"v2, cgroupfs (GKE)", "0::/kubepods/burstable/pod" + pod + "/" + idA + "\n", c(idA, pod, "")},
		{"v2, guaranteed", "0::/kubepods/pod" + pod + "/" + idA + "\n", c(idA, pod, "")},
		{"v2, systemd, containerd", "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + podU + ".slice/cri-containerd-" + idA + ".scope\n", c(idA, pod, "containerd")},
		{"v2, systemd, CRI-O with a cgroup below", "0::/kubepods.slice/kubepods-pod" + podU + ".slice/crio-" + idA + ".scope/container\n", c(idA, pod, "cri-o")},
		{"v2, systemd, Docker", "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + podU + ".slice/docker-" + idA + ".scope\n", c(idA, pod, "docker")},
		{"v2, CRI-O, cgroupfs", "0::/kubepods/besteffort/pod" + pod + "/crio-" + idA + "\n", c(idA, pod, "cri-o")},
		{"static pod", "0::/kubepods/burstable/pod" + hash + "/" + idA + "\n", c(idA, hash, "")},
		{"no newline", "0::/kubepods/pod" + pod + "/" + idA, c(idA, pod, "")},

		{"v1, cgroupfs", "12:pids:/kubepods/burstable/pod" + pod + "/" + idA + "\n1:name=systemd:/kubepods/burstable/pod" + pod + "/" + idA + "\n", c(idA, pod, "")},
		{"v1, systemd driver of a cgroupfs containerd", "3:pids:/system.slice/containerd.service/kubepods-burstable-pod" + podU + ".slice:cri-containerd:" + idA + "\n", c(idA, pod, "containerd")},
		{"v1, some hierarchies at their root", "11:files:/\n10:cpuset:/kubepods/pod" + pod + "/" + idA + "\n9:rdma:/\n", c(idA, pod, "")},
		{"hybrid, v2 without a container", "1:name=systemd:/docker/" + idA + "\n0::/system.slice/containerd.service\n", c(idA, "", "docker")},
		{"a hierarchy that stops at the pod", "2:cpu:/kubepods/pod" + pod + "\n1:pids:/kubepods/pod" + pod + "/" + idA + "\n", c(idA, pod, "")},
		{"a hierarchy without the pod", "2:cpu:/docker/" + idB + "\n1:pids:/kubepods/pod" + pod + "/" + idA + "\n", c(idA, pod, "")},

		{"Docker, cgroupfs", "0::/docker/" + idA + "\n", c(idA, "", "docker")},
		{"Docker, systemd", "0::/system.slice/docker-" + idA + ".scope\n", c(idA, "", "docker")},
		{"Podman, rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idA + ".scope/container\n", c(idA, "", "podman")},
		{"Podman, cgroupfs", "0::/libpod_parent/" + idA + "\n", c(idA, "", "podman")},
		{"nerdctl", "0::/system.slice/nerdctl-" + idA + ".scope\n", c(idA, "", "containerd")},
		{"Docker in Docker", "0::/docker/" + idA + "/docker/" + idB + "\n", c(idB, "", "docker")},
		{"Docker in a pod", "0::/kubepods/pod" + pod + "/" + idA + "/docker/" + idB + "\n", c(idA, pod, "")},
		{"kind: a pod in Docker", "0::/docker/" + idA + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + podU + ".slice/cri-containerd-" + idB + ".scope\n", c(idB, pod, "containerd")},
		{"a kubelet in a pod", "0::/kubepods/pod" + pod + "/" + idA + "/kubelet/kubepods/pod" + other + "/" + idB + "\n", c(idA, pod, "")},

		{"cgroup namespace, neighbour, systemd", "0::/../cri-containerd-" + idA + ".scope\n", c(idA, "", "containerd")},
		{"cgroup namespace, neighbour, cgroupfs", "0::/../" + idA + "\n", c(idA, "", "")},
		{"cgroup namespace, neighbour's child", "0::/../" + idA + "/docker/" + idB + "\n", c(idA, "", "")},
		{"cgroup namespace, another pod", "0::/../../pod" + pod + "/" + idA + "\n", c(idA, pod, "")},
		{"cgroup namespace, the host", "0::/../../../../system.slice/kubelet.service\n", c("", "", "")},

		{"CRI-O's watcher", "0::/kubepods.slice/kubepods-pod" + podU + ".slice/crio-conmon-" + idA + ".scope\n", c("", pod, "")},
		{"Podman's watcher", "0::/machine.slice/libpod-conmon-" + idA + ".scope\n", c("", "", "")},
		{"gVisor: the pod's cgroup", "0::/kubepods/burstable/pod" + pod + "\n", c("", pod, "")},
		{"too short", "0::/docker/" + idA[:63] + "\n", c("", "", "")},
		{"too long", "0::/docker/" + idA + "0\n", c("", "", "")},
		{"upper case", "0::/docker/" + strings.ToUpper(idA) + "\n", c("", "", "")},
		{"no uid", "0::/kubepods/podcast/" + idA + "\n", c(idA, "", "")},
		{"a folder called like a pod", "0::/tripod" + pod + "/" + idA + "\n", c(idA, "", "")},
		{"too few fields", "0:/docker/" + idA + "\n", c("", "", "")},
		{"bytes", "\x00\xff::\n:::::\n", c("", "", "")},
	} {
		if diff := cmp.Diff(tt.want, cgroup.Parse([]byte(tt.file))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

const kubelet = "/var/lib/kubelet/pods/" + pod

func mountsOf(lines ...string) string {
	return `700 650 0:62 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/AB,upperdir=/var/lib/docker/overlay2/` + idC + `/diff
701 700 0:66 / /proc rw,nosuid - proc proc rw
` + strings.Join(lines, "\n") + "\n"
}

func TestParseMounts(t *testing.T) {
	line := func(root, point, kind string) string {
		return "720 700 8:1 " + root + " " + point + " rw,relatime shared:1 master:3 - " + kind + " /dev/sda1 rw\n"
	}
	for _, tt := range []struct {
		name, file string
		want       cgroup.Container
	}{
		{"nothing", "", cgroup.Container{}},
		{"a layer is no container", mountsOf(), cgroup.Container{}},
		{"containerd", mountsOf(
			line(kubelet+"/etc-hosts", "/etc/hosts", "ext4"),
			line(kubelet+"/containers/my-app/5fe1d0c9", "/dev/termination-log", "ext4"),
			line("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/"+idA+"/hostname", "/etc/hostname", "ext4")),
			cgroup.Container{PodUID: pod, Name: "my-app"}},
		{"an own partition for /var", mountsOf(line("/lib/kubelet/pods/"+pod+"/containers/web/1", "/tmp/why", "xfs")), cgroup.Container{PodUID: pod, Name: "web"}},
		{"the file is gone", mountsOf(line(kubelet+"/containers/web/1//deleted", "/dev/termination-log", "ext4")), cgroup.Container{PodUID: pod, Name: "web"}},
		{"static pod", mountsOf(line("/var/lib/kubelet/pods/"+hash+"/containers/etcd/1", "/dev/termination-log", "ext4")), cgroup.Container{PodUID: hash, Name: "etcd"}},
		{"Docker in a pod: the sandbox's id is not the container's", mountsOf(
			line("/var/lib/docker/containers/"+idA+"/resolv.conf", "/etc/resolv.conf", "ext4"),
			line(kubelet+"/etc-hosts", "/etc/hosts", "ext4")), cgroup.Container{PodUID: pod}},
		{"host network: no name for the pod but the log", mountsOf(line(kubelet+"/containers/proxy/1", "/dev/termination-log", "ext4")), cgroup.Container{PodUID: pod, Name: "proxy"}},

		{"Docker", mountsOf(line("/var/lib/docker/containers/"+idA+"/hostname", "/etc/hostname", "ext4")), cgroup.Container{ID: idA, Runtime: "docker"}},
		{"Podman", mountsOf(line("/var/lib/containers/storage/overlay-containers/"+idA+"/userdata/hosts", "/etc/hosts", "btrfs")), cgroup.Container{ID: idA, Runtime: "podman"}},
		{"nerdctl", mountsOf(line("/var/lib/nerdctl/1935db59/containers/default/"+idA+"/resolv.conf", "/etc/resolv.conf", "ext4")), cgroup.Container{ID: idA}},
		{"a sandbox without a kubelet", mountsOf(line("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/"+idA+"/hostname", "/etc/hostname", "ext4")), cgroup.Container{}},

		{"a volume may hold any path", mountsOf(line(kubelet+"/volumes/kubernetes.io~empty-dir/v/pods/"+other+"/containers/x/1", "/dev/termination-log", "ext4")), cgroup.Container{}},
		{"a sub-path of a volume, on the host", mountsOf(line(kubelet+"/volumes/kubernetes.io~empty-dir/v/etc-hosts", "/etc/hosts", "ext4")), cgroup.Container{}},
		{"made in the container's own layer", mountsOf(line(kubelet+"/containers/x/1", "/dev/termination-log", "overlay")), cgroup.Container{}},
		{"made in a tmpfs", mountsOf(line(kubelet+"/containers/x/1", "/dev/termination-log", "tmpfs")), cgroup.Container{}},
		{"made by a FUSE server", mountsOf(line(kubelet+"/containers/x/1", "/dev/termination-log", "fuse.sshfs")), cgroup.Container{}},
		{"two pods: the first", mountsOf(
			line(kubelet+"/etc-hosts", "/etc/hosts", "ext4"),
			line("/var/lib/kubelet/pods/"+other+"/containers/x/1", "/mnt", "ext4")), cgroup.Container{PodUID: pod}},
		{"a name with an escape", mountsOf(line(kubelet+`/containers/a\040b/1`, "/dev/termination-log", "ext4")), cgroup.Container{}},
		{"a folder called pods", mountsOf(line("/pods/pods/"+pod+"/containers/x/1", "/dev/termination-log", "ext4")), cgroup.Container{PodUID: pod, Name: "x"}},
		{"cut short", "720 700 8:1 " + kubelet + "/etc-hosts /etc/ho", cgroup.Container{}},
		{"too few fields", "720 - ext4\n - \n 1 2 3 - x\n", cgroup.Container{}},
	} {
		if diff := cmp.Diff(tt.want, cgroup.ParseMounts([]byte(tt.file))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// Any bytes: what is returned is what was promised, and taken from what was given.
func FuzzParse(f *testing.F) {
	f.Add([]byte("0::/kubepods/burstable/pod" + pod + "/" + idA + "\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		for name, c := range map[string]cgroup.Container{"cgroup": cgroup.Parse(file), "mountinfo": cgroup.ParseMounts(file)} {
			if c.ID != "" && (len(c.ID) != 64 || strings.Trim(c.ID, "0123456789abcdef") != "" || !bytes.Contains(file, []byte(c.ID))) {
				t.Errorf("%s: got id %q", name, c.ID)
			}
			if n := len(c.PodUID); n != 0 && (n != 32 && n != 36 || strings.Trim(c.PodUID, "0123456789abcdef-") != "") {
				t.Errorf("%s: got uid %q", name, c.PodUID)
			}
			if len(c.Name) > 63 || strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || !bytes.Contains(file, []byte(c.Name)) {
				t.Errorf("%s: got name %q", name, c.Name)
			}
			if name == "mountinfo" && c.PodUID != "" && c.ID != "" {
				t.Errorf("mountinfo: got id %q in a pod", c.ID)
			}
		}
	})
}

func TestParseAllocatesItsResultOnly(t *testing.T) {
	file := []byte("12:pids:/\n0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + podU + ".slice/cri-containerd-" + idA + ".scope\n")
	if got := testing.AllocsPerRun(100, func() { cgroup.Parse(file) }); got > 2 {
		t.Errorf("Parse: got %v allocations, want 2: the id, the uid", got)
	}
	mounts := []byte(mountsOf("720 700 8:1 " + kubelet + "/containers/web/1 /dev/termination-log rw - ext4 /dev/sda1 rw"))
	if got := testing.AllocsPerRun(100, func() { cgroup.ParseMounts(mounts) }); got > 2 {
		t.Errorf("ParseMounts: got %v allocations, want 2: the name, the uid", got)
	}
	host := []byte("0::/system.slice/ssh.service\n")
	if got := testing.AllocsPerRun(100, func() { cgroup.Parse(host) }); got > 0 {
		t.Errorf("Parse of the host: got %v allocations", got)
	}
}

func BenchmarkParse(b *testing.B) {
	file := []byte("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + podU + ".slice/cri-containerd-" + idA + ".scope\n")
	b.ReportAllocs()
	for b.Loop() {
		cgroup.Parse(file)
	}
}
