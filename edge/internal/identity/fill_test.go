package identity_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/edge/internal/identity"
	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/shared/event"
)

var appID = strings.Repeat("a1", 32)

// named is the identity of a node that knows one container.
func named() identity.Identity {
	d := pods.NewOwn(pods.Own{
		Name: "web-1", Namespace: "shop", UID: "uid", Workload: "StatefulSet/web", Images: map[string]string{"app": "app:v1"},
	}, slog.New(slog.DiscardHandler))
	d.Seen(cgroup.Container{ID: appID, PodUID: "uid", Name: "app"})
	i := identity.New("", "c", "n", "", "", "h")
	i.Containers = d
	return i
}

func TestFillNamesContainer(t *testing.T) {
	i := named()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	known := &event.Container{ID: appID, Name: "app", Image: "app:v1"}
	base := event.Event{ID: "id", Timestamp: at, AgentID: "c/n", Cluster: "c", NodeName: "n"}
	for _, tt := range []struct {
		name       string
		give, want func(*event.Event)
	}{
		{"id alone", func(e *event.Event) { e.Container = &event.Container{ID: appID} },
			func(e *event.Event) {
				e.Container, e.PodName, e.PodNamespace, e.Workload = known, "web-1", "shop", "StatefulSet/web"
			}},
		{"its name is known", func(e *event.Event) { e.Container = &event.Container{ID: appID, Name: "app"} },
			func(e *event.Event) {
				e.Container, e.PodName, e.PodNamespace, e.Workload = known, "web-1", "shop", "StatefulSet/web"
			}},
		{"its image is known", func(e *event.Event) { e.Container = &event.Container{ID: appID, Image: "mine"} },
			func(e *event.Event) {
				e.Container = &event.Container{ID: appID, Name: "app", Image: "mine"}
				e.PodName, e.PodNamespace, e.Workload = "web-1", "shop", "StatefulSet/web"
			}},
		{"another name: not its image", func(e *event.Event) { e.Container = &event.Container{ID: appID, Name: "x"} },
			func(e *event.Event) {
				e.Container = &event.Container{ID: appID, Name: "x"}
				e.PodName, e.PodNamespace, e.Workload = "web-1", "shop", "StatefulSet/web"
			}},
		{"another pod: not its workload", func(e *event.Event) {
			e.Container, e.PodName, e.PodNamespace = &event.Container{ID: appID}, "p", "q"
		}, func(e *event.Event) { e.Container, e.PodName, e.PodNamespace = known, "p", "q" }},
		{"its workload is known", func(e *event.Event) { e.Container, e.Workload = &event.Container{ID: appID}, "Job/x" },
			func(e *event.Event) {
				e.Container, e.PodName, e.PodNamespace, e.Workload = known, "web-1", "shop", "Job/x"
			}},
		{"not known", func(e *event.Event) { e.Container = &event.Container{ID: "b"} },
			func(e *event.Event) { e.Container = &event.Container{ID: "b"} }},
		{"no id", func(e *event.Event) { e.Container = &event.Container{} },
			func(e *event.Event) { e.Container = &event.Container{} }},
		{"no container", func(*event.Event) {}, func(*event.Event) {}},
	} {
		got, want := event.Event{ID: "id", Timestamp: at}, base
		tt.give(&got)
		tt.want(&want)
		given := got.Container
		var before event.Container
		if given != nil {
			before = *given
		}
		i.Fill(&got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if given != nil && cmp.Diff(before, *given) != "" {
			t.Errorf("%s: the container that was given was changed: the sensor may share it", tt.name)
		}
	}
}

// Without a directory, and for what the directory does not know, a sidecar's events are its pod's.
func TestFillOfSidecar(t *testing.T) {
	i := identity.New("", "c", "n", "web-1", "shop", "h")
	i.Workload = "StatefulSet/web"
	e := event.Event{Container: &event.Container{ID: appID}}
	i.Fill(&e)
	if e.PodName != "web-1" || e.PodNamespace != "shop" || e.Workload != "StatefulSet/web" || e.Container.Name != "" {
		t.Errorf("got %+v", e)
	}
	a := event.Alert{PodName: "web-1", PodNamespace: "shop"}
	i.FillAlert(&a)
	if a.Workload != "StatefulSet/web" {
		t.Errorf("alert of our pod: got workload %q", a.Workload)
	}
	a = event.Alert{PodName: "db-1", PodNamespace: "shop"}
	i.FillAlert(&a)
	if a.Workload != "" {
		t.Errorf("alert of another pod: got workload %q", a.Workload)
	}
}

func TestHostIsNode(t *testing.T) {
	for _, tt := range []struct{ node, pod, want string }{{"", "", "h"}, {"n", "", "n"}, {"", "p", ""}, {"n", "p", "n"}} {
		if got := identity.New("", "c", tt.node, tt.pod, "", "h").Node; got != tt.want {
			t.Errorf("node %q, pod %q: got node %q, want %q", tt.node, tt.pod, got, tt.want)
		}
	}
}

func TestFillDoesNotAllocate(t *testing.T) {
	i := named()
	c := &event.Container{ID: appID}
	at := time.Now()
	e := new(event.Event)
	if got := testing.AllocsPerRun(100, func() {
		*e = event.Event{ID: "id", Timestamp: at, Container: c}
		i.Fill(e)
	}); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}

func BenchmarkFill(b *testing.B) {
	i := named()
	c := &event.Container{ID: appID}
	at := time.Now()
	var e event.Event
	b.ReportAllocs()
	for b.Loop() {
		e = event.Event{ID: "id", Timestamp: at, Container: c}
		i.Fill(&e)
	}
}
