package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/shared/event"
)

// TestSidecarsThroughTheRelay runs a relay and Pub/Sub, two pods with the agent beside their application, one of which says
// to be another, and speaks to the relay itself with tokens good and bad.
func TestSidecarsThroughTheRelay(t *testing.T) {
	c := open(t)
	w := c.startRelay()
	mark := c.namespace
	c.run(w.sidecar("honest", mark))
	c.run(w.sidecar("liar", mark+"-lie", corev1.EnvVar{Name: "POD_NAME", Value: "victim"}, corev1.EnvVar{Name: "POD_NAMESPACE", Value: "bank"}))
	node := ""
	c.await("the honest pod", func(ctx context.Context) error {
		p, err := c.client.CoreV1().Pods(c.namespace).Get(ctx, "honest", metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("%s %+v", p.Status.Phase, p.Status.InitContainerStatuses)
		}
		if err == nil {
			node = p.Spec.NodeName
		}
		return err
	})
	marked := func(e *event.Event, mark string) bool {
		return e.Type == event.ProcessExec && e.Process != nil && strings.HasSuffix(e.Process.Cmdline, "mark "+mark)
	}
	attested := func(what string, e *event.Event, pod string) {
		t.Helper()
		t.Logf("%s: %s of %s/%s on %s", what, e.Type, e.PodNamespace, e.PodName, e.NodeName)
		if e.PodName != pod || e.PodNamespace != c.namespace || e.NodeName != node || e.AgentID != "e2e/"+pod {
			t.Errorf("%s is of %s/%s on %q by %s, want %s/%s on %q", what, e.PodNamespace, e.PodName, e.NodeName, e.AgentID, c.namespace, pod, node)
		}
	}
	attested("the application's program", w.event("the honest pod's exec", func(e *event.Event) bool { return marked(e, mark) }), "honest")
	attested("the application's file", w.event("the honest pod's file", func(e *event.Event) bool {
		return e.File != nil && e.File.Path == "/data/honest" && e.Type != event.FileRead
	}), "honest")
	attested("the liar's program", w.event("the liar's exec", func(e *event.Event) bool { return marked(e, mark+"-lie") }), "liar")
	conflict := w.event("the conflict", func(e *event.Event) bool { return e.Type == event.AgentIdentityConflict })
	if claimed, _ := conflict.Metadata["claimed"].(map[string]any); conflict.PodName != "liar" || claimed["pod_name"] != "victim" || claimed["pod_namespace"] != "bank" {
		t.Errorf("got a conflict of %s about %v, want the liar's about its claim to be bank/victim", conflict.PodName, conflict.Metadata)
	}

	t.Run("tokens", func(t *testing.T) { w.tokens(t) })
	t.Run("restart", func(t *testing.T) { w.restart(t) })
	since := time.Now()
	attested("after the restart", w.event("an exec after the restart", func(e *event.Event) bool {
		return marked(e, mark) && e.Timestamp.After(since)
	}), "honest")
}

// sidecar is a pod as the webhook makes them: a native sidecar with the application's user and a token for the relay.
func (w *world) sidecar(name, mark string, lies ...corev1.EnvVar) *corev1.Pod {
	life, always, yes := int64(3600), corev1.ContainerRestartPolicyAlways, true
	app := w.container("app", 1000, nil, "/bin/witness", "app", mark, "/data/"+name)
	app.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	agent := w.container("apss-agent", 1000, nil, "/bin/apss-agent")
	agent.RestartPolicy = &always
	agent.VolumeMounts = []corev1.VolumeMount{
		{Name: "data", MountPath: "/data", ReadOnly: true}, {Name: "apss-spool", MountPath: "/var/lib/apss"},
		{Name: "apss-token", MountPath: "/var/run/secrets/apss", ReadOnly: true},
	}
	agent.Env = append([]corev1.EnvVar{
		downward("POD_NAME", "metadata.name"), downward("POD_NAMESPACE", "metadata.namespace"), downward("POD_UID", "metadata.uid"),
		downward("NODE_NAME", "spec.nodeName"),
		{Name: "CLUSTER_NAME", Value: "e2e"}, {Name: "PUBLISHER", Value: "relay"}, {Name: "CONTROLLER_ENDPOINT", Value: w.url},
		{Name: "RELAY_CA", Value: w.ca}, {Name: "RELAY_TOKEN_FILE", Value: "/var/run/secrets/apss/token"}, {Name: "WATCH_PATHS", Value: "/data"},
	}, lies...)
	pod := w.pod(name, app)
	pod.Spec.ShareProcessNamespace = &yes
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(1000))}
	pod.Spec.InitContainers = []corev1.Container{agent}
	empty := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: empty}, {Name: "apss-spool", VolumeSource: empty},
		{Name: "apss-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "apss-relay", ExpirationSeconds: &life, Path: "token"},
		}}}}},
	}
	return pod
}

// restart replaces the relay's pod while events come in, and looks for each that it answered with 200 at Pub/Sub.
func (w *world) restart(t *testing.T) {
	t.Helper()
	token := w.token(t, "honest", "apss-relay")
	var (
		accepted sync.Map
		sum      atomic.Int64
		refused  atomic.Int64
		senders  sync.WaitGroup
	)
	ctx, stop := context.WithCancel(w.patience())
	for range 8 {
		senders.Go(func() {
			for ctx.Err() == nil {
				e := oneEvent()
				for ctx.Err() == nil {
					status, _, err := w.post(w.t.Context(), token, e)
					if err == nil && status == http.StatusOK {
						accepted.Store(e.ID, true)
						sum.Add(1)
						break
					}
					refused.Add(1)
					select { // as an agent does
					case <-time.After(200 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	some := func(more int64) {
		want := sum.Load() + more
		w.await("events through the relay", func(context.Context) error {
			if n := sum.Load(); n < want {
				return fmt.Errorf("%d of %d", n, want)
			}
			return nil
		})
	}
	some(50)
	if err := w.client.CoreV1().Pods(w.namespace).DeleteCollection(w.patience(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=" + labelRelay}); err != nil {
		t.Fatal(err)
	}
	some(50)
	w.ready()
	some(50)
	stop()
	senders.Wait()
	w.mu.Lock()
	for _, e := range w.events {
		accepted.Delete(e.ID)
	}
	w.mu.Unlock()
	lost := 0
	accepted.Range(func(any, any) bool { lost++; return true })
	t.Logf("%d events accepted, %d tries failed during the restart, %d lost", sum.Load(), refused.Load(), lost)
	if lost > 0 {
		t.Errorf("%d of %d events were answered with 200 and are not at Pub/Sub", lost, sum.Load())
	}
}
