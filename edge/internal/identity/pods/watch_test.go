package pods_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/edge/internal/identity/cgroup"
	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/shared/event"
)

// cluster runs test with an API server and the directory of node-1 that watches it. Time is the test's.
func cluster(t *testing.T, before func(*apiServer), test func(*apiServer, *pods.Directory, *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := newAPIServer(t)
		if before != nil {
			before(a)
		}
		var logged bytes.Buffer
		d := pods.New(pods.Config{Node: "node-1", API: a.config(), Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		synctest.Wait()
		test(a, d, &logged)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: got %v", err)
		}
	})
}

func id(n int) string { return fmt.Sprintf("%064x", n) }

// app is a pod of a Deployment on node-1, whose containers run with these ids, empty: not created yet.
func app(name string, ids ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name + "-7c9d8f6b5d-x2k4j", Namespace: "shop", UID: types.UID("uid-" + name),
			Labels:          map[string]string{"app": name, "pod-template-hash": "7c9d8f6b5d"},
			Annotations:     map[string]string{"large": strings.Repeat("x", 1000)},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: name + "-7c9d8f6b5d", Controller: new(true)}},
		},
		Spec: corev1.PodSpec{NodeName: "node-1"},
	}
	for i, id := range ids {
		n := fmt.Sprintf("c%d", i)
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: "registry.test/" + n + ":v1"})
		s := corev1.ContainerStatus{Name: n, Image: "sha256:0123"}
		if id != "" {
			s.ContainerID = "containerd://" + id
		}
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, s)
	}
	return p
}

// named is what app's i-th container is called.
func named(name string, i int, id string) *pods.Container {
	n := fmt.Sprintf("c%d", i)
	return &pods.Container{
		Container: event.Container{ID: id, Name: n, Image: "registry.test/" + n + ":v1"},
		Pod:       name + "-7c9d8f6b5d-x2k4j", Namespace: "shop", Workload: "Deployment/" + name,
	}
}

func check(t *testing.T, d *pods.Directory, what, id string, want *pods.Container) {
	t.Helper()
	if diff := cmp.Diff(want, d.Lookup(id)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func checkState(t *testing.T, d *pods.Directory, state pods.State, reason string) {
	t.Helper()
	if s := d.Status(); s.State != state || !strings.HasPrefix(s.Reason, reason) || (reason == "") != (s.Reason == "") {
		t.Errorf("got state %q, reason %q, want %q, %q", s.State, s.Reason, state, reason)
	}
}

// Every kind of container is named the same on both wires, streamed or listed, and no other node's.
func TestFirstList(t *testing.T) {
	full := app("full", id(1), id(2), "")
	full.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "registry.test/init:v1"}}
	full.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", ContainerID: "cri-o://" + id(3)}}
	full.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}}}
	full.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debug", ContainerID: "docker://" + id(4)}}
	full.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "containerd://" + id(5)}
	elsewhere := app("elsewhere", id(6))
	elsewhere.Spec.NodeName = "node-2"
	other := func(name, image, id string) *pods.Container {
		c := named("full", 0, id)
		c.Name, c.Image = name, image
		return c
	}
	for _, wire := range []string{typeProtobuf, typeJSON} {
		for _, listed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s listed=%v", wire, listed), func(t *testing.T) {
				cluster(t, func(a *apiServer) {
					a.wire, a.noStreams = wire, listed
					a.set(full)
					a.set(elsewhere)
				}, func(a *apiServer, d *pods.Directory, _ *bytes.Buffer) {
					checkState(t, d, pods.StateWatching, "")
					check(t, d, "a container", id(1), named("full", 0, id(1)))
					check(t, d, "the second", id(2), named("full", 1, id(2)))
					check(t, d, "an init container", id(3), other("init", "registry.test/init:v1", id(3)))
					check(t, d, "an ephemeral container", id(4), other("debug", "busybox", id(4)))
					check(t, d, "before its restart", id(5), named("full", 0, id(5)))
					check(t, d, "another node's", id(6), nil)
					want := []string{"watch 200"}
					if listed {
						want = []string{"watch 422", "list 200", "watch 200"}
					}
					if diff := cmp.Diff(want, a.served()); diff != "" {
						t.Errorf("requests (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(pods.Status{State: pods.StateWatching, Pods: 1, Containers: 5, Unnamed: 1}, d.Status()); diff != "" {
						t.Errorf("status (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

func TestWatch(t *testing.T) {
	cluster(t, nil, func(a *apiServer, d *pods.Directory, _ *bytes.Buffer) {
		checkState(t, d, pods.StateWatching, "")
		a.set(app("web", ""))
		synctest.Wait()
		check(t, d, "before its id is published", id(1), nil)
		a.set(app("web", id(1)))
		synctest.Wait()
		check(t, d, "running", id(1), named("web", 0, id(1)))
		before := d.Lookup(id(1))
		ready := app("web", id(1))
		ready.Status.Phase = corev1.PodRunning
		a.set(ready)
		synctest.Wait()
		if d.Lookup(id(1)) != before {
			t.Error("news that are not about names made new ones")
		}
		a.set(app("web", id(2)))
		synctest.Wait()
		check(t, d, "restarted", id(2), named("web", 0, id(2)))
		check(t, d, "the run before", id(1), named("web", 0, id(1)))
		time.Sleep(5 * time.Minute)
		a.delete(app("web", id(2)))
		synctest.Wait()
		a.set(app("web", id(2)))
		synctest.Wait()
		if s := d.Status(); s.Containers != 1 || s.Gone != 1 {
			t.Errorf("it is back: got status %+v, want one container and one gone", s)
		}
		a.delete(app("web", id(2)))
		synctest.Wait()
		check(t, d, "deleted", id(2), named("web", 0, id(2)))
		if s := d.Status(); s.Pods != 0 || s.Containers != 0 || s.Gone != 2 {
			t.Errorf("got status %+v, want two gone", s)
		}
		time.Sleep(7 * time.Minute)
		synctest.Wait()
		check(t, d, "10 minutes after its restart", id(1), nil)
		check(t, d, "7 minutes after its end", id(2), named("web", 0, id(2)))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		check(t, d, "10 minutes after its end", id(2), nil)
	})
}

// A watch that ends is taken up again where it was; one that cannot be is a new list, which tells what vanished.
func TestEndOfWatch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		forget int // changes the parity of the forgotten version: 410 as an answer, or as an event
		listed bool
	}{{"taken up", 0, false}, {"gone", 1, false}, {"gone", 2, false}, {"gone, listed", 1, true}, {"gone, listed", 2, true}} {
		t.Run(fmt.Sprintf("%s %d", tt.name, tt.forget), func(t *testing.T) {
			cluster(t, func(a *apiServer) {
				a.noStreams = tt.listed
				a.set(app("old", id(1)))
				if tt.forget == 2 {
					a.set(app("older", id(9)))
				}
			}, func(a *apiServer, d *pods.Directory, _ *bytes.Buffer) {
				a.served()
				a.listener.setDown(true)
				a.endWatches()
				synctest.Wait()
				a.delete(app("old", id(1)))
				a.set(app("new", id(2)))
				if tt.forget > 0 {
					a.forget()
				}
				a.listener.setDown(false)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				check(t, d, "what came", id(2), named("new", 0, id(2)))
				check(t, d, "what went", id(1), named("old", 0, id(1)))
				if s := d.Status(); s.State != pods.StateWatching || s.Gone != 1 {
					t.Errorf("got %+v after requests %v, want it watching and one gone", s, a.served())
				}
			})
		})
	}
}

func TestForbidden(t *testing.T) {
	code := 403
	cluster(t, func(a *apiServer) {
		a.set(app("web", id(1)))
		a.refuse = func(string) int { return code }
	}, func(a *apiServer, d *pods.Directory, logged *bytes.Buffer) {
		checkState(t, d, pods.StateFailing, "Forbidden: ")
		check(t, d, "without access", id(1), nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(a.served()); n < 20 || n > 100 { // a stream and a list, after 30 to 60 s, sooner at first
			t.Errorf("got %d requests in 10 minutes, want some and few", n)
		}
		a.with(func() { code = 0 })
		time.Sleep(time.Minute)
		synctest.Wait()
		checkState(t, d, pods.StateWatching, "")
		check(t, d, "once it was granted", id(1), named("web", 0, id(1)))
		if got := strings.Count(logged.String(), "\n"); got != 2 || !strings.Contains(logged.String(), "Forbidden") {
			t.Errorf("got log\n%s\nwant one line of the trouble and one of its end", logged)
		}
	})
}

// With the right to list alone, names come with every attempt, and the state says what is missing.
func TestWatchForbidden(t *testing.T) {
	cluster(t, func(a *apiServer) {
		a.set(app("web", id(1)))
		a.refuse = func(verb string) int { return map[string]int{"watch": 403}[verb] }
	}, func(_ *apiServer, d *pods.Directory, _ *bytes.Buffer) {
		checkState(t, d, pods.StateFailing, "Forbidden: ")
		check(t, d, "from the list", id(1), named("web", 0, id(1)))
	})
}

func TestAPIServerAway(t *testing.T) {
	cluster(t, func(a *apiServer) { a.set(app("web", id(1))) },
		func(a *apiServer, d *pods.Directory, _ *bytes.Buffer) {
			a.listener.setDown(true)
			a.endWatches()
			time.Sleep(time.Hour)
			synctest.Wait()
			s := d.Status()
			if s.State != pods.StateFailing || !strings.Contains(s.Reason, "connection refused") {
				t.Errorf("got state %q, reason %q, want it failing for a refused connection", s.State, s.Reason)
			}
			check(t, d, "what was known", id(1), named("web", 0, id(1)))
			a.set(app("new", id(2)))
			a.listener.setDown(false)
			time.Sleep(time.Minute)
			synctest.Wait()
			checkState(t, d, pods.StateWatching, "")
			check(t, d, "what came meanwhile", id(2), named("new", 0, id(2)))
		})
}

func TestOff(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, tt := range []struct {
		name string
		c    pods.Config
		want string
	}{
		{"no node", pods.Config{API: &rest.Config{Host: "http://api.test"}}, "NODE_NAME is not set"},
		{"no cluster", pods.Config{Node: "node-1"}, "not in a cluster"},
		{"no way", pods.Config{Node: "node-1", API: &rest.Config{Host: "://"}}, "reaching the API server"},
	} {
		tt.c.Logger = slog.New(slog.DiscardHandler)
		d := pods.New(tt.c)
		checkState(t, d, pods.StateOff, tt.want)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Run(ctx); err != nil {
			t.Errorf("%s: Run: got %v", tt.name, err)
		}
		check(t, d, tt.name, id(1), nil)
	}
}

// What the kernel shows is named by its pod before the kubelet publishes the id.
func TestSeen(t *testing.T) {
	static := app("proxy", id(9))
	static.OwnerReferences = []metav1.OwnerReference{{Kind: "Node", Name: "node-1", Controller: new(true)}}
	static.Annotations = map[string]string{"kubernetes.io/config.mirror": "hash"}
	cluster(t, func(a *apiServer) {
		a.set(app("web", ""))
		a.set(static)
	}, func(a *apiServer, d *pods.Directory, _ *bytes.Buffer) {
		podOnly := named("web", 0, id(1))
		podOnly.Name, podOnly.Image = "", ""
		d.Seen(cgroup.Container{ID: id(1), PodUID: "uid-web"})
		check(t, d, "only its pod is known", id(1), podOnly)
		d.Seen(cgroup.Container{ID: id(1), PodUID: "uid-web", Name: "c0"})
		check(t, d, "its name came", id(1), named("web", 0, id(1)))
		d.Seen(cgroup.Container{ID: id(8), PodUID: "hash"})
		if got := d.Lookup(id(8)); got == nil || got.Workload != "Pod/proxy-7c9d8f6b5d-x2k4j" {
			t.Errorf("static pod: got %+v", got)
		}
		d.Seen(cgroup.Container{ID: id(9), PodUID: "hash"})
		if s := d.Status(); s.Containers != 1 || s.Seen != 2 {
			t.Errorf("got %+v, want what a status names not seen", s)
		}

		d.Seen(cgroup.Container{ID: id(7)})
		check(t, d, "no pod at all", id(7), nil)
		d.Seen(cgroup.Container{ID: id(2), PodUID: "uid-late", Name: "c0"})
		check(t, d, "its pod is not known", id(2), nil)
		a.set(app("late", ""))
		synctest.Wait()
		check(t, d, "its pod came", id(2), named("late", 0, id(2)))
		a.set(app("late", id(2)))
		synctest.Wait()
		check(t, d, "published", id(2), named("late", 0, id(2)))
		if s := d.Status(); s.Containers != 2 || s.Seen != 2 {
			t.Errorf("got %+v, want it no more seen", s)
		}

		time.Sleep(time.Hour)
		check(t, d, "a pod's sandbox is never published", id(1), named("web", 0, id(1)))
		a.delete(app("web"))
		synctest.Wait()
		check(t, d, "its pod is gone", id(1), named("web", 0, id(1)))
		time.Sleep(12 * time.Minute)
		check(t, d, "for long", id(1), nil)
	})
}

func TestSeenIsBounded(t *testing.T) {
	d := pods.NewOwn(pods.Own{Name: "p", Namespace: "ns", UID: "uid"}, slog.New(slog.DiscardHandler))
	d.Seen(cgroup.Container{PodUID: "uid"})
	const room, more = 4096, 10
	for i := range room + more {
		d.Seen(cgroup.Container{ID: id(i), PodUID: "another"})
	}
	if got := d.Status().Refused; got != more {
		t.Errorf("got %d refused, want %d", got, more)
	}
}

func TestOwn(t *testing.T) {
	o := pods.Own{Name: "web-1", Namespace: "shop", UID: "uid", Workload: "StatefulSet/web", Images: map[string]string{"app": "registry.test/app:v1"}}
	want := func(n int, name, image string) *pods.Container {
		return &pods.Container{Container: event.Container{ID: id(n), Name: name, Image: image}, Pod: "web-1", Namespace: "shop", Workload: "StatefulSet/web"}
	}
	d := pods.NewOwn(o, slog.New(slog.DiscardHandler))
	d.Seen(cgroup.Container{ID: id(1), PodUID: "uid", Name: "app"})
	d.Seen(cgroup.Container{ID: id(2), Name: "sidecar"})
	d.Seen(cgroup.Container{ID: id(3), PodUID: "another", Name: "app"})
	check(t, d, "a container", id(1), want(1, "app", "registry.test/app:v1"))
	check(t, d, "its pod is hidden", id(2), want(2, "sidecar", ""))
	check(t, d, "not ours", id(3), nil)
	checkState(t, d, pods.StateOwn, "a sidecar")

	o.UID = ""
	d = pods.NewOwn(o, slog.New(slog.DiscardHandler))
	d.Seen(cgroup.Container{ID: id(3), PodUID: "whatever", Name: "app"})
	check(t, d, "our uid is not known", id(3), want(3, "app", "registry.test/app:v1"))
}
