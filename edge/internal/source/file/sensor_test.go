package file

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// scene is a watched folder in which something happens.
type scene struct {
	*testing.T
	dir string
}

func TestOperations(t *testing.T) {
	tests := []struct {
		name  string
		do    func(t scene)
		want  []string // "operation name"
		shas  string   // of the first
		extra map[string]any
	}{
		{"create", func(t scene) { write(t, t.dir+"/new", "n") }, []string{"create new"}, change6("-", "n"), nil},
		{"modify", func(t scene) { write(t, t.dir+"/a", "b") }, []string{"modify a"}, change6("a", "b"), nil},
		{"write twice is one modify", func(t scene) { write(t, t.dir+"/a", "b"); write(t, t.dir+"/a", "c") }, []string{"modify a"}, change6("a", "c"), nil},
		{"delete", func(t scene) { must(t, os.Remove(t.dir+"/a")) }, []string{"delete a"}, change6("a", "-"), nil},
		{"chmod", func(t scene) { must(t, os.Chmod(t.dir+"/a", 0o4755|os.ModeSetuid)) }, []string{"chmod a"}, change6("a", "a"), nil},
		{"rename", func(t scene) { must(t, os.Rename(t.dir+"/a", t.dir+"/b")) }, []string{"rename b"}, change6("a", "a"), map[string]any{"renamed_from": "a"}},
		{"rename over", func(t scene) {
			must(t, os.Rename(t.dir+"/a", t.dir+"/old"))
		}, []string{"rename old"}, change6("old", "a"), map[string]any{"renamed_from": "a", "replaced": true}},
		{"editor", func(t scene) {
			write(t, t.dir+"/.a.swp", "edited")
			must(t, os.Rename(t.dir+"/.a.swp", t.dir+"/a"))
		}, []string{"modify a"}, change6("a", "edited"), map[string]any{"replaced": true}},
		{"rotation", func(t scene) {
			must(t, os.Rename(t.dir+"/a", t.dir+"/a.1"))
			write(t, t.dir+"/a", "anew")
		}, []string{"rename a.1", "create a"}, change6("a", "a"), map[string]any{"renamed_from": "a"}},
		{"swap", func(t scene) {
			must(t, unix.Renameat2(unix.AT_FDCWD, t.dir+"/a", unix.AT_FDCWD, t.dir+"/old", unix.RENAME_EXCHANGE))
		}, []string{"rename a", "rename old"}, change6("old", "old"), map[string]any{"renamed_from": "old"}},
		{"moved out", func(t scene) { must(t, os.Rename(t.dir+"/a", t.TempDir()+"/a")) }, []string{"delete a"}, change6("a", "-"), nil},
		{"hard link", func(t scene) { must(t, os.Link(t.dir+"/a", t.dir+"/b")) }, []string{"create b"}, change6("-", "a"), map[string]any{"links": int64(2), "link_names": []string{"a"}}},
		{"symlink", func(t scene) { must(t, os.Symlink("a", t.dir+"/l")) }, []string{"create l"}, ">", map[string]any{"kind": "symlink", "link_target": "a"}},
		{"symlink elsewhere", func(t scene) {
			must(t, os.Symlink("a", t.dir+"/tmp"), os.Rename(t.dir+"/tmp", t.dir+"/link"))
		}, []string{"modify link"}, ">", map[string]any{"link_target": "a", "previous_link_target": "old"}},
		{"folder", func(t scene) { must(t, os.Mkdir(t.dir+"/f", 0o700)) }, []string{"create f"}, ">", map[string]any{"kind": "directory"}},
		{"folder with content", func(t scene) { write(t, t.dir+"/x/y/z", "z") }, []string{"create x", "create x/y", "create x/y/z"}, ">", nil},
		{"folder removed", func(t scene) { must(t, os.RemoveAll(t.dir+"/sub")) }, []string{"delete sub", "delete sub/in"}, ">", nil},
		{"folder renamed", func(t scene) {
			must(t, os.Rename(t.dir+"/sub", t.dir+"/bus"))
		}, []string{"rename bus", "rename bus/in"}, ">", map[string]any{"renamed_from": "sub"}},
		{"fifo", func(t scene) { must(t, unix.Mkfifo(t.dir+"/p", 0o600)) }, []string{"create p"}, ">", map[string]any{"kind": "fifo"}},
		{"socket", func(t scene) {
			l, err := net.Listen("unix", t.dir+"/s")
			must(t, err)
			t.Cleanup(func() { l.Close() })
		}, []string{"create s"}, ">", map[string]any{"kind": "socket"}},
		{"hostile name", func(t scene) {
			write(t, t.dir+"/\x1b[2J\n\xff"+strings.Repeat("x", 240), "h")
		}, []string{"create \x1b[2J\n\xff" + strings.Repeat("x", 240)}, change6("-", "h"), nil},
		{"name of dots", func(t scene) { write(t, t.dir+"/.../...", "h") }, []string{"create ...", "create .../..."}, ">", nil},
		{"file becomes folder", func(t scene) {
			other := t.TempDir()
			must(t, os.Chmod(other, 0o755), unix.Renameat2(unix.AT_FDCWD, t.dir+"/a", unix.AT_FDCWD, other, unix.RENAME_EXCHANGE))
		}, []string{"modify a", "chmod a"}, change6("a", "-"), map[string]any{"kind": "directory", "replaced": true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := t.TempDir()
			write(t, d+"/a", "a")
			write(t, d+"/old", "old")
			write(t, d+"/sub/in", "in")
			must(t, os.Symlink("old", d+"/link"))
			r := start(t, Config{Paths: []string{d}})
			r.hashed(t)
			r.at(t, d, func() { test.do(scene{t, d}) })
			want := make([]string, len(test.want), len(test.want)+2)
			for i, w := range test.want {
				operation, name, _ := strings.Cut(w, " ")
				want[i] = operation + " " + d + "/" + name
			}
			want = append(want, "create "+d+"/hold", "create "+d+"/last")
			got := r.want(t, want...)
			first := got[want[0]]
			if got := shas(first); got != test.shas {
				t.Errorf("hashes of %s: got %s, want %s", want[0], got, test.shas)
			}
			for k, v := range test.extra {
				switch k {
				case "renamed_from":
					v = d + "/" + v.(string)
				case "link_names":
					v = []string{d + "/" + v.([]string)[0]}
				}
				if got := first.Metadata[k]; !cmp.Equal(got, v) {
					t.Errorf("metadata %s of %s: got %v, want %v", k, want[0], got, v)
				}
			}
			for name, e := range got {
				e.ID, e.AgentID = "01930000-0000-7000-8000-000000000000", "test"
				if err := e.Validate(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if e.File.Operation == "rename" && e.Metadata["renamed_from"] == nil {
					t.Errorf("%s has no old name", name)
				}
			}
			write(t, d+"/end", "")
			r.want(t, "create "+d+"/end") // and nothing else before it
		})
	}
}

func TestChown(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away: run as root")
	}
	d := t.TempDir()
	write(t, d+"/a", "a")
	r := start(t, Config{Paths: []string{d}})
	must(t, os.Chown(d+"/a", 12, 34))
	e := r.want(t, "chown "+d+"/a")["chown "+d+"/a"]
	if got, want := fmt.Sprint(e.File.UID, e.File.GID, e.File.Previous.UID, e.File.Previous.GID), "12 34 0 0"; got != want {
		t.Errorf("owners: got %s, want %s", got, want)
	}
}

func TestNothingToTell(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/a", "a")
	write(t, d+"/own/spool", "")
	r := start(t, Config{Paths: []string{d}, Exclude: []string{d + "/own"}, StateFile: d + "/state"})
	r.hashed(t)
	must(t, os.Chtimes(d+"/a", time.Now(), time.Unix(1, 0)))
	write(t, d+"/a", "a")
	write(t, d+"/own/spool", "segment")
	write(t, d+"/last", "")
	r.want(t, "create "+d+"/last")
	r.eventually(t, "the state file was spared", func(s Stats) bool { return s.Own > 0 })
	if len(r.events) > 0 {
		t.Errorf("got %v, want nothing", r.next(t).File)
	}
}

func TestPathThatDoesNotExistYet(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	path := d + "/a/b/c/file"
	r := start(t, Config{Paths: []string{path}})
	for i := range 3 {
		write(t, d+"/neighbour", fmt.Sprint(i))
		write(t, d+"/a/neighbour", fmt.Sprint(i))
		write(t, d+"/a/b/c/neighbour", fmt.Sprint(i))
		write(t, path, "one")
		r.want(t, "create "+path)
		write(t, path, "two")
		r.want(t, "modify "+path)
		write(t, path+".new", "three")
		must(t, os.Rename(path+".new", path))
		r.want(t, "modify "+path)
		must(t, os.Rename(d+"/a", fmt.Sprint(d, "/gone", i)))
		r.want(t, "delete "+path)
	}
}

func TestFolderMovedAndMadeAgain(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/f/g/x", "x")
	r := start(t, Config{Paths: []string{d}})
	for i := range 3 {
		to := fmt.Sprint(d, "/m", i)
		must(t, os.Rename(d+"/f", to))
		r.want(t, "rename "+to, "rename "+to+"/g", "rename "+to+"/g/x")
		write(t, to+"/g/x", fmt.Sprint("moved", i))
		r.want(t, "modify "+to+"/g/x")
		write(t, d+"/f/g/x", "x")
		r.want(t, "create "+d+"/f", "create "+d+"/f/g", "create "+d+"/f/g/x")
		write(t, d+"/f/g/x", fmt.Sprint("anew", i))
		r.want(t, "modify "+d+"/f/g/x")
		write(t, to+"/g/x", fmt.Sprint("moved again", i))
		r.want(t, "modify "+to+"/g/x")
	}
}

// A ConfigMap volume: key -> ..data/key, ..data -> a folder per version, which the kubelet swaps by a rename
// (k8s.io/kubernetes pkg/volume/util/atomic_writer.go).
func TestConfigMapSwap(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	version := func(n string) {
		write(t, d+"/..v"+n+"/key", "value "+n)
		must(t, os.Symlink("..v"+n, d+"/..data_tmp"), os.Rename(d+"/..data_tmp", d+"/..data"))
	}
	version("1")
	must(t, os.Symlink("..data/key", d+"/key"))
	r := start(t, Config{Paths: []string{d + "/key"}})
	r.hashed(t)
	for i := 2; i < 5; i++ {
		version(fmt.Sprint(i))
		must(t, os.RemoveAll(fmt.Sprint(d, "/..v", i-1)))
		e := r.until(t, "modify "+d+"/key")
		if got, want := shas(e), change6(fmt.Sprint("value ", i-1), fmt.Sprint("value ", i)); got != want {
			t.Errorf("version %d: got hashes %s, want %s", i, got, want)
		}
		if got, want := e.Metadata["link_target"], fmt.Sprint(d, "/..v", i, "/key"); got != want {
			t.Errorf("version %d: got target %v, want %s", i, got, want)
		}
		write(t, fmt.Sprint(d, "/..v", i, "/key"), fmt.Sprint("value ", i, " in place"))
		r.want(t, "modify "+d+"/key")
		write(t, fmt.Sprint(d, "/..v", i, "/key"), fmt.Sprint("value ", i))
		r.want(t, "modify "+d+"/key")
	}
}

func TestWatchedSymlinkToFolder(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/one/x", "1")
	write(t, d+"/two/x", "2")
	must(t, os.Symlink("one", d+"/link"), os.Symlink("../link", d+"/one/loop"))
	r := start(t, Config{Paths: []string{d + "/link"}})
	r.hashed(t)
	write(t, d+"/one/x", "1 changed")
	r.want(t, "modify "+d+"/link/x")
	must(t, os.Symlink("two", d+"/tmp"), os.Rename(d+"/tmp", d+"/link"))
	r.want(t, "modify "+d+"/link", "modify "+d+"/link/x", "delete "+d+"/link/loop")
	write(t, d+"/two/x", "2 changed")
	r.want(t, "modify "+d+"/link/x")
	must(t, os.Remove(d+"/link"))
	r.want(t, "delete "+d+"/link", "delete "+d+"/link/x")
}

func TestPattern(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/home/ann/.ssh/keys", "k")
	must(t, os.Mkdir(d+"/home/bob", 0o755))
	r := start(t, Config{Paths: []string{d + "/home/*/.ssh"}})
	write(t, d+"/home/bob/.ssh/keys", "k")
	r.want(t, "create "+d+"/home/bob/.ssh", "create "+d+"/home/bob/.ssh/keys")
	write(t, d+"/home/eve/.profile", "")
	write(t, d+"/home/eve/.ssh/keys", "k")
	r.want(t, "create "+d+"/home/eve/.ssh", "create "+d+"/home/eve/.ssh/keys")
	must(t, os.RemoveAll(d+"/home/ann"))
	r.want(t, "delete "+d+"/home/ann/.ssh", "delete "+d+"/home/ann/.ssh/keys")
	write(t, d+"/home/eve/.ssh/keys", "kk")
	r.want(t, "modify "+d+"/home/eve/.ssh/keys")
}

func TestRoot(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/etc/real/passwd", "p")
	must(t, os.Symlink("/etc/real/passwd", d+"/etc/passwd"))
	r := start(t, Config{Paths: []string{"/etc/passwd", "/var"}, Root: d})
	r.hashed(t)
	write(t, d+"/etc/real/passwd", "q")
	e := r.want(t, "modify /etc/passwd")["modify /etc/passwd"]
	if got, want := e.Metadata["link_target"], "/etc/real/passwd"; got != want {
		t.Errorf("target: got %v, want %s", got, want)
	}
	write(t, d+"/var/x", "")
	r.want(t, "create /var", "create /var/x")
}

// What the kernel does not tell is found by the rescan after an overflow, and watches that ended unseen are renewed.
func TestOverflow(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/f/a", "a")
	write(t, d+"/f/b", "b")
	r := start(t, Config{Paths: []string{d}})
	r.hashed(t)
	r.watches.fs.remove(d + "/f")
	write(t, d+"/f/a", "other")
	must(t, os.Rename(d+"/f/b", d+"/f/c"))
	r.hints.fail(errOverflow)
	got := r.want(t, "modify "+d+"/f/a", "rename "+d+"/f/c")
	for name, e := range got {
		if e.Metadata["rescan"] != true || e.Metadata["changed_at"] == nil {
			t.Errorf("%s: got metadata %v, want rescan and changed_at", name, e.Metadata)
		}
	}
	if s := r.Stats(); s.Overflows != 1 {
		t.Errorf("overflows: got %d, want 1", s.Overflows)
	}
	write(t, d+"/f/a", "again")
	if e := r.until(t, "modify "+d+"/f/a"); e.Metadata["rescan"] != nil {
		t.Error("the watch was not renewed: the change was found by a scan")
	}
}

func TestTooFewWatches(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/first/a", "a")
	write(t, d+"/second/b", "b")
	depth := strings.Count(d, "/") + 1 // folders on the way, "/" and d included
	r := start(t, Config{
		Paths: []string{d + "/first", d + "/second"}, Poll: 20 * time.Millisecond, Limits: Limits{Watches: depth + 1},
	})
	r.hashed(t)
	if s := r.Stats(); s.Polled != 1 || s.Skipped.Watches == 0 || s.Watches != depth+1 {
		t.Fatalf("got %+v, want one polled folder and %d watches", s, depth+1)
	}
	write(t, d+"/first/a", "aa")
	if e := r.until(t, "modify "+d+"/first/a"); e.Metadata["rescan"] != nil {
		t.Error("the first path was polled, want it watched")
	}
	write(t, d+"/second/b", "bb")
	if e := r.until(t, "modify "+d+"/second/b"); e.Metadata["rescan"] != true {
		t.Error("the second path was watched, want it polled")
	}
	must(t, os.RemoveAll(d+"/first"))
	r.eventually(t, "the freed watch is used", func(s Stats) bool { return s.Polled == 0 })
}

// What the rate limit does not let hash is told when it does, and what can be told at once is.
func TestHashRate(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/a", "a")
	write(t, d+"/b", "b")
	r := start(t, Config{Paths: []string{d}, Limits: Limits{HashSize: 1 << 10, HashRate: 20 << 10}})
	r.hashed(t)
	for i := range 8 { // more than the limit lets hash in the time this takes
		write(t, fmt.Sprint(d, "/new", i), "x")
	}
	write(t, d+"/a", "A")
	must(t, os.Chmod(d+"/b", 0o4755|os.ModeSetuid))
	r.eventually(t, "everything is told", func(s Stats) bool { return s.Created >= 8 && s.Modified > 0 && s.Chmods > 0 })
	r.eventually(t, "everything is hashed", func(s Stats) bool { return s.Unhashed == 0 })
	if s := r.Stats(); s.Created != 8 || s.Modified != 1 || s.Chmods != 1 {
		t.Errorf("got %+v, want 8 creates, a modify and a chmod", s)
	}
	r.until(t, "modify "+d+"/a")
}

func TestConfigFaultsAreReportedAtOnce(t *testing.T) {
	_, err := New(Config{Paths: []string{"etc", "/a[", "/own/x"}, Exclude: []string{"/own"}, Settle: -1})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{`"etc" is not absolute`, `"/a["`, `in the excluded`, "settle is negative"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %s", err, want)
		}
	}
}
