package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scale sets the number of the webhook's replicas and waits until it is so.
func (w *webhook) scale(replicas int32) {
	w.t.Helper()
	deployments := w.client.AppsV1().Deployments(w.namespace)
	w.await("a new scale", func(ctx context.Context) error {
		s, err := deployments.GetScale(ctx, webhookName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s.Spec.Replicas = replicas
		_, err = deployments.UpdateScale(ctx, webhookName, s, metav1.UpdateOptions{})
		return err
	})
	w.ready(replicas)
}

// TestWebhookKilledDuringARollout: every pod starts; who has no agent is told, and restarted where that was asked for.
func TestWebhookKilledDuringARollout(t *testing.T) {
	w := open(t).deployWebhook(2, map[string]string{"COVERAGE_RESTART": "true"})
	c := w.target(nil)
	const replicas = 6
	n, some := int32(replicas), int32(1)
	deployments := c.client.AppsV1().Deployments(c.namespace)
	template := c.template("shop", corev1.RestartPolicyAlways, "/bin/witness", "app")
	if _, err := deployments.Create(c.patience(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: appsv1.DeploymentSpec{
		Replicas: &some, Selector: selects("shop"), Template: template,
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	running := func(want int) func(context.Context) error {
		return func(ctx context.Context) error {
			d, err := deployments.Get(ctx, "shop", metav1.GetOptions{})
			if err == nil && (d.Status.ReadyReplicas != int32(want) || d.Status.UpdatedReplicas != int32(want) || d.Status.Replicas != int32(want)) {
				err = fmt.Errorf("%+v", d.Status)
			}
			return err
		}
	}
	c.await("the first pod", running(1))
	// All replicas die at once, with no time to drain, and pods are made meanwhile. One second, not none: then the pods are there
	// until their processes are gone, which could tell what the next ones are to tell.
	now := int64(1)
	w.await("the webhook's death", func(ctx context.Context) error {
		s, err := w.client.AppsV1().Deployments(w.namespace).GetScale(ctx, webhookName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s.Spec.Replicas = 0
		_, err = w.client.AppsV1().Deployments(w.namespace).UpdateScale(ctx, webhookName, s, metav1.UpdateOptions{})
		return err
	})
	pods, err := w.pods(w.patience(), webhookName)
	if err != nil {
		t.Fatal(err)
	}
	for i := range pods {
		if err := w.client.CoreV1().Pods(w.namespace).Delete(w.patience(), pods[i].Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	w.await("the end of the webhook's processes", func(ctx context.Context) error {
		pods, err := w.pods(ctx, webhookName)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d run", len(pods))
		}
		return err
	})
	c.await("a rollout", func(ctx context.Context) error {
		d, err := deployments.Get(ctx, "shop", metav1.GetOptions{})
		if err != nil {
			return err
		}
		d.Spec.Replicas = &n
		d.Spec.Template.Annotations = map[string]string{"rollout": "2"}
		_, err = deployments.Update(ctx, d, metav1.UpdateOptions{})
		return err
	})
	c.await("all pods of the rollout", running(replicas))
	list, err := c.pods(c.patience(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	without := 0
	for i := range list {
		if s, _ := sidecar(&list[i]); s == nil {
			without++
		}
	}
	t.Logf("%d of %d pods started without the agent", without, len(list))
	if without == 0 {
		t.Fatal("every pod has the agent: the webhook was not away, and nothing is proved")
	}

	w.scale(2)
	c.await("the Kubernetes Event at the ReplicaSet", func(ctx context.Context) error {
		events, err := c.client.CoreV1().Events(c.namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=ApssAgentMissing,involvedObject.kind=ReplicaSet"})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 {
			return errors.New("there is none")
		}
		t.Log(events.Items[0].Message)
		return nil
	})
	w.await("the agent_coverage event", func(context.Context) error {
		log := []byte(w.logs())
		for line := range bytes.Lines(log) {
			if bytes.Contains(line, []byte(`"type":"agent_coverage"`)) && bytes.Contains(line, []byte(`"pod_namespace":"`+c.namespace+`"`)) && bytes.Contains(line, []byte(`"workload":"Deployment/shop"`)) {
				return nil
			}
		}
		return errors.New("it was not told")
	})
	// A few evictions: one each look.
	c.await("fewer pods without the agent", func(ctx context.Context) error {
		list, err := c.pods(ctx, "shop")
		if err != nil {
			return err
		}
		with := 0
		for i := range list {
			if list[i].DeletionTimestamp == nil && started(&list[i]) == nil {
				with++
			}
		}
		if with < replicas-without+2 {
			return fmt.Errorf("%d of %d have it", with, len(list))
		}
		return nil
	})
}

// TestWhoRunsWhatIsTold: running something in a pod makes an event.
func TestWhoRunsWhatIsTold(t *testing.T) {
	w := open(t).deployWebhook(1, nil)
	c := w.target(nil)
	c.run(c.pod("shell", c.container("app", 1000, nil, "/bin/witness", "app")))
	c.await("the pod", func(ctx context.Context) error {
		p, err := c.client.CoreV1().Pods(c.namespace).Get(ctx, "shell", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return started(p)
	})
	// What follows the admission, an upgrade of the connection, is not needed.
	_ = c.client.CoreV1().RESTClient().Post().Namespace(c.namespace).Resource("pods").Name("shell").SubResource("exec").
		Param("container", "app").Param("command", "/bin/witness").Param("command", "--password=hunter2").Param("stdout", "true").Do(c.patience())
	w.await("the event of it", func(context.Context) error {
		for line := range bytes.Lines([]byte(w.logs())) {
			if bytes.Contains(line, []byte(`"type":"admission_exec"`)) && bytes.Contains(line, []byte(`"pod_name":"shell"`)) {
				t.Logf("%s", line)
				if !bytes.Contains(line, []byte(`"program":"/bin/witness"`)) || bytes.Contains(line, []byte("hunter2")) {
					t.Errorf("got %s", line)
				}
				return nil
			}
		}
		return errors.New("it was not told")
	})
}
