package file

import (
	"testing"
	"time"
)

func TestNameLinks(t *testing.T) {
	v := newView(Root{Path: "/"}, id{})
	s := &Sensor{top: v.top, views: []*view{v}}
	add := func(path string, ino uint64, links uint32) *state {
		n := s.top.addPath(path)
		n.state = state{kind: regular, id: id{1, ino}, nlink: links}
		return &n.state
	}
	a := add("/a", 1, 2)
	add("/d/b", 1, 1) // not looked at since the link was made
	add("/c", 2, 1)
	changes := []change{{path: "/a", cur: a}, {path: "/c", cur: add("/c", 2, 1)}, {path: "/gone", prev: a}}
	s.nameLinks(changes)
	if got := changes[0].names; len(got) != 1 || got[0] != "/d/b" {
		t.Errorf("got names %q, want /d/b", got)
	}
	if changes[1].names != nil || changes[2].names != nil {
		t.Errorf("got names %q, %q for what has no other", changes[1].names, changes[2].names)
	}
	s.linksAt = time.Now().Add(time.Hour)
	changes[0].names = nil
	if s.nameLinks(changes); changes[0].names != nil {
		t.Error("the baseline was searched beyond the bound")
	}
}
