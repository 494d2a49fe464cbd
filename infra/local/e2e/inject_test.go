package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pods returns the pods that have the label app=name.
func (c *cluster) pods(ctx context.Context, name string) ([]corev1.Pod, error) {
	list, err := c.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// template is what a controller makes pods of, labelled app=name.
func (c *cluster) template(name string, policy corev1.RestartPolicy, command ...string) corev1.PodTemplateSpec {
	p := c.pod("", c.container("app", 1000, nil, command...))
	p.Spec.RestartPolicy = policy
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}}, Spec: p.Spec}
}

func selects(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

// started returns nil when p has its sidecar, native, and all of its containers run or ended well.
func started(p *corev1.Pod) error {
	s, native := sidecar(p)
	switch {
	case s == nil:
		return fmt.Errorf("pod %s has no sidecar", p.Name)
	case !native:
		return fmt.Errorf("the sidecar of pod %s is not native", p.Name)
	case p.Annotations["apss.dev/status"] == "":
		return fmt.Errorf("pod %s has no status annotation", p.Name)
	}
	for _, status := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if t := status.State.Terminated; status.State.Running == nil && (t == nil || t.ExitCode != 0) {
			return fmt.Errorf("container %s of pod %s: %+v", status.Name, p.Name, status.State)
		}
	}
	if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodSucceeded {
		return fmt.Errorf("pod %s is %s: %+v", p.Name, p.Status.Phase, p.Status.Conditions)
	}
	return nil
}

// TestInjectedWorkloads runs what people run in injected namespaces: everything starts, and has its agent.
func TestInjectedWorkloads(t *testing.T) {
	w := open(t).deployWebhook(2, nil)
	c, restricted := w.target(nil), w.target(map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	one, forever := int32(1), []string{"/bin/witness", "app"}
	short := []string{"/bin/witness", "look"}
	batch, apps, core := c.client.BatchV1(), c.client.AppsV1(), c.client.CoreV1()
	for name, create := range map[string]func(context.Context) error{
		"deployment": func(ctx context.Context) error {
			_, err := apps.Deployments(c.namespace).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "deployment"}, Spec: appsv1.DeploymentSpec{
				Replicas: &one, Selector: selects("deployment"), Template: c.template("deployment", corev1.RestartPolicyAlways, forever...),
			}}, metav1.CreateOptions{})
			return err
		},
		"statefulset": func(ctx context.Context) error {
			_, err := apps.StatefulSets(c.namespace).Create(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "statefulset"}, Spec: appsv1.StatefulSetSpec{
				Replicas: &one, Selector: selects("statefulset"), Template: c.template("statefulset", corev1.RestartPolicyAlways, forever...),
			}}, metav1.CreateOptions{})
			return err
		},
		"job": func(ctx context.Context) error {
			_, err := batch.Jobs(c.namespace).Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "job"}, Spec: batchv1.JobSpec{
				Template: c.template("job", corev1.RestartPolicyNever, short...),
			}}, metav1.CreateOptions{})
			return err
		},
		"cronjob": func(ctx context.Context) error {
			_, err := batch.CronJobs(c.namespace).Create(ctx, &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "cronjob"}, Spec: batchv1.CronJobSpec{
				Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: c.template("cronjob", corev1.RestartPolicyOnFailure, short...)}},
			}}, metav1.CreateOptions{})
			return err
		},
		"init": func(ctx context.Context) error {
			p := c.template("init", corev1.RestartPolicyNever, short...)
			p.Spec.InitContainers = []corev1.Container{c.container("first", 1000, nil, short...), c.container("second", 1000, nil, short...)}
			p.Name = "init"
			_, err := core.Pods(c.namespace).Create(ctx, &corev1.Pod{ObjectMeta: p.ObjectMeta, Spec: p.Spec}, metav1.CreateOptions{})
			return err
		},
		"first": func(ctx context.Context) error {
			p := c.template("first", corev1.RestartPolicyNever, short...)
			p.Spec.InitContainers = []corev1.Container{c.container("init", 1000, nil, short...)}
			p.GenerateName, p.Annotations = "generated-", map[string]string{"apss.dev/first": "true"}
			_, err := core.Pods(c.namespace).Create(ctx, &corev1.Pod{ObjectMeta: p.ObjectMeta, Spec: p.Spec}, metav1.CreateOptions{})
			return err
		},
		"run": func(ctx context.Context) error { // as kubectl run makes it
			_, err := core.Pods(c.namespace).Create(ctx, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "run", Labels: map[string]string{"run": "run", "app": "run"}},
				Spec: corev1.PodSpec{
					Containers:    []corev1.Container{{Name: "run", Image: c.image, Command: forever}},
					RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
				},
			}, metav1.CreateOptions{})
			return err
		},
	} {
		if err := create(c.patience()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"deployment", "statefulset", "job", "init", "first", "run", "cronjob"} {
		c.await(name, func(ctx context.Context) error {
			pods, err := c.pods(ctx, name)
			if err != nil {
				return err
			}
			if len(pods) == 0 {
				return errors.New("there is no pod yet")
			}
			return started(&pods[0])
		})
	}
	// What is to end ends.
	for _, name := range []string{"job", "cronjob", "init", "first"} {
		c.await("the end of "+name, func(ctx context.Context) error {
			pods, err := c.pods(ctx, name)
			if err != nil {
				return err
			}
			if pods[0].Status.Phase != corev1.PodSucceeded {
				return fmt.Errorf("%s: %+v", pods[0].Status.Phase, pods[0].Status.ContainerStatuses)
			}
			return nil
		})
	}
	c.await("the Job to be complete", func(ctx context.Context) error {
		job, err := batch.Jobs(c.namespace).Get(ctx, "job", metav1.GetOptions{})
		if err == nil && job.Status.Succeeded != 1 {
			err = fmt.Errorf("%+v", job.Status)
		}
		return err
	})
	order := map[string]int{"init": 2, "first": 0}
	for name, want := range order {
		pods, err := c.pods(c.patience(), name)
		if err != nil || pods[0].Spec.InitContainers[want].Name != "apss-agent" {
			t.Errorf("%s: got %+v, want the agent at place %d: %v", name, pods[0].Spec.InitContainers, want, err)
		}
	}
	t.Run("restricted", func(t *testing.T) { restrictedPods(t, restricted) })
	t.Run("dry run", func(t *testing.T) { dryRuns(t, w, c) })
	t.Run("seen", func(t *testing.T) { seesTheApplication(t, c) })
}

// restrictedPods: what Pod Security admits without the agent it admits with it.
func restrictedPods(t *testing.T, c *cluster) {
	t.Helper()
	yes := true
	for name, uid := range map[string]bool{"uid": true, "no-uid": false} {
		p := c.pod(name, c.container("app", 1000, nil, "/bin/witness", "look"))
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes}
		if !uid { // admitted; the kubelet would refuse an image that says no user
			p.Spec.Containers[0].SecurityContext.RunAsUser = nil
			got, err := c.dryRun(c.patience(), p)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if s, _ := sidecar(got); s == nil || *s.SecurityContext.RunAsUser == 0 {
				t.Errorf("%s: got %+v", name, s)
			}
			continue
		}
		c.run(p)
		c.await(name, func(ctx context.Context) error {
			p, err := c.client.CoreV1().Pods(c.namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			return started(p)
		})
	}
}

// dryRuns: a dry run shows the agent, creates nothing and tells nobody.
func dryRuns(t *testing.T, w *webhook, c *cluster) {
	t.Helper()
	p, err := c.dryRun(c.patience(), c.pod("dry", c.container("app", 1000, nil, "/bin/witness", "look")))
	if err != nil {
		t.Fatal(err)
	}
	if s, native := sidecar(p); s == nil || !native {
		t.Errorf("got %+v", p.Spec)
	}
	c.run(c.pod("wet", c.container("app", 1000, nil, "/bin/witness", "look")))
	c.await("the event of a pod", func(context.Context) error {
		if !strings.Contains(w.logs(), `"pod_name":"wet"`) {
			return errors.New("not told yet")
		}
		return nil
	})
	if strings.Contains(w.logs(), `"pod_name":"dry"`) {
		t.Error("a dry run was told of")
	}
}

// seesTheApplication: the agent sees what the application does.
func seesTheApplication(t *testing.T, c *cluster) {
	t.Helper()
	c.run(c.pod("seen", c.container("app", 1000, nil, "/bin/witness", "app", c.namespace)))
	c.lines("seen", "apss-agent", func(line []byte) bool {
		return bytes.Contains(line, []byte(`"type":"process_exec"`)) && bytes.Contains(line, []byte("mark "+c.namespace)) && bytes.Contains(line, []byte(`"pod_name":"seen"`))
	})
}
