package file

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hear reads notices until one is of path.
func hear(t *testing.T, n *notifier, path string) []notice {
	t.Helper()
	must(t, n.file.SetReadDeadline(time.Now().Add(patience)))
	var all []notice
	for !slices.ContainsFunc(all, func(w notice) bool { return w.path == path }) {
		var err error
		if all, err = n.read(all); err != nil {
			t.Fatalf("no notice of %s among %v: %v", path, all, err)
		}
	}
	return all
}

func listening(t *testing.T) *notifier {
	t.Helper()
	n, err := newNotifier()
	must(t, err)
	t.Cleanup(n.close)
	return n
}

func TestNotifier(t *testing.T) {
	tests := []struct {
		name   string
		writes bool
		do     func(d string) error
		want   func(d string) []notice
	}{
		{"what a folder on the way does not tell", false, func(d string) error {
			return errors.Join(os.WriteFile(d+"/f/a", []byte("x"), 0o600), os.Truncate(d+"/f/a", 0))
		}, func(string) []notice { return nil }},
		{"writes", true, func(d string) error { return os.Truncate(d+"/f/a", 0) },
			func(d string) []notice { return []notice{{d + "/f/a", written}} }},
		{"names", false, func(d string) error {
			return errors.Join(os.Rename(d+"/f/a", d+"/f/b"), os.Chmod(d+"/f/b", 0o600), os.Remove(d+"/f/b"))
		}, func(d string) []notice {
			return []notice{{d + "/f/a", movedAway}, {d + "/f/b", created}, {d + "/f/b", touched}, {d + "/f/b", removed}}
		}},
		{"the folder itself", false, func(d string) error { return os.Chmod(d+"/f", 0o700) },
			func(d string) []notice { return []notice{{d + "/f", touched}} }},
		{"moved away, and then silent", true, func(d string) error {
			return errors.Join(os.Rename(d+"/f", d+"/m"), os.WriteFile(d+"/m/late", nil, 0o600))
		}, func(d string) []notice { return []notice{{d + "/f", movedAway}} }},
		{"deleted", true, func(d string) error { return os.RemoveAll(d + "/f") },
			func(d string) []notice { return []notice{{d + "/f/a", removed}, {d + "/f", removed}} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := t.TempDir()
			write(t, d+"/f/a", "a")
			write(t, d+"/end/x", "")
			n := listening(t)
			must(t, n.add(d+"/f", test.writes), n.add(d+"/end", false))
			must(t, test.do(d), os.Mkdir(d+"/end/mark", 0o700))
			got := hear(t, n, d+"/end/mark")
			got = got[:len(got)-1]
			if want := test.want(d); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	t.Run("asked for more later", func(t *testing.T) {
		d := t.TempDir()
		write(t, d+"/a", "a")
		n := listening(t)
		must(t, n.add(d, false), n.add(d, true), os.Truncate(d+"/a", 0))
		if got, want := hear(t, n, d+"/a"), []notice{{d + "/a", written}}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("refuses what is no folder", func(t *testing.T) {
		d := t.TempDir()
		write(t, d+"/a", "a")
		must(t, os.Symlink(d, d+"/link"))
		n := listening(t)
		for _, path := range []string{d + "/a", d + "/link"} {
			if err := n.add(path, true); !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("%s: got %v, want %v", path, err, unix.ENOTDIR)
			}
		}
	})
	t.Run("ends", func(t *testing.T) {
		n := listening(t)
		ended := make(chan error)
		go func() {
			_, err := n.read(nil)
			ended <- err
		}()
		n.close()
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("read: got %v, want %v", err, os.ErrClosed)
		}
		if err := n.add("/", true); !errors.Is(err, os.ErrClosed) {
			t.Errorf("add: got %v, want %v", err, os.ErrClosed)
		}
		n.remove("/")
	})
}

// Only the folder in which a watched file is tells of writes, and that of a name that is a file only later too.
func TestFoldersOnTheWayAreSpared(t *testing.T) {
	d := t.TempDir()
	write(t, d+"/way/folder/x", "")
	write(t, d+"/files/watched", "")
	must(t, os.Mkdir(d+"/later", 0o755))
	r := start(t, Config{Paths: []string{d + "/way/folder", d + "/files/watched", d + "/later/file"}})
	writes := func() map[string]bool {
		r.hints.mu.Lock()
		defer r.hints.mu.Unlock()
		all := make(map[string]bool)
		for key, w := range r.hints.watched {
			if within(key, d) {
				all[key[len(d):]] = w.writes
			}
		}
		return all
	}
	for name, want := range map[string]bool{"": false, "/way": false, "/way/folder": true, "/files": true, "/later": false} {
		if got, found := writes()[name]; !found || got != want {
			t.Errorf("%q: got %v, %v; want a watch, for writes %v", name, got, found, want)
		}
	}
	write(t, d+"/later/file", "one")
	r.until(t, "create "+d+"/later/file")
	overwrite(t, d+"/later/file", "two")
	r.until(t, "modify "+d+"/later/file")
}
