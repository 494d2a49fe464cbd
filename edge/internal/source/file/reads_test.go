package file

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/shared/event"
)

// read opens path as another part of this process would, which the sensor does not know as its own.
func read(tb testing.TB, path string) {
	tb.Helper()
	_, err := os.ReadFile(path)
	must(tb, err)
}

// replace puts a new file at path, without an open that a watch of the folder would tell.
func replace(tb testing.TB, path, text string) {
	tb.Helper()
	temp := tb.TempDir() + "/x"
	write(tb, temp, text)
	must(tb, os.Rename(temp, path))
}

func TestReads(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/etc/shadow", "s")
	write(t, d+"/etc/other", "o")
	write(t, d+"/home/a/.ssh/id_rsa", "k")
	write(t, d+"/home/a/.ssh/keys/work", "k")
	write(t, d+"/sa/..v1/token", "t")
	must(t, os.Symlink("..v1", d+"/sa/..data"), os.Symlink("..data/token", d+"/sa/token"))
	r := start(t, Config{
		Root: d, Paths: []string{"/nothing"}, ReadPaths: []string{"/etc/shadow", "/home/*/.ssh", "/sa/token"},
	})
	read(t, d+"/etc/other")
	_, err := os.ReadDir(d + "/home/a/.ssh") // a listing is no read of a file
	must(t, err)
	for _, step := range []struct{ do, want string }{
		{"/etc/shadow", "/etc/shadow"},
		{"/home/a/.ssh/id_rsa", "/home/a/.ssh/id_rsa"},
		{"/home/a/.ssh/keys/work", "/home/a/.ssh/keys/work"},
		{"/sa/token", "/sa/token"},
	} {
		read(t, d+step.do)
		e := r.want(t, "read "+step.want)["read "+step.want]
		e.ID, e.AgentID = "01930000-0000-7000-8000-000000000000", "test"
		if err := e.Validate(); err != nil || e.File.Size != 1 || e.File.Mode != "0644" {
			t.Errorf("%s: got %+v, %v; want a valid event with the file's state", step.want, e.File, err)
		}
	}

	// What takes the place of a watched file, or comes later, is watched in its turn.
	replace(t, d+"/etc/shadow", "s2")
	write(t, d+"/sa/..v2/token", "t2")
	must(t, os.Symlink("..v2", d+"/sa/..tmp"), os.Rename(d+"/sa/..tmp", d+"/sa/..data"), os.RemoveAll(d+"/sa/..v1"))
	write(t, d+"/home/b/.ssh/id", "k")
	for _, path := range []string{"/etc/shadow", "/sa/token", "/home/b/.ssh/id"} {
		before := r.Stats().Opens
		r.eventually(t, path+" is watched again", func(s Stats) bool {
			read(t, d+path)
			return s.Opens > before
		})
	}
}

// Who still has the file open is named, unless the search takes longer than it may: then the next file's reader is.
func TestReader(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	must(t, os.Mkdir(d+"/secrets", 0o755))
	r := start(t, Config{Paths: []string{d + "/nothing"}, ReadPaths: []string{d + "/secrets"}})
	var readers []event.Writer
	var pid int
	for n, deadline := 0, time.Now().Add(patience); len(readers) == 0 && time.Now().Before(deadline); n++ {
		path := fmt.Sprint(d, "/secrets/", n)
		write(t, path, "s")
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec 3<"+path+"; read wait")
		in, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		readers, pid = r.want(t, "read "+path)["read "+path].File.Writers, cmd.Process.Pid
		must(t, in.Close())
		_ = cmd.Wait() // its read found the end
	}
	if len(readers) != 1 || readers[0].PID != int32(pid) || readers[0].Confidence != openAlone {
		t.Errorf("got %+v, want process %d", readers, pid)
	}
}

// The sensor reads what it watches reads of: each of its opens is left out, and none of another's.
func TestOwnReadsAreNotTold(t *testing.T) {
	t.Parallel()
	const files = 50
	d := t.TempDir()
	path := func(i int) string { return fmt.Sprint(d, "/f", i) }
	for i := range files {
		write(t, path(i), "at first")
	}
	must(t, os.Link(path(0), d+"/link")) // watched as a file and in a folder
	r := start(t, Config{
		Paths: []string{d}, ReadPaths: []string{d, path(0)}, Settle: 10 * time.Millisecond, Limits: Limits{HashRate: 1 << 30},
	})
	r.hashed(t)
	for i := range files {
		replace(t, path(i), fmt.Sprint("changed ", i))
		r.until(t, "modify "+path(i)) // it has been hashed
		read(t, path(i))
		r.until(t, "read "+path(i))
	}
	r.stop()
	if s := r.Stats(); s.Opens != files || s.Reads != files || s.ReadsUnsure != 0 || s.ReadOverflows != 0 {
		t.Errorf("got %+v, want %d opens and reads", s, files)
	}
	if len(r.reads.own) > 1 {
		t.Errorf("%d marks were never met", len(r.reads.own))
	}
}

// What a full queue swallows may be marks: until the next one nothing is told, and then all is.
func TestReadsAfterAnOverflow(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	write(t, d+"/a", "a")
	s, err := New(Config{Paths: []string{d}, ReadPaths: []string{d}})
	must(t, err)
	told := 0
	s.emit = func(*event.Event) { told++ }
	r := s.reads
	must(t, r.start())
	defer r.file.Close()
	take := func() {
		buf := make([]byte, 4096)
		n, err := unix.Read(r.fd, buf)
		must(t, err)
		r.take(buf[:n])
	}
	fd, err := r.open(d+"/a", id{})
	must(t, err, unix.Close(fd))
	lost := binary.NativeEndian.AppendUint32(nil, 1<<32-1)
	lost = binary.NativeEndian.AppendUint32(lost, unix.IN_Q_OVERFLOW)
	r.take(append(lost, make([]byte, 8)...))
	if r.deaf == 0 || len(r.own) != 0 {
		t.Fatalf("got mark %d and %d own opens, want a mark and none", r.deaf, len(r.own))
	}
	read(t, d+"/a") // after the mark
	take()
	if told != 1 || r.deaf != 0 {
		t.Errorf("got %d events and mark %d, want one event and none", told, r.deaf)
	}
}

func TestReadsInALoopAreCounted(t *testing.T) {
	s, err := New(Config{Paths: []string{"/x"}})
	must(t, err)
	var told []*event.Event
	s.emit = func(e *event.Event) { told = append(told, e) }
	r := s.reads
	at := time.Now()
	by := func(pid int32) []event.Writer { return []event.Writer{{PID: pid, Confidence: openAlone}} }
	for range 5 {
		r.count("/a", "", at, &state{kind: regular}, by(7))
	}
	r.count("/a", "", at, &state{}, by(8)) // gone again
	if len(told) != 2 || told[1].File.UID != event.UnknownID || told[1].File.Mode != "" {
		t.Fatalf("got %d events, want one for each process, the last without a state", len(told))
	}
	if next := r.expire(at.Add(time.Second), false); !next.Equal(at.Add(readWindow)) || len(told) != 2 {
		t.Errorf("got next end %v and %d events, want the window open", next, len(told))
	}
	r.expire(at.Add(readWindow), false)
	if len(told) != 3 || told[2].Metadata["count"] != int64(4) || len(r.readers) != 0 {
		t.Fatalf("got %d events, want one more with a count of 4", len(told))
	}
	for i := range maxReaders + 3 {
		r.count(fmt.Sprint("/", i), "", at, &state{kind: regular}, nil)
	}
	if len(r.readers) != maxReaders || s.Stats().ReadsUnsure != 3 {
		t.Errorf("got %d windows, %d dropped; want %d and 3", len(r.readers), s.Stats().ReadsUnsure, maxReaders)
	}
}

func TestReadWatchesAreBounded(t *testing.T) {
	t.Parallel()
	d := t.TempDir()
	for i := range 10 {
		write(t, fmt.Sprintf("%s/%d/x", d, i), "x")
	}
	r := start(t, Config{Paths: []string{d + "/0"}, ReadPaths: []string{d}, Limits: Limits{ReadWatches: 4}})
	if s := r.Stats(); s.ReadWatches != 4 || s.Skipped.ReadWatches == 0 {
		t.Errorf("got %+v, want 4 read watches and some skipped", s)
	}
}

func FuzzInotifyEvents(f *testing.F) {
	one := func(name string) []byte {
		b := binary.NativeEndian.AppendUint32(nil, 1)
		b = binary.NativeEndian.AppendUint32(b, unix.IN_OPEN)
		b = binary.NativeEndian.AppendUint32(b, 0)
		return append(binary.NativeEndian.AppendUint32(b, uint32(len(name))), name...)
	}
	f.Add(one("a\x00\x00\x00"))
	f.Add(append(one(""), one("b\x00")...))
	f.Add(append(one("x"), 0xff, 0xff))
	f.Add(binary.NativeEndian.AppendUint32(make([]byte, 12), 1<<32-1))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		for e := range inotifyEvents(data) {
			n += unix.SizeofInotifyEvent + len(e.name)
		}
		if n > len(data) {
			t.Errorf("got %d bytes of events from %d", n, len(data))
		}
	})
}

// BenchmarkOwnOpen is an open by the sensor: of what has no read watch, and of what has one and is marked.
func BenchmarkOwnOpen(b *testing.B) {
	for _, marked := range []bool{false, true} {
		b.Run(fmt.Sprint("marked ", marked), func(b *testing.B) {
			d := b.TempDir()
			write(b, d+"/a/x", "x")
			write(b, d+"/b/x", "x")
			s, err := New(Config{Paths: []string{d}, ReadPaths: []string{d + "/a"}})
			must(b, err)
			must(b, s.reads.start())
			defer s.reads.file.Close()
			path := d + "/b/x"
			if marked {
				path = d + "/a/x"
			}
			st, err := lstat(path)
			must(b, err)
			buf := make([]byte, 64<<10)
			for b.Loop() {
				fd, err := s.reads.open(path, st.id)
				must(b, err, unix.Close(fd))
				if marked && len(s.reads.own) > 1000 {
					n, err := unix.Read(s.reads.fd, buf)
					must(b, err)
					s.reads.take(buf[:n])
				}
			}
		})
	}
}
