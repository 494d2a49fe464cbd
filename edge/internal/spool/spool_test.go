package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// config is a small spool: segments of some 64 KiB, four of them.
func config(tb testing.TB, change ...func(*Config)) Config {
	tb.Helper()
	c := Config{Dir: tb.TempDir(), MaxBytes: 256 << 10, SegmentBytes: 64 << 10, Fresh: 4, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&c)
	}
	return c
}

func open(tb testing.TB, c Config) *Spool {
	tb.Helper()
	s, err := Open(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// put appends n records "first", "first+1", ... of size bytes each.
func put(tb testing.TB, s *Spool, first, n, size int) {
	tb.Helper()
	for i := first; i < first+n; i++ {
		if err := s.Append(payload(i, size), 1); err != nil {
			tb.Fatal(err)
		}
	}
}

func payload(i, size int) []byte {
	return append(fmt.Appendf(nil, "%d ", i), bytes.Repeat([]byte{'x'}, size)...)
}

func number(r *Record) string {
	n, _, _ := strings.Cut(string(r.Payload), " ")
	return n
}

// ended is a context that does not wait.
func ended(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	cancel()
	return ctx
}

// due hands out all there is; confirm says which to confirm.
func due(tb testing.TB, s *Spool, confirm func(i string) bool) (got []string) {
	tb.Helper()
	for {
		r, err := s.Next(ended(tb))
		if err != nil {
			return got
		}
		got = append(got, number(r))
		if confirm(number(r)) {
			s.Confirm(r)
		}
	}
}

func all(string) bool  { return true }
func none(string) bool { return false }

func numbers(first, n int) (s []string) {
	for i := first; i < first+n; i++ {
		s = append(s, fmt.Sprint(i))
	}
	return s
}

func TestOrderWithAndWithoutReadingBack(t *testing.T) {
	s := open(t, config(t, func(c *Config) { c.MaxBytes = 1 << 20 }))
	put(t, s, 0, 300, 1000) // 4 fresh ones, the rest over several segments
	if diff := cmp.Diff(numbers(0, 300), due(t, s, all)); diff != "" {
		t.Fatalf("first round (-want +got):\n%s", diff)
	}
	put(t, s, 300, 3, 1000) // all of them fresh
	if diff := cmp.Diff(numbers(300, 3), due(t, s, all)); diff != "" {
		t.Fatalf("second round (-want +got):\n%s", diff)
	}
	if st := s.Stats(); st.Records != 0 || st.Segments != 1 || st.Confirmed != 303 || st.Corrupt != 0 {
		t.Errorf("got %+v, want nothing left but the newest segment", st)
	}
}

func TestReopenHandsOutWhatIsNotConfirmed(t *testing.T) {
	c := config(t)
	s := open(t, c)
	put(t, s, 0, 100, 1000)
	odd := func(i string) bool { return strings.ContainsAny(i[len(i)-1:], "13579") }
	due(t, s, odd)
	s.Close()
	var want []string
	for i := 0; i < 100; i += 2 {
		want = append(want, fmt.Sprint(i))
	}
	s = open(t, c)
	if st := s.Stats(); st.Records != 50 || st.Events != 50 {
		t.Errorf("got %+v, want 50 records of one event each", st)
	}
	put(t, s, 100, 1, 1000)
	if diff := cmp.Diff(append(want, "100"), due(t, s, all)); diff != "" {
		t.Errorf("after reopening (-want +got):\n%s", diff)
	}
	s.Close()
	if ids, err := list(c.Dir); err != nil || len(ids) != 0 {
		t.Errorf("got segments %v and error %v, want an empty folder: all is confirmed", ids, err)
	}
}

func TestARecordHandedOutIsNotHandedOutAgainAfterItsSegmentRolled(t *testing.T) {
	s := open(t, config(t))
	put(t, s, 0, 2, 1000)
	first := due(t, s, none)
	put(t, s, 2, 150, 1000)
	if diff := cmp.Diff(numbers(0, 152), append(first, due(t, s, none)...)); diff != "" {
		t.Errorf("handed out (-want +got):\n%s", diff)
	}
}

func TestFullLosesTheOldestSegmentAndCountsIt(t *testing.T) {
	s := open(t, config(t))
	put(t, s, 0, 4, 1000)
	var held []*Record
	for range 2 {
		r, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, r)
	}
	put(t, s, 4, 400, 1000)
	st := s.Stats()
	if st.Bytes > 256<<10 {
		t.Errorf("got %d bytes, want at most %d", st.Bytes, 256<<10)
	}
	const fresh = 4 // records in memory outlive their segment
	if st.LostRecords == 0 || st.LostRecords+st.Records+int64(len(held))+fresh != 404 {
		t.Errorf("got %d lost, %d waiting, %d handed out, %d fresh: want 404 together", st.LostRecords, st.Records, len(held), fresh)
	}
	got := due(t, s, all)
	want := append(numbers(2, fresh), numbers(404-len(got)+fresh, len(got)-fresh)...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what stays is the newest (-want +got):\n%s", diff)
	}
	s.Confirm(held[0])
	s.Release(held[1]) // its segment is gone: now it is lost
	if now := s.Stats(); now.LostRecords != st.LostRecords+1 || now.LostEvents != now.LostRecords {
		t.Errorf("got %d lost records, %d events after a release, want %d of each", now.LostRecords, now.LostEvents, st.LostRecords+1)
	}
}

func TestDamage(t *testing.T) {
	const size = headerSize + 2 + 100 // of each of ten records
	for _, c := range []struct {
		name          string
		damage        func([]byte) []byte
		want          []string
		corrupt, torn int64
	}{
		{"none", func(b []byte) []byte { return b }, numbers(0, 10), 0, 0},
		{"torn payload", func(b []byte) []byte { return b[:9*size+50] }, numbers(0, 9), 0, 50},
		{"torn header", func(b []byte) []byte { return b[:9*size+3] }, numbers(0, 9), 0, 3},
		{"zeros at the end", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, numbers(0, 10), 0, 4096},
		{"flipped bit in a payload", func(b []byte) []byte { b[3*size+headerSize+9] ^= 1; return b }, append(numbers(0, 3), numbers(4, 6)...), 1, 0},
		{"flipped bit in a length", func(b []byte) []byte { b[3*size+14] ^= 1; return b }, append(numbers(0, 3), numbers(4, 6)...), 1, 0},
		{"flipped bit in the state", func(b []byte) []byte { b[3*size+stateAt] ^= 1; return b }, numbers(0, 10), 0, 0},
		{"hole over three records", func(b []byte) []byte { clear(b[2*size+5 : 4*size+5]); return b }, append(numbers(0, 2), numbers(5, 5)...), 1, 0},
		{"nothing valid", func(b []byte) []byte { return bytes.Repeat([]byte("APS\x01"), 1000) }, nil, 0, 4000},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t)
			s := open(t, cfg)
			put(t, s, 0, 10, 100)
			s.Close()
			path := filepath.Join(cfg.Dir, segmentName(0))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, cfg)
			st := s.Stats()
			if st.Corrupt != c.corrupt || st.Torn != c.torn {
				t.Errorf("got %d corrupt places, %d bytes torn; want %d, %d", st.Corrupt, st.Torn, c.corrupt, c.torn)
			}
			put(t, s, 10, 1, 100)
			if diff := cmp.Diff(append(c.want, "10"), due(t, s, all)); diff != "" {
				t.Errorf("handed out (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDamageWhileOpenIsSkipped(t *testing.T) {
	c := config(t)
	s := open(t, c)
	put(t, s, 0, 10, 100) // the first four are fresh, the others read back
	f, err := os.OpenFile(filepath.Join(c.Dir, segmentName(0)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("?"), 7*(headerSize+102)+headerSize+5); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(numbers(0, 7), numbers(8, 2)...), due(t, s, all)); diff != "" {
		t.Errorf("handed out (-want +got):\n%s", diff)
	}
	if st := s.Stats(); st.Corrupt != 1 || st.Records != 0 {
		t.Errorf("got %d corrupt, %d waiting; want 1, 0", st.Corrupt, st.Records)
	}
}

func TestOneOwner(t *testing.T) {
	c := config(t)
	first := open(t, c)
	if _, err := Open(c); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), c.Dir) {
		t.Errorf("second Open: got %v, want ErrLocked with the folder's name", err)
	}
	first.Close()
	open(t, c)
}

func TestUnconfirmedBesideTheOwner(t *testing.T) {
	c := config(t)
	s := open(t, c)
	put(t, s, 0, 100, 1000)
	due(t, s, func(i string) bool { return len(i) == 1 })
	var got []string
	for r, err := range Unconfirmed(c.Dir) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, number(&r))
	}
	if diff := cmp.Diff(numbers(10, 90), got); diff != "" {
		t.Errorf("unconfirmed (-want +got):\n%s", diff)
	}
	for _, err := range Unconfirmed(filepath.Join(c.Dir, "none")) {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a missing folder: got %v, want that it does not exist", err)
		}
	}
}

func TestAnOversizeRecordIsRefusedAndDrivesNothingOut(t *testing.T) {
	s := open(t, config(t))
	put(t, s, 0, 1, 1000)
	if err := s.Append(make([]byte, 300<<10), 1); err == nil {
		t.Error("a record larger than the spool was accepted")
	}
	if err := s.Append(make([]byte, MaxRecord+1), 1); err == nil {
		t.Error("a record above MaxRecord was accepted")
	}
	if st := s.Stats(); st.Records != 1 || st.LostRecords != 0 {
		t.Errorf("got %+v, want the one record untouched", st)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name string
		sync bool
	}{{"events", false}, {"alerts_fdatasync", true}} {
		b.Run(c.name, func(b *testing.B) {
			s := open(b, config(b, func(cfg *Config) { cfg.MaxBytes, cfg.SegmentBytes, cfg.Sync = 256<<20, 4<<20, c.sync }))
			data := payload(1, 8<<10)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if err := s.Append(data, 100); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendNextConfirm(b *testing.B) {
	for _, fresh := range []int{0, 8} {
		b.Run(fmt.Sprintf("fresh_%d", fresh), func(b *testing.B) {
			s := open(b, config(b, func(cfg *Config) { cfg.MaxBytes, cfg.SegmentBytes, cfg.Fresh = 256<<20, 4<<20, fresh }))
			data := payload(1, 8<<10)
			for b.Loop() {
				if err := s.Append(data, 100); err != nil {
					b.Fatal(err)
				}
				r, err := s.Next(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				s.Confirm(r)
			}
		})
	}
}

// BenchmarkOpen opens a spool of 256 MiB.
func BenchmarkOpen(b *testing.B) {
	c := config(b, func(cfg *Config) { cfg.MaxBytes, cfg.SegmentBytes = 256<<20, 4<<20 })
	s := open(b, c)
	for s.Stats().Bytes < 250<<20 {
		put(b, s, 0, 1000, 8<<10)
	}
	s.Close()
	for b.Loop() {
		s := open(b, c)
		s.Close()
	}
}
