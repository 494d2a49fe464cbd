package file

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const mountLines = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /tmp/a\040b rw,nosuid - tmpfs tmpfs rw
31 22 254:0 /etc /mnt/with\011tab\012and\134 rw master:1 propagate_from:2 - ext4 /dev/root rw
`

func TestMountTable(t *testing.T) {
	before := parseMounts([]byte(mountLines + "32 22 0:30 / /cut"))
	want := mountTable{"22": {"254:0 /", "/"}, "30": {"0:26 /", "/tmp/a b"}, "31": {"254:0 /etc", "/mnt/with\ttab\nand\\"}}
	if diff := cmp.Diff(want, before, cmp.AllowUnexported(mount{})); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	tests := []struct {
		name, now string
		want      []string
	}{
		{"same", mountLines, nil},
		{"other options", strings.ReplaceAll(mountLines, "nosuid", "ro"), nil},
		{"one more", mountLines + "33 22 0:31 / /new rw - tmpfs tmpfs rw\n", []string{"/new"}},
		{"one less", mountLines[:strings.Index(mountLines, "31 ")], []string{"/mnt/with\ttab\nand\\"}},
		{"moved", strings.ReplaceAll(mountLines, "/tmp/a", "/tmp/c"), []string{"/tmp/a b", "/tmp/c b"}},
		{"another by the same id", strings.ReplaceAll(mountLines, "0:26", "0:27"), []string{"/tmp/a b"}},
		{"cut", mountLines[:1], []string{"/", "/mnt/with\ttab\nand\\", "/tmp/a b"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseMounts([]byte(test.now)).moved(before)); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte(mountLines))
	f.Add([]byte(`1 2 3 4 /\777\0 x` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		table := parseMounts(b)
		for id, m := range table {
			if !strings.HasPrefix(m.point, "/") || len(m.point) > len(b) || strings.Contains(id, " ") {
				t.Errorf("got mount %q at %q", id, m.point)
			}
		}
		if got := table.moved(table); len(got) > 0 {
			t.Errorf("got %q moved of a table from itself", got)
		}
		if got := table.moved(nil); !slices.IsSorted(got) || len(got) > len(table) {
			t.Errorf("got %q moved of %d mounts", got, len(table))
		}
	})
}

// mountAt mounts a file system until the test ends or the returned function is called.
func mountAt(t *testing.T, source, at, kind string, flags uintptr, data string) (unmount func()) {
	t.Helper()
	err := unix.Mount(source, at, kind, flags, data)
	if errors.Is(err, unix.EPERM) {
		t.Skipf("NOT TESTED: mounting is refused (%v); run as root with CAP_SYS_ADMIN", err)
	}
	must(t, err)
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			must(t, unix.Unmount(at, unix.MNT_DETACH))
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// remounts takes the next events, which must be these and carry "remount".
func (r *running) remounts(t *testing.T, want ...string) {
	t.Helper()
	for name, e := range r.want(t, want...) {
		if e.Metadata["remount"] != true {
			t.Errorf("%s: got metadata %v, want remount", name, e.Metadata)
		}
	}
}

func TestMounts(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/w/f/x", "x")
	write(t, d+"/w/passwd", "root")
	write(t, d+"/evil", "toor")
	r := start(t, Config{Paths: []string{d + "/w"}, Rescan: time.Hour, Poll: time.Hour})
	r.hashed(t)

	end := mountAt(t, "tmpfs", d+"/w/f", "tmpfs", 0, "mode=0755")
	r.remounts(t, "modify "+d+"/w/f", "delete "+d+"/w/f/x")
	overwrite(t, d+"/w/f/y", "") // with content it would be two steps
	if e := r.want(t, "create "+d+"/w/f/y")["create "+d+"/w/f/y"]; e.Metadata["rescan"] != nil || e.Metadata["remount"] != nil {
		t.Errorf("got metadata %v of a change in what is mounted, want it told by the kernel", e.Metadata)
	}
	end()
	r.remounts(t, "modify "+d+"/w/f", "delete "+d+"/w/f/y", "create "+d+"/w/f/x")
	write(t, d+"/w/f/x", "xx")
	r.want(t, "modify "+d+"/w/f/x")

	end = mountAt(t, d+"/evil", d+"/w/passwd", "", unix.MS_BIND, "")
	r.remounts(t, "modify "+d+"/w/passwd")
	end()
	r.remounts(t, "modify "+d+"/w/passwd")

	end = mountAt(t, "tmpfs", d+"/w", "tmpfs", 0, "mode=0755") // over the watched path itself
	r.remounts(t, "modify "+d+"/w", "delete "+d+"/w/f", "delete "+d+"/w/f/x", "delete "+d+"/w/passwd")
	overwrite(t, d+"/w/z", "")
	r.want(t, "create "+d+"/w/z")
	end()
	r.remounts(t, "modify "+d+"/w", "create "+d+"/w/f", "create "+d+"/w/f/x", "create "+d+"/w/passwd", "delete "+d+"/w/z")

	end = mountAt(t, "tmpfs", d, "tmpfs", 0, "mode=0755") // over a folder on the way
	r.remounts(t, "delete "+d+"/w", "delete "+d+"/w/f", "delete "+d+"/w/f/x", "delete "+d+"/w/passwd")
	must(t, os.Mkdir(d+"/w", 0o755))
	r.want(t, "create "+d+"/w")
	overwrite(t, d+"/w/z", "")
	r.want(t, "create "+d+"/w/z")
	end()
	r.remounts(t, "modify "+d+"/w", "create "+d+"/w/f", "create "+d+"/w/f/x", "create "+d+"/w/passwd", "delete "+d+"/w/z")

	end = mountAt(t, "proc", d+"/w/f", "proc", 0, "") // the kernel's own files are not entered
	r.until(t, "delete "+d+"/w/f/x")
	end()
	r.until(t, "create "+d+"/w/f/x")
}

// A process with mounts of its own stands for a container.
func TestMountsInContainer(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/w/x", "x")
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: a mount namespace takes root; run as root with CAP_SYS_ADMIN")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `read go && mount -t tmpfs -o mode=0755 tmpfs "$0" && read end`, d+"/w")
	in, err := cmd.StdinPipe()
	must(t, err)
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := cmd.Start(); errors.Is(err, unix.EPERM) {
		t.Skipf("NOT TESTED: a mount namespace is refused (%v); run as root with CAP_SYS_ADMIN", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer func() {
		must(t, in.Close())
		_ = cmd.Wait() // its read found the end
	}()
	roots := make(chan []Root, 1)
	roots <- []Root{{Path: "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/root", Container: "one"}}
	r := start(t, Config{
		Root: t.TempDir(), Paths: []string{d + "/w"}, Rescan: time.Hour, Poll: 10 * time.Millisecond,
		Roots: func(context.Context) <-chan []Root { return roots },
	})
	r.eventually(t, "the container's mounts are read", func(s Stats) bool { return s.Roots == 1 && s.Files == 1 && s.MountLists > 0 })
	_, err = in.Write([]byte("\n"))
	must(t, err)
	r.remounts(t, "modify "+d+"/w", "delete "+d+"/w/x")
}
