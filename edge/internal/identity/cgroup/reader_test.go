package cgroup_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
)

// procfs is a folder like /proc.
type procfs string

func (p procfs) write(t *testing.T, pid int, cgroup, mountinfo string) {
	t.Helper()
	dir := filepath.Join(string(p), strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"cgroup": cgroup, "mountinfo": mountinfo} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	hosts = "720 700 8:1 " + kubelet + "/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw\n"
	log   = "721 700 8:1 " + kubelet + "/containers/web/1 /dev/termination-log rw - ext4 /dev/sda1 rw\n"
)

func TestReader(t *testing.T) {
	proc := procfs(t.TempDir())
	in := "0::/kubepods/pod" + pod + "/" + idA + "\n"
	proc.write(t, 10, in, "1 0 0:1 / / rw - overlay overlay rw\n") // a runtime's child, before it mounts
	proc.write(t, 11, in, hosts+log)
	proc.write(t, 12, in, "")
	proc.write(t, 20, "0::/../cri-containerd-"+idB+".scope\n", hosts)
	proc.write(t, 21, "0::/kubepods/pod"+other+"/"+idC+"\n", hosts+log)
	proc.write(t, 30, "0::/\n", hosts+log)
	proc.write(t, 31, "0::/kubepods/pod"+pod+"\n", hosts+log)
	proc.write(t, 32, "0::/kubepods/pod"+other+"\n", hosts+log)
	proc.write(t, 40, "0::/system.slice/x\n", hosts+log)
	web := cgroup.Container{ID: idA, PodUID: pod, Name: "web"}
	var seen []cgroup.Container
	r := cgroup.NewReader(string(proc), func(c cgroup.Container) { seen = append(seen, c) })
	for _, tt := range []struct {
		pid  int32
		want cgroup.Container
		ok   bool
	}{
		{10, cgroup.Container{ID: idA, PodUID: pod}, true},
		{11, web, true},
		{12, web, true}, // from what 11 told
		{20, cgroup.Container{ID: idB, PodUID: pod, Runtime: "containerd"}, true},
		{21, cgroup.Container{ID: idC, PodUID: other}, true}, // the mounts are not of its pod: a lie
		{30, cgroup.Container{PodUID: pod, Name: "web"}, true},
		{31, cgroup.Container{PodUID: pod, Name: "web"}, true},
		{32, cgroup.Container{PodUID: other}, true}, // the cgroup is right
		{40, cgroup.Container{}, true},              // the host's mounts are not asked
		{99, cgroup.Container{}, false},
	} {
		got, ok := r.Of(tt.pid, 1)
		if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok {
			t.Errorf("pid %d: got %v (-want +got):\n%s", tt.pid, ok, diff)
		}
	}
	want := []cgroup.Container{{ID: idA, PodUID: pod}, web, {ID: idB, PodUID: pod, Runtime: "containerd"}, {ID: idC, PodUID: other}}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
}

func TestReaderRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		proc := procfs(t.TempDir())
		r := cgroup.NewReader(string(proc), nil)
		in, out := "0::/docker/"+idA+"\n", "0::/system.slice/containerd.service\n"
		check := func(what string, pid int32, start uint64, want string) {
			t.Helper()
			if got, _ := r.Of(pid, start); got.ID != want {
				t.Errorf("%s: got %q, want %q", what, got.ID, want)
			}
		}
		proc.write(t, 10, out, "")
		check("before it moves", 10, 7, "")
		proc.write(t, 10, in, "")
		check("a moment later", 10, 7, "")
		time.Sleep(2 * time.Second)
		check("after it moved", 10, 7, idA)
		proc.write(t, 10, "0::/docker/"+idB+"\n", "")
		check("a container is for good", 10, 7, idA)
		check("the pid was reused", 10, 8, idB)
		proc.write(t, 10, in, "")
		check("no start time: not remembered", 10, 0, idA)
		proc.write(t, 10, "0::/docker/"+idC+"\n", "")
		check("no start time: not remembered", 10, 0, idC)
		if err := os.RemoveAll(filepath.Join(string(proc), "10")); err != nil {
			t.Fatal(err)
		}
		check("it is gone", 10, 8, idB)
	})
}

// However many processes come, those in use stay and the others go.
func TestReaderForgets(t *testing.T) {
	proc := procfs(t.TempDir())
	r := cgroup.NewReader(string(proc), nil)
	proc.write(t, 1, "0::/docker/"+idA+"\n", "")
	r.Of(1, 1)
	r.Of(1, 2)
	for start := range uint64(10_000) {
		r.Of(1, 1)
		r.Of(1, start+10)
	}
	proc.write(t, 1, "0::/docker/"+idB+"\n", "")
	if got, _ := r.Of(1, 1); got.ID != idA {
		t.Errorf("in use: got %q, want it remembered", got.ID)
	}
	if got, _ := r.Of(1, 2); got.ID != idB {
		t.Errorf("long not used: got %q, want it read again", got.ID)
	}
}

// Of our own process the kernel's own files are read.
func TestReaderOfKernel(t *testing.T) {
	r := cgroup.NewReader("/proc", nil)
	if _, ok := r.Of(int32(os.Getpid()), 1); !ok {
		t.Error("got nothing of our own process")
	}
}

func BenchmarkReader(b *testing.B) {
	pid := int32(os.Getpid())
	b.Run("new process", func(b *testing.B) {
		r := cgroup.NewReader("/proc", nil)
		for b.Loop() {
			r.Of(pid, 0)
		}
	})
	b.Run("known process", func(b *testing.B) {
		dir := b.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "1"), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "1", "cgroup"), []byte("0::/docker/"+idA+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
		r := cgroup.NewReader(dir, nil)
		b.ReportAllocs()
		for b.Loop() {
			r.Of(1, 1)
		}
	})
}
