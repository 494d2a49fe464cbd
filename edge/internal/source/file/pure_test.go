package file

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	base := state{kind: regular, size: 1, mtime: 1, ctime: 1, mode: 0o644, hashing: hashed, sum: [32]byte{1}, id: id{1, 1}}
	with := func(f func(*state)) state { s := base; f(&s); return s }
	tests := []struct {
		name      string
		prev, cur state
		written   bool
		want      delta
	}{
		{"same", base, base, true, 0},
		{"touched", base, with(func(s *state) { s.mtime, s.ctime = 2, 2 }), true, 0},
		{"another content", base, with(func(s *state) { s.sum[0] = 2 }), false, content},
		{"another size", base, with(func(s *state) { s.size, s.hashing = 2, deferred }), false, content},
		{"not hashed yet", base, with(func(s *state) { s.hashing = deferred }), false, undecided},
		{"not to be hashed, touched", base, with(func(s *state) { s.hashing, s.mtime = unhashed, 2 }), false, content},
		{"not to be hashed, mtime put back", base, with(func(s *state) { s.hashing, s.ctime = unhashed, 2 }), true, content},
		{"not to be hashed, inode changed", base, with(func(s *state) { s.hashing, s.ctime = unhashed, 2 }), false, 0},
		{"first hash", with(func(s *state) { s.hashing = deferred }), base, false, 0},
		{"first hash after a touch", with(func(s *state) { s.hashing, s.mtime = deferred, 0 }), base, false, content},
		{"first hash of what was being written to", with(func(s *state) { s.hashing, s.racy = unhashed, true }), base, false, content},
		{"mode", base, with(func(s *state) { s.mode = 0o4644 }), false, mode},
		{"owner", base, with(func(s *state) { s.uid = 1 }), false, owner},
		{"group and mode", base, with(func(s *state) { s.gid, s.mode = 1, 0 }), false, owner | mode},
		{"kind", base, state{kind: fifo, mode: 0o644}, false, content},
		{"symlink", state{kind: symlink, link: "a"}, state{kind: symlink, link: "b", mode: 0o777}, false, content},
		{"folder's times", state{kind: directory, mtime: 1}, state{kind: directory, mtime: 2}, true, 0},
		{"reached elsewhere", base, with(func(s *state) { s.link = "/b" }), false, content},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := compare(&test.prev, &test.cur, test.written); got != test.want {
				t.Errorf("got %b, want %b", got, test.want)
			}
		})
	}
}

func TestPair(t *testing.T) {
	st := func(ino uint64) *state { return &state{kind: regular, id: id{1, ino}, size: int64(ino)} }
	tests := []struct {
		name string
		in   []change
		want []string // operation path <from
	}{
		{"moved", []change{{path: "a", prev: st(1), moved: true}, {path: "b", cur: st(1)}}, []string{"rename b <a"}},
		{"new name first", []change{{path: "b", cur: st(1)}, {path: "a", prev: st(1), moved: true}}, []string{"rename b <a"}},
		{"inode used again", []change{{path: "a", prev: st(1)}, {path: "b", cur: st(1)}}, []string{"create b", "delete a"}},
		{"found by a scan", []change{{path: "a", prev: st(1), origin: rescan}, {path: "b", cur: st(1), origin: rescan}}, []string{"rename b <a"}},
		{"over another", []change{{path: "a", prev: st(1), moved: true}, {path: "b", prev: st(2), cur: st(1)}}, []string{"rename b <a"}},
		{"rotated", []change{{path: "a", prev: st(1), cur: st(2), moved: true}, {path: "a.1", prev: st(3), cur: st(1), moved: true}, {path: "a.2", cur: st(3)}},
			[]string{"create a", "rename a.1 <a", "rename a.2 <a.1"}},
		{"two links, one moved", []change{{path: "a", prev: st(1), moved: true}, {path: "b", prev: st(1), moved: true}, {path: "c", cur: st(1)}},
			[]string{"delete b", "rename c <a"}},
		{"exchanged", []change{{path: "a", prev: st(1), cur: st(2), moved: true}, {path: "b", prev: st(2), cur: st(1), moved: true}},
			[]string{"rename a <b", "rename b <a"}},
		{"all inodes differ", []change{
			{path: "a", prev: st(1), cur: st(2), origin: whileDown}, {path: "b", prev: st(2), cur: st(1), origin: whileDown}}, nil},
		{"silent", []change{{path: "a", cur: st(1), origin: silent}}, nil},
		{"moved on", []change{{path: "a", prev: st(1), moved: true}, {path: "b", cur: st(1)}, {path: "b", prev: st(1), moved: true}, {path: "c", cur: st(1)}},
			[]string{"rename c <a"}},
		{"moved on, and another came", []change{{path: "a", prev: st(1), moved: true}, {path: "b", cur: st(1)}, {path: "b", prev: st(1), cur: st(2), moved: true}, {path: "c", cur: st(1)}},
			[]string{"create b", "rename c <a"}},
		{"came and went", []change{{path: "b", cur: st(1)}, {path: "b", prev: st(1)}}, nil},
		{"went and came back", []change{{path: "b", prev: st(1), moved: true}, {path: "b", cur: st(1)}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for i := range test.in { // content is not what this is about
				for _, s := range []*state{test.in[i].prev, test.in[i].cur} {
					if s != nil && test.name == "all inodes differ" {
						s.size = 0
					}
				}
			}
			var got []string
			for _, c := range pair(compose(test.in)) {
				for _, e := range c.events() {
					line := e.File.Operation + " " + e.File.Path
					if from, ok := e.Metadata["renamed_from"]; ok {
						line += " <" + from.(string)
					}
					got = append(got, line)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestDeparturesFirst(t *testing.T) {
	in := []change{{path: "log", from: ""}, {path: "log.1", from: "log"}, {path: "log.2", from: "log.1"}, {path: "other"}}
	var got []string
	for _, c := range departuresFirst(in) {
		got = append(got, c.path)
	}
	if diff := cmp.Diff([]string{"log.2", "log.1", "log", "other"}, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
	round := 0
	in = []change{{path: "c", from: "a"}, {path: "b", from: "c"}, {path: "x"}, {path: "a", from: "b"}, {path: "d", from: "e"}}
	for _, c := range departuresFirst(in) {
		if c.round {
			round++
		}
		if c.round != (c.path < "d") {
			t.Errorf("%s: got a round of names %t", c.path, c.round)
		}
	}
	if round != 3 {
		t.Errorf("got %d in a round, want 3", round)
	}
}

func TestDue(t *testing.T) {
	const ms = time.Millisecond
	at := func(d time.Duration) time.Time { return time.Unix(0, 0).Add(d) }
	tests := []struct {
		name      string
		ops, last op
		seen      time.Duration // after the first
		busy      bool
		want      time.Duration
	}{
		{"delete", removed, removed, 0, false, 0},
		{"written and deleted", written | removed, removed, 5 * ms, false, 5 * ms},
		{"deleted and made again", created | removed, created, 5 * ms, false, 15 * ms},
		{"chmod", touched, touched, 0, false, 0},
		{"rename waits for the new name", movedAway, movedAway, 0, false, pairing},
		{"write after rest", written, written, 0, false, 10 * ms},
		{"write when busy", written, written, 0, true, 30 * ms},
		{"written on and on", written, written, 149 * ms, false, 150 * ms},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := hint{ops: test.ops, last: test.last, first: at(0), seen: at(test.seen)}
			if got := h.due(30*ms, test.busy); !got.Equal(at(test.want)) {
				t.Errorf("got %v, want %v", got.Sub(at(0)), test.want)
			}
		})
	}
}

func TestHintsAreBounded(t *testing.T) {
	q := newHints(30 * time.Millisecond)
	q.watched["/"] = &watch{nodes: []*node{{}}}
	b := []byte("/aaaa")
	for i := range maxHints + 1 {
		b[1], b[2], b[3], b[4] = byte('a'+i&15), byte('a'+i>>4&15), byte('a'+i>>8&15), byte('a'+i>>12&31)
		q.add(notice{string(b), written}, time.Unix(0, 0))
	}
	if lost, err := q.overflowed(); !lost || err != nil || len(q.pending) != maxHints {
		t.Errorf("got overflow %v (%v) with %d hints, want one with %d", lost, err, len(q.pending), maxHints)
	}
}

func TestResolve(t *testing.T) {
	d := t.TempDir()
	write(t, d+"/real/file", "")
	must(t,
		os.Symlink("/real", d+"/abs"), os.Symlink("../../../real/file", d+"/real/up"),
		os.Symlink("b", d+"/a"), os.Symlink("a", d+"/b"), os.Symlink("nowhere", d+"/dangling"))
	tests := []struct {
		path, place string
		err         error
		last        step
	}{
		{"/real/file", d + "/real/file", nil, step{d + "/real", "file"}},
		{"/abs/file", d + "/real/file", nil, step{d + "/real", "file"}},
		{"/abs/up", d + "/real/file", nil, step{d + "/real", "file"}},
		{"/a/x", "", errLoop, step{d, "b"}},
		{"/dangling", "", nil, step{d, "nowhere"}},
		{"/real/file/x", "", nil, step{d + "/real/file", "x"}},
		{"/no/way", "", nil, step{d, "no"}},
		{"/", d, nil, step{}},
	}
	for _, test := range tests {
		t.Run(test.path, func(t *testing.T) {
			steps, place, err := resolve(d, test.path)
			var last step
			if len(steps) > 0 {
				last = steps[len(steps)-1]
			}
			if place != test.place || !errors.Is(err, test.err) || last != test.last && test.err == nil {
				t.Errorf("got %q, last %v, %v; want %q, last %v, %v", place, last, err, test.place, test.last, test.err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	whole := appendCovers([]byte(header), []string{"/etc", "/home/*/.ssh"})
	whole = appendState(whole, "/etc/passwd", &state{kind: regular, size: 7, mtime: -1, ctime: 1 << 60, id: id{1, 2}, mode: 0o644, hashing: hashed, sum: [32]byte{1}, racy: true})
	whole = appendState(whole, "/etc/l\n\xff", &state{kind: symlink, link: "\x00"})
	whole = appendState(whole, "/etc/gone", &state{})
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte(header[:5]))
	f.Add(append(slices.Clone(whole), make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		again := []byte(header)
		n, err := decode(data,
			func(paths []string) { again = appendCovers(again, paths) },
			func(path string, st state) { again = appendState(again, path, &st) })
		if err != nil {
			return
		}
		if n > len(data) {
			t.Fatalf("%d of %d bytes are whole", n, len(data))
		}
		third := []byte(header)
		m, err := decode(again,
			func(paths []string) { third = appendCovers(third, paths) },
			func(path string, st state) { third = appendState(third, path, &st) })
		if err != nil || m != len(again) {
			t.Fatalf("what was decoded does not decode again: %v, %d of %d bytes", err, m, len(again))
		}
		if diff := cmp.Diff(again, third); diff != "" {
			t.Fatalf("what was decoded is not what is encoded:\n%s", diff)
		}
	})
}

func TestSolid(t *testing.T) {
	for place, want := range map[string]string{
		"/": "/", "/root": "/root", "/proc/1/root": "/proc/1/root/.", "/host/proc/23/root": "/host/proc/23/root/.",
		"/proc/self/root": "/proc/self/root/.", "/proc/1/root/etc": "/proc/1/root/etc", "/proc/x/root": "/proc/x/root",
		"/1/root": "/1/root", "/root/root": "/root/root", "/proc/root": "/proc/root",
	} {
		if got := solid(place); got != want {
			t.Errorf("%s: got %s, want %s", place, got, want)
		}
	}
}
