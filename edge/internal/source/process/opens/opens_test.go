package opens

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func encode(wd int32, mask uint32, name string) []byte {
	room := (len(name) + 16) / 16 * 16
	if name == "" {
		room = 0
	}
	b := make([]byte, unix.SizeofInotifyEvent+room)
	order := binary.NativeEndian
	order.PutUint32(b, uint32(wd))
	order.PutUint32(b[4:], mask)
	order.PutUint32(b[12:], uint32(room))
	copy(b[unix.SizeofInotifyEvent:], name)
	return b
}

func TestNext(t *testing.T) {
	b := append(encode(3, unix.IN_OPEN, "true"), encode(4, unix.IN_OPEN, "")...)
	wd, mask, name, b, ok := next(b)
	if wd != 3 || mask != unix.IN_OPEN || name != "true" || !ok {
		t.Errorf("got %d, %x, %q, %t", wd, mask, name, ok)
	}
	wd, _, name, b, ok = next(b)
	if wd != 4 || name != "" || !ok || len(b) != 0 {
		t.Errorf("got %d, %q, %t and %d bytes", wd, name, ok, len(b))
	}
	short := encode(3, unix.IN_OPEN, "true")
	for n := range len(short) - 1 {
		if _, _, _, _, ok := next(short[:n]); ok {
			t.Errorf("%d bytes of an event are an event", n)
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add(append(encode(3, unix.IN_OPEN, "true"), encode(4, unix.IN_Q_OVERFLOW, "")...))
	f.Add(encode(-1, 1<<31, "x")[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		for ok := true; ok; {
			before := len(b)
			if _, _, _, b, ok = next(b); ok && len(b) >= before {
				t.Fatal("no progress")
			}
		}
	})
}

func TestProof(t *testing.T) {
	w := &Watcher{places: map[int32]*place{
		1: {path: "/usr/bin", kind: Program, space: "a"}, 2: {path: "/lib/ld", kind: Loader, space: "a"},
		3: {path: "/usr/bin", kind: Program, space: "b"}, 4: {path: "/lib/ld", kind: Loader, space: "b"},
		5: {path: cache, kind: Cache, space: "a"},
	}}
	var got []*Open
	for _, e := range []struct {
		wd   int32
		mask uint32
		name string
	}{
		{1, unix.IN_OPEN, "read"}, {1, unix.IN_OPEN, "script"}, {1, unix.IN_OPEN, "sh"}, {3, unix.IN_OPEN, "other"}, {2, unix.IN_OPEN, ""},
		{5, unix.IN_OPEN, ""}, {1, unix.IN_OPEN, "x"}, {1, unix.IN_OPEN, "y"}, {2, unix.IN_OPEN, ""}, {2, unix.IN_OPEN, ""},
		{1, unix.IN_OPEN | unix.IN_ISDIR, ""}, {9, unix.IN_OPEN, "unknown"}, {1, unix.IN_IGNORED, ""},
	} {
		if o := w.open(e.wd, e.mask, e.name); o != nil {
			got = append(got, o)
		}
	}
	var proved, not []string
	for _, o := range got {
		switch {
		case o.Kind != Program:
		case o.Proved:
			proved = append(proved, o.Path)
		default:
			not = append(not, o.Path)
		}
	}
	if want := []string{"/usr/bin/sh", "/usr/bin/x", "/usr/bin/y"}; !slices.Equal(proved, want) {
		t.Errorf("got %q proved, want %q", proved, want)
	}
	if want := []string{"/usr/bin/read", "/usr/bin/script", "/usr/bin/other"}; !slices.Equal(not, want) {
		t.Errorf("got %q not proved, want %q", not, want)
	}
	for range 10 * maxUnread {
		w.open(1, unix.IN_OPEN, "read")
	}
	if len(w.unread) > maxUnread {
		t.Errorf("%d opens wait for a proof", len(w.unread))
	}
}

func TestRealOpens(t *testing.T) {
	w, err := New("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	// A folder of our own, because others may run /bin/true too: one that is in a process's PATH.
	dir := t.TempDir()
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "mine")
	if err := os.WriteFile(program, b, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Env: []string{"PATH=" + dir}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	self := int32(cmd.Process.Pid)
	// Start returns when execve has closed what it closes; the environment is placed a little later.
	environ, tick := fmt.Sprint("/proc/", self, "/environ"), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); len(pathOf(environ)) == 0; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("its environment has no PATH")
		}
	}
	w.Sync([]int32{self, self, 1 << 30})
	st := w.Stats()
	if st.Namespaces != 1 || st.Watches < 4 || st.Refused != 0 {
		t.Fatalf("got %+v", st)
	}
	lock := filepath.Join(dir, "lock")
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) func() error {
		return func() error { return exec.Command(name, args...).Run() }
	}
	for _, tt := range []struct {
		name string
		do   func() error
		want []string // what was opened in the folder, and whether that proves that it ran
	}{
		{"running", run(program), []string{"mine true"}},
		{"reading", func() error { _, err := os.ReadFile(program); return err }, []string{"mine false"}},
		// A lock beside the program is none, nor is what is gone again; neither takes the proof of a program's.
		{"running beside a lock", run("/bin/sh", "-c", `: <"$0"; "$1"; : >"$2"; rm "$2"`, lock, program, filepath.Join(dir, "brief")), []string{"mine true"}},
	} {
		var got []string
		// Where others start programs at the same moment their loader's open is taken for ours, or ours for theirs.
		for deadline := time.Now().Add(30 * time.Second); !slices.Equal(got, tt.want); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("%s %s shows as %q, want %q", tt.name, program, got, tt.want)
			}
			if _, _, err := w.Read(); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			opens, _, err := w.Read() // an overflow is of what others open
			if err != nil {
				t.Fatal(err)
			}
			got = nil
			for _, o := range opens {
				if filepath.Dir(o.Path) == dir {
					got = append(got, fmt.Sprint(filepath.Base(o.Path), " ", o.Proved))
				}
				if o.Path == program && o.View != self {
					t.Errorf("%s is seen through %d, want %d", program, o.View, self)
				}
			}
		}
	}
	if w.Sync([]int32{self}); w.Stats().Watches != st.Watches {
		t.Errorf("got %d watches the second time, want %d", w.Stats().Watches, st.Watches)
	}
	if w.Sync(nil); w.Stats().Watches != 0 || w.Stats().Namespaces != 0 {
		t.Errorf("got %+v without processes", w.Stats())
	}
}

func TestPathOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "environ")
	if err := os.WriteFile(path, []byte("A=b\x00PATH=/opt/bin/:rel::/:/x/../y\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := pathOf(path), []string{"/opt/bin", "/y"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
