package certs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// A path is one that the API server takes, and differs each time.
func TestNewPath(t *testing.T) {
	path := newPath()
	segment, ok := strings.CutPrefix(path, PlainPath+"/")
	if faults := validation.IsDNS1123Subdomain(segment); !ok || len(faults) > 0 || !secretPath.MatchString(path) {
		t.Errorf("got %s: %v", path, faults)
	}
	if path == newPath() {
		t.Error("two paths are one")
	}
}

// From a version that everyone could call, to a path of our own, and on.
func TestPaths(t *testing.T) {
	begin := birth
	for _, tt := range []struct {
		name  string
		was   Paths
		w     World // Now is as much after birth as Grace says; see below
		after time.Duration
		renew bool
		// What follows: p plain, a the first secret one, b the next, n a new one, - none; and whether Since is now.
		now, next, last string
		since           bool
		publish         string
	}{
		{"fresh", Paths{}, World{}, 0, false, "n", "-", "-", true, "n"},
		{"fresh beside others", Paths{}, World{Others: true}, 0, false, "p", "n", "-", true, "p"},
		{"an upgrade", Paths{}, World{Path: PlainPath, Others: true}, 0, false, "p", "n", "-", true, "p"},
		{"a Secret that was emptied", Paths{}, World{Path: "a"}, 0, false, "a", "-", "-", true, "a"},
		{"a path that nobody made", Paths{}, World{Path: "/x"}, 0, false, "n", "-", "-", true, "n"},
		{"others are there still", Paths{PlainPath, "a", "", begin}, World{Path: PlainPath, Others: true}, 10 * pathLag, false, "p", "a", "-", false, "p"},
		{"replicas may not have read of it", Paths{PlainPath, "a", "", begin}, World{Path: PlainPath}, pathLag - 1, false, "p", "a", "-", false, "p"},
		{"others have gone", Paths{PlainPath, "a", "", begin}, World{Path: PlainPath}, pathLag, false, "a", "-", "p", true, "a"},
		{"API servers may not have", Paths{"a", "", PlainPath, begin}, World{Path: "a"}, pathLag - 1, false, "a", "-", "p", false, "a"},
		{"all have", Paths{"a", "", PlainPath, begin}, World{Path: "a"}, pathLag, false, "a", "-", "-", false, "a"},
		{"a path is old", Paths{"a", "", "", begin}, World{Path: "a"}, pathLife, false, "a", "n", "-", true, "a"},
		{"another is asked for", Paths{"a", "", "", begin}, World{Path: "a"}, time.Minute, true, "a", "n", "-", true, "a"},
		{"and follows", Paths{"a", "b", "", begin}, World{Path: "a"}, pathLag, false, "b", "-", "a", true, "b"},
		{"asked for twice", Paths{"a", "b", "", begin}, World{Path: "a"}, time.Minute, true, "a", "b", "-", false, "a"},
		{"somebody put another in", Paths{"a", "", "", begin}, World{Path: "/x"}, time.Minute, false, "a", "-", "-", false, "a"},
		{"the old version is put back", Paths{"a", "", "", begin}, World{Path: PlainPath, Others: true}, time.Minute, false, "a", "-", "-", false, "p"},
		{"it is put back, and has gone", Paths{"a", "", "", begin}, World{Path: PlainPath}, time.Minute, false, "a", "-", "-", false, "a"},
	} {
		known := map[string]string{"p": PlainPath, "-": "", "a": newPath(), "b": newPath()}
		full := func(s string) string {
			if path, ok := known[s]; ok && s != "" {
				return path
			}
			return s
		}
		w := tt.w
		w.Now, w.Grace, w.Path = begin.Add(tt.after), grace, full(w.Path)
		was := Paths{full(tt.was.Now), full(tt.was.Next), full(tt.was.Last), tt.was.Since}
		got := was.next(&w, tt.renew)
		is := func(what, path, want string) {
			t.Helper()
			if want == "n" {
				if path == was.Now || path == was.Next || !secretPath.MatchString(path) {
					t.Errorf("%s: %s is %q, want a new one", tt.name, what, path)
				}
			} else if path != known[want] {
				t.Errorf("%s: %s is %q, want %q", tt.name, what, path, known[want])
			}
		}
		is("now", got.Now, tt.now)
		is("next", got.Next, tt.next)
		is("last", got.Last, tt.last)
		is("what is published", got.publish(&w), tt.publish)
		if got.Since.Equal(w.Now) != tt.since && tt.after > 0 {
			t.Errorf("%s: since %s, want now: %t", tt.name, got.Since, tt.since)
		}
	}
}

// The path of a rotation is served before it is published, and after.
func TestAForcedRotationChangesThePath(t *testing.T) {
	c := newCluster()
	var log bytes.Buffer
	one, other := c.replica(func(s *SelfConfig) { s.Log = slog.New(slog.NewTextHandler(&log, nil)) }), c.replica(nil)
	all := func() { keep(t, one); keep(t, other) }
	all()
	first := c.path
	if !secretPath.MatchString(first) || one.Served(PlainPath) || !other.Served(first) {
		t.Fatalf("reviews are sent to %s", first)
	}
	s := c.secrets["webhook"]
	s.Rotate = "now"
	c.secrets["webhook"] = s
	all()
	if c.path != first {
		t.Error("the next path is published before replicas could read of it")
	}
	c.now = c.now.Add(pathLag)
	keep(t, one)
	second := c.path
	if second == first || !one.Served(first) || !one.Served(second) || !other.Served(second) {
		t.Errorf("%s was replaced by %s, and not both are served", first, second)
	}
	c.now = c.now.Add(pathLag)
	all()
	all()
	if one.Served(first) || other.Served(first) || !one.Served(second) {
		t.Error("the last path is served on")
	}
	for _, path := range []string{first, second} {
		if strings.Contains(log.String(), path) {
			t.Errorf("a path is in the log:\n%s", &log)
		}
	}
}

// Somebody writes another path (a rollback, a tool): it is served as soon as it is seen, which a review there hastens, and
// replaced.
func TestAPathOfOthers(t *testing.T) {
	c := newCluster()
	s := c.replica(nil)
	keep(t, s)
	ours := c.path
	c.path = PlainPath
	c.webhooks++
	if s.Served(PlainPath) || len(s.look) != 1 {
		t.Error("nobody looks after a path that is not served")
	}
	<-s.look
	if s.Served("/x"); len(s.look) != 0 {
		t.Error("who asks at no path of ours makes us look each time")
	}
	keep(t, s)
	if c.path != ours || !s.Served(PlainPath) || !s.Served(ours) {
		t.Errorf("got %s published, want %s, and both served", c.path, ours)
	}
	keep(t, s)
	if s.Served(PlainPath) {
		t.Error("the plain path is served on")
	}
}

// Where it cannot be known whether an old version runs, no review is lost for that.
func TestOthersAreNotKnown(t *testing.T) {
	c := newCluster()
	s := c.replica(func(s *SelfConfig) { s.Store = blind{c} })
	keep(t, s)
	if c.path != PlainPath || !s.Served(PlainPath) {
		t.Errorf("reviews are sent to %s", c.path)
	}
}

type blind struct{ *cluster }

func (blind) Others(context.Context) (bool, error) { return false, errors.New("forbidden") }
