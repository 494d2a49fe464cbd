package spool

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestAFolderThatCannotBeMadeHealsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent := t.TempDir()
		blocker := filepath.Join(parent, "blocker")
		if err := os.WriteFile(blocker, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s := open(t, config(t, func(c *Config) {
			c.Dir, c.Logger = filepath.Join(blocker, "spool"), slog.New(slog.NewTextHandler(&log, nil))
		}))
		if err := s.Append([]byte("0 "), 1); !errors.Is(err, unix.ENOTDIR) || s.Err() == nil {
			t.Fatalf("got %v, Err %v; want that a file is in the way", err, s.Err())
		}
		if err := os.Remove(blocker); err != nil {
			t.Fatal(err)
		}
		if err := s.Append([]byte("0 "), 1); err == nil {
			t.Error("it tried again at once, want once a second")
		}
		time.Sleep(restart)
		put(t, s, 0, 3, 10)
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "takes records again") {
			t.Errorf("got %d errors in the log, want one, and that it is over:\n%s", n, &log)
		}
		if diff := cmp.Diff(numbers(0, 3), due(t, s, all)); diff != "" {
			t.Errorf("handed out (-want +got):\n%s", diff)
		}
	})
}

func TestAFolderThatIsRemovedIsMadeAgain(t *testing.T) {
	s := open(t, config(t))
	put(t, s, 0, 70, 1000) // the second segment has begun
	if err := os.RemoveAll(s.c.Dir); err != nil {
		t.Fatal(err)
	}
	put(t, s, 70, 70, 1000)
	if ids, err := list(s.c.Dir); err != nil || len(ids) == 0 {
		t.Errorf("got segments %v, error %v; want new ones", ids, err)
	}
}

func TestASegmentThatIsConfirmedDoesNotKeepTheDiskFull(t *testing.T) {
	s := open(t, config(t))
	// A file that takes no more, as on a full disk.
	full := func() {
		if err := s.active.file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, 0, 3, 1000)
	due(t, s, all)
	full()
	put(t, s, 3, 1, 1000)
	if ids, err := list(s.c.Dir); err != nil || len(ids) != 1 || ids[0] != 1 || s.Err() != nil {
		t.Errorf("got segments %v, errors %v and %v; want the confirmed one gone and a new one", ids, err, s.Err())
	}
	full() // now something waits in it
	if err := s.Append(payload(4, 1000), 1); err == nil {
		t.Error("got no error, want that of the disk: what waits must not give way")
	}
	if st := s.Stats(); st.Records != 1 || st.LostRecords != 0 || st.Segments != 1 {
		t.Errorf("got %+v, want the one record that waits still there", st)
	}
	if diff := cmp.Diff(numbers(3, 1), due(t, s, none)); diff != "" {
		t.Errorf("handed out (-want +got):\n%s", diff)
	}
}

func FuzzScan(f *testing.F) {
	var segment []byte
	for i := range 3 {
		segment = appendRecord(segment, payload(i, 20), i)
	}
	f.Add(segment)
	f.Add(segment[5:])
	f.Add(append(segment[:40:40], segment...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d damage
		end, valid := 0, 0
		for r := range scan(data, &d) {
			if int(r.off) < end || r.end() > int64(len(data)) || len(r.payload) != int(r.length) {
				t.Fatalf("record %+v reaches outside of %d..%d", r.entry, end, len(data))
			}
			end = int(r.end())
			valid += headerSize + len(r.payload)
		}
		if got := valid + d.skipped + d.torn; got != len(data) {
			t.Fatalf("%d bytes of records, damage %+v: want %d together", valid, d, len(data))
		}
		// Whatever came before it, an intact record that follows is found.
		last := appendRecord(nil, []byte("last"), 7)
		found := false
		for r := range scan(append(data[:len(data):len(data)], last...), &damage{}) {
			found = found || int(r.off) == len(data) || r.end() > int64(len(data))
		}
		if !found {
			t.Fatal("the intact record at the end was not found")
		}
	})
}
