package process

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/event"
)

func TestRecentIsBounded(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Recent(); got != nil {
		t.Errorf("got %d programs of a sensor that does not run", len(got))
	}
	now := time.Now()
	if err := s.open(now); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i := range int32(maxRecent + 100) {
		s.remember(&entry{
			process: &event.Process{PID: i, Cmdline: "x", StartTime: now.Add(-time.Hour)}, where: &event.Container{ID: fmt.Sprint(i)},
		}, now)
	}
	s.remember(&entry{process: &event.Process{PID: 1 << 20, Exe: "/by/name"}}, now)
	// What the sensor of a busy machine sees meanwhile stands behind.
	got := s.Recent()
	if len(got) != maxRecent {
		t.Fatalf("got %d programs, want %d", len(got), maxRecent)
	}
	for i := 1; i < len(got); i++ {
		if a, b := got[i-1], got[i]; b.Container != "" && (b.PID != a.PID+1 || b.Container != fmt.Sprint(b.PID)) {
			t.Fatalf("got %d of %q after %d, want them in their order", b.PID, b.Container, a.PID)
		}
		if got[i].Exe == "/by/name" {
			t.Error("got a program of which nothing but the name is known")
		}
	}
}

func TestInhabitants(t *testing.T) {
	s, err := New(Config{Container: func(pid int32, _ uint64) (*event.Container, bool) {
		switch {
		case pid < 10:
			return nil, true
		case pid < 20:
			return &event.Container{ID: "a"}, true
		}
		return &event.Container{ID: "b"}, true
	}})
	if err != nil {
		t.Fatal(err)
	}
	for pid := int32(1); pid <= 22; pid++ {
		s.tree[pid] = &entry{process: &event.Process{PID: pid}, start: uint64(100 - pid), born: time.Now().Add(time.Minute)}
	}
	s.tree[19].gone = time.Now()
	s.tree[18].own = true
	s.tree[17].process = nil
	want := []Inhabitant{{16, "a"}, {15, "a"}, {14, "a"}, {13, "a"}, {22, "b"}, {21, "b"}, {20, "b"}}
	if diff := cmp.Diff(want, s.Inhabitants()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s.tree[5].settled {
		t.Error("a young process of no container is not asked again")
	}
	s.tree[5].born = time.Now().Add(-time.Minute)
	s.Inhabitants()
	if !s.tree[5].settled {
		t.Error("an old process of no container is asked again and again")
	}
}
