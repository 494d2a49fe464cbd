package e2e

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// gone waits until there are none of pods any more.
func (r *release) gone(pods []corev1.Pod) {
	r.t.Helper()
	r.await("the end of the pods that were there", func(ctx context.Context) error {
		for i := range pods {
			if p, err := r.client.CoreV1().Pods(r.namespace).Get(ctx, pods[i].Name, metav1.GetOptions{}); err == nil && p.UID == pods[i].UID {
				return fmt.Errorf("%s is still there: %+v", p.Name, p.Status)
			}
		}
		return nil
	})
}

// replaced deletes all n pods of a component at once, and waits for as many others.
func (r *release) replaced(component string, n int) {
	r.t.Helper()
	old := r.component(component, n)
	began := time.Now()
	for i := range old {
		if err := r.client.CoreV1().Pods(r.namespace).Delete(r.patience(), old[i].Name, metav1.DeleteOptions{}); err != nil {
			r.t.Fatal(err)
		}
	}
	r.gone(old)
	r.component(component, n)
	r.t.Logf("all pods of the %s were replaced in %.1f s", component, time.Since(began).Seconds())
}

// outage takes Pub/Sub away for a while.
func (in *cloud) outage() {
	in.t.Helper()
	long := during(time.Minute, 10*time.Second)
	in.happened("Pub/Sub is out of reach for %v", long)
	in.Broker.SetOutage(true)
	in.pause(long)
	in.Broker.SetOutage(false)
	in.happened("Pub/Sub is back")
}

// blinded has the intruder kill the sidecar of his pod, and waits for the next one.
func (n *numbers) blinded(m *master) {
	t := n.in.t
	t.Helper()
	since := m.caught(n.pod.Name).order(t, "blind", "")
	// What it has not sealed dies with it: what was sensed within SEAL_AFTER, and what was not looked at yet.
	n.blind("the intruder killed the agent", since.Add(-2*time.Second))
	n.in.await("the restart of the sidecar", func(ctx context.Context) error {
		p, err := n.in.client.CoreV1().Pods(n.pod.Namespace).Get(ctx, n.pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, s := range p.Status.InitContainerStatuses {
			if s.RestartCount == 0 || s.State.Running == nil {
				return fmt.Errorf("%+v", s)
			}
		}
		return started(p)
	})
}
