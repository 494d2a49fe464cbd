package file

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	for i := range 10 {
		write(t, fmt.Sprint(d, "/", i), "")
	}
	write(t, d+"/1d/2d/3d/x", "")
	r := start(t, Config{Paths: []string{d}, Limits: Limits{Files: 12, Depth: 1, HashSize: 4}})
	if s := r.Stats(); s.Files+s.Folders != 12 || s.Skipped.Files+s.Skipped.Depth == 0 {
		t.Errorf("got %+v, want 12 files and folders and some skipped", s)
	}
	write(t, d+"/0", "12345")
	if e := r.until(t, "modify "+d+"/0"); e.File.SHA256 != "" || e.File.Size != 5 {
		t.Errorf("got %+v, want a size and no hash", e.File)
	}
	must(t, os.WriteFile(d+"/0", []byte("54321"), 0o644))
	r.until(t, "modify "+d+"/0") // by its times alone
}

func TestUnreadable(t *testing.T) {
	d := t.TempDir()
	write(t, d+"/a", "a")
	must(t, os.Chmod(d+"/a", 0o200), os.Chmod(filepath.Dir(d), 0o755))
	denied := 0
	o := newObserver(Limits{HashSize: 1 << 20, HashRate: 1 << 20}, func() { denied++ })
	var (
		wg  sync.WaitGroup
		s   state
		err error
	)
	wg.Go(func() {
		if os.Geteuid() == 0 { // this thread alone, which ends with its goroutine, reads as nobody: setfsuid(2)
			runtime.LockOSThread()
			if err = unix.Setfsuid(65534); err != nil {
				return
			}
		}
		s, err = o.observe(d+"/a", nil, hashChanged)
	})
	wg.Wait()
	if err != nil || s.hashing != unhashed || s.size != 1 || denied != 1 {
		t.Errorf("got %+v, %v, %d denials; want a state by stat alone and one denial", s, err, denied)
	}
}
