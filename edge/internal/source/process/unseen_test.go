package process

import (
	"slices"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/source/process/opens"
	"github.com/apss-sensor/apss/shared/event"
)

func opened1(path string, proved bool, at time.Time) openedAt {
	return openedAt{&opens.Open{Path: path, View: 7, Proved: proved}, at}
}

func TestUnseen(t *testing.T) {
	t0 := time.Unix(1000, 0)
	ran := func(paths ...string) (all []openedAt) {
		for _, p := range paths {
			all = append(all, opened1(p, true, t0))
		}
		return all
	}
	read := func(paths ...string) (all []openedAt) {
		for _, p := range paths {
			all = append(all, opened1(p, false, t0))
		}
		return all
	}
	for name, tt := range map[string]struct {
		opens    []openedAt
		captured []captured
		missed   uint64
		want     []string
	}{
		"all captured":                {ran("/bin/a", "/bin/b"), []captured{{exe: "/bin/b"}, {exe: "/bin/a"}}, 5, nil},
		"one of two":                  {ran("/bin/a", "/bin/a"), []captured{{exe: "/bin/a"}}, 1, []string{"/bin/a"}},
		"proved, no pid":              {ran("/bin/a"), nil, 0, []string{"/bin/a"}},
		"read, no pid":                {read("/bin/a"), nil, 0, nil},
		"static":                      {read("/bin/a"), nil, 1, []string{"/bin/a"}},
		"read by an unseen program":   {append(ran("/bin/cat"), read("/bin/a")...), nil, 1, []string{"/bin/cat"}},
		"hidden executable":           {ran("/bin/a-very-long-name-indeed"), []captured{{comm: "a-very-long-nam"}}, 0, nil},
		"another name":                {ran("/bin/a"), []captured{{comm: "b"}}, 1, []string{"/bin/a"}},
		"a script of a captured one":  {append(read("/bin/script"), ran("/bin/sh")...), []captured{{exe: "/bin/sh", script: "/bin/script"}}, 1, nil},
		"of two captured one account": {ran("/bin/a"), []captured{{exe: "/bin/a"}, {exe: "/bin/a"}}, 9, nil},
	} {
		var u unseen
		for _, c := range tt.captured {
			c.at = t0
			u.see(c)
		}
		if u.add(tt.opens, t0.Add(grace/2)) {
			t.Errorf("%s: the time has come too soon", name)
		}
		now := t0.Add(grace)
		if due := u.add(nil, now); due != (len(u.opens) > 0) {
			t.Errorf("%s: due is %t", name, due)
		}
		var got []string
		for _, o := range u.decide(tt.missed, now) {
			got = append(got, o.Path)
		}
		if !slices.Equal(got, tt.want) || len(u.opens) > 0 {
			t.Errorf("%s: got %q, %d opens left; want %q", name, got, len(u.opens), tt.want)
		}
	}
}

func TestUnseenForgets(t *testing.T) {
	t0 := time.Unix(1000, 0)
	var u unseen
	u.see(captured{exe: "/bin/a", at: t0})
	u.add([]openedAt{opened1("/bin/a", true, t0.Add(2*early))}, t0.Add(2*early))
	if len(u.opens) != 1 {
		t.Error("a program accounts for an open long after it was read")
	}
	for range 2 * maxOpens {
		u.see(captured{exe: "/bin/b", at: t0})
	}
	if len(u.captured) > maxOpens {
		t.Errorf("%d programs are kept", len(u.captured))
	}
	if u.add(nil, t0.Add(time.Hour)); len(u.captured) > 0 {
		t.Errorf("%d programs are kept for an hour", len(u.captured))
	}
}

func TestUnseenBudgetIsRecent(t *testing.T) {
	now := time.Unix(1000, 0)
	var u unseen
	for _, tt := range []struct {
		missed uint64
		want   int
	}{{5, 1}, {5, 0}, {6, 1}, {6, 0}} { // what was missed two turns ago belongs to no open of now
		u.settle(tt.missed, now)
		now = now.Add(grace)
		u.opens = []openedAt{opened1("/bin/static", false, now.Add(-grace))}
		if got := u.decide(tt.missed, now); len(got) != tt.want {
			t.Errorf("of %d missed %d opens were named, want %d", tt.missed, len(got), tt.want)
		}
	}
}

// A fixture's files are no procfs to watch through, so what was opened and read is put in.
func TestNamedByTheirOpen(t *testing.T) {
	tr := newTree(t, 10, fake{pid: 1, exe: "/init"})
	o := &opened{programs: make(map[int32]details)}
	tr.s.mechanism, tr.s.using = o, Opens
	tr.cursor(12) // 11 is gone, 12 was read before it was
	o.programs[12] = details{
		stat: stat{ppid: 1, start: 5, state: 'S', image: image{stack: 1}}, exe: "/bin/seen", cmdlineRead: true,
		cmdline: cmdline{args: []string{"seen"}, joined: "seen"},
	}
	tr.s.unseen.opens = []openedAt{opened1("/bin/gone", true, tr.now), opened1("/bin/seen", true, tr.now), opened1("/bin/read", false, tr.now)}
	tr.scan(grace/2, "exec 12 /bin/seen")
	e := tr.scan(grace, "exec 0 /bin/gone", "exit 12 /bin/seen")[0]
	if e.Process.Capture != event.CaptureName || e.Process.UID != event.UnknownID || e.Metadata["evidence"] != "loader" {
		t.Errorf("got %+v, %v", e.Process, e.Metadata)
	}
	if got := tr.s.Stats(); got.Created != 2 || got.ByName != 1 || got.MissedAtMost != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestRunWithOpens(t *testing.T) {
	o := observe(t, Opens, 10*time.Millisecond)
	const runs = 20
	parent, before, lost := int32(0), 0, uint64(0)
	seen := func() int { return o.tally(parent, "true").names - before } // others may run it too
	again := func() {
		before, lost = o.tally(-1, "true").names, o.s.Stats().Lost
		parent = spaced(t, runs, 5*time.Millisecond, "/bin/true")
	}
	again()
	// What ended unread is named after grace and a look into all processes, later on a busy machine. Where the kernel's queue
	// was full of what others open, it is done again.
	for deadline := time.Now().Add(30 * time.Second); seen() < runs; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("of %d runs %d were seen: %+v", runs, seen(), o.s.Stats())
		}
		if o.s.Stats().Lost > lost {
			again()
		}
	}
	if got := o.s.Stats(); got.Created < runs || got.Namespaces == 0 || got.Watches == 0 {
		t.Errorf("got %+v", got)
	}
}
