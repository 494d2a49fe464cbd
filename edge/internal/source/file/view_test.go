package file

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"
)

// idle starts a process that waits, and returns where its file system is and what ends it.
func idle(t *testing.T) (root string, end func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read wait")
	in, err := cmd.StdinPipe()
	must(t, err, cmd.Start())
	return fmt.Sprintf("/proc/%d/root", cmd.Process.Pid), func() {
		must(t, in.Close())
		_ = cmd.Wait() // its read found the end
	}
}

// The processes of this test share one file system, which the sensor sees as a container's, for its own is another.
func TestRoots(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/a", "a")
	write(t, d+"/secret", "s")
	write(t, d+"/own/x", "x")
	first, endFirst := idle(t)
	second, endSecond := idle(t)
	defer endSecond()
	roots := make(chan []Root)
	r := start(t, Config{
		Root: t.TempDir(), Paths: []string{d}, ReadPaths: []string{d + "/secret"}, Exclude: []string{d + "/own"},
		Redact: hide, Poll: 10 * time.Millisecond, Settle: 10 * time.Millisecond, Limits: Limits{Roots: 1},
		Roots: func(context.Context) <-chan []Root { return roots },
	})
	seen := func(files int) func(Stats) bool {
		return func(s Stats) bool { return s.Roots == 1 && s.Files == files && s.Unhashed == 0 }
	}
	roots <- []Root{{first, "one"}, {second, "one"}, {second, "again"}, {"/proc/1/root/nothing", "two"}}
	r.eventually(t, "the container is seen", seen(2))
	if s := r.Stats(); s.Roots != 1 || s.Skipped.Roots != 0 {
		t.Fatalf("got %+v, want one container: the others are the same or not there", s)
	}

	write(t, d+"/a", "b")
	e := r.want(t, "modify "+d+"/a")["modify "+d+"/a"]
	if e.Container == nil || e.Container.ID != "one" || shas(e) != change6("a", "b") {
		t.Errorf("got container %v and hashes %s, want one and %s", e.Container, shas(e), change6("a", "b"))
	}
	r.eventually(t, "the read watch stands", func(s Stats) bool { return s.ReadWatches > 0 })
	for r.Stats().Opens == 0 { // once more only when it was not seen: by another process it would be told again
		read(t, d+"/secret")
		for n := 0; n < 1000 && r.Stats().Opens == 0; n++ {
			<-time.After(time.Millisecond)
		}
	}
	if e := r.want(t, "read "+d+"/secret")["read "+d+"/secret"]; e.Container == nil || e.Container.ID != "one" {
		t.Errorf("got container %v of a read, want one", e.Container)
	}

	endFirst() // nothing was deleted by that, and what happens meanwhile is found later
	write(t, d+"/a", "c")
	roots <- []Root{{second, "one"}}
	e = r.want(t, "modify "+d+"/a")["modify "+d+"/a"]
	if e.Container.ID != "one" || e.Metadata["rescan"] != true || shas(e) != change6("b", "c") {
		t.Errorf("got %+v, metadata %v; want what was missed, found by a rescan", e.File, e.Metadata)
	}
	write(t, d+"/a", "d")
	if e = r.want(t, "modify "+d+"/a")["modify "+d+"/a"]; e.Metadata["rescan"] != nil {
		t.Error("the container is not watched any more")
	}

	roots <- nil
	r.eventually(t, "the container is forgotten", func(s Stats) bool { return s.Roots == 0 && s.Files == 0 && s.Folders == 0 })
	r.eventually(t, "its watches are gone", func(s Stats) bool { return s.ReadWatches <= 1 })
	roots <- []Root{{second, "three"}}
	r.eventually(t, "another is seen", seen(2))
	close(roots)
	write(t, d+"/end", "")
	if e := r.want(t, "create "+d+"/end")["create "+d+"/end"]; e.Container.ID != "three" { // and nothing before it
		t.Errorf("got container %v, want three", e.Container)
	}
}

func TestRootsAreBounded(t *testing.T) {
	t.Parallel()
	roots := make(chan []Root, 1)
	var list []Root
	for i := range 5 {
		d := t.TempDir()
		write(t, d+"/etc/passwd", "x")
		write(t, d+"/etc/cron.d/x", "x")
		list = append(list, Root{d, fmt.Sprint(i)})
	}
	roots <- list
	r := start(t, Config{
		Root: t.TempDir(), Paths: []string{"/etc/passwd", "/etc/cron.*"}, Limits: Limits{Roots: 3},
		Roots: func(context.Context) <-chan []Root { return roots },
	})
	r.eventually(t, "three are seen", func(s Stats) bool { return s.Roots == 3 && s.Skipped.Roots == 2 && s.Files == 6 })
	write(t, list[1].Path+"/etc/cron.daily/y", "y")
	for name, e := range r.want(t, "create /etc/cron.daily", "create /etc/cron.daily/y") {
		if e.Container == nil || e.Container.ID != "1" {
			t.Errorf("%s: got container %v, want 1", name, e.Container)
		}
	}
}
