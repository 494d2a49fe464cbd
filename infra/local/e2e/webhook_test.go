package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// webhook is apss-webhook as it is deployed, in a namespace of its own. What it calls its own in the cluster (webhook
// configuration, roles) is named after that namespace, and it is called for the namespaces of target only.
type webhook struct {
	*cluster // its namespace
}

const (
	webhookName = "apss-webhook"
	// labelTest holds the namespace of the webhook that is called for a namespace.
	labelTest = "apss.dev/e2e"
)

// Its Secrets.
const (
	webhookCerts = "apss-webhook-certs"
	relayCerts   = "apss-relay-certs" // tls.crt, tls.key, ca.crt for the relay, as soon as the webhook is ready
)

// deployWebhook runs replicas of apss-webhook with these settings besides the usual ones, and waits until they are ready.
// Sidecars are our image, and print what they would send to the relay unless env says otherwise:
//
//	{"SIDECAR_ENV": "", "CONTROLLER_ENDPOINT": "https://10.96.0.7:8444"}
//
// lets them speak to a relay at that address, whose certificate is in the Secret relayCerts of the webhook's namespace.
func (c *cluster) deployWebhook(replicas int32, env map[string]string) *webhook {
	c.t.Helper()
	w := &webhook{c.other(map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})}
	name := metav1.ObjectMeta{Name: webhookName}
	ctx := w.patience()
	must := func(_ any, err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	core := w.client.CoreV1()
	must(core.ServiceAccounts(w.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: name}, metav1.CreateOptions{}))
	w.grant()
	for _, secret := range []string{webhookCerts, relayCerts} {
		must(core.Secrets(w.namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secret}}, metav1.CreateOptions{}))
	}
	labels := map[string]string{"app": webhookName}
	must(core.Services(w.namespace).Create(ctx, &corev1.Service{ObjectMeta: name, Spec: corev1.ServiceSpec{
		Selector: labels, Ports: []corev1.ServicePort{{Port: 443, TargetPort: intstr.FromInt32(8443)}},
	}}, metav1.CreateOptions{}))
	w.configure()

	settings := map[string]string{
		"SIDECAR_IMAGE": c.image, "SIDECAR_ANY_IMAGE": "true", "SIDECAR_CPU_REQUEST": "5m", "SIDECAR_ENV": "PUBLISHER=stdout;HEARTBEAT_INTERVAL=2s",
		"PUBLISHER": "stdout", "WEBHOOK_CONFIGURATION": w.namespace, "COVERAGE_INTERVAL": "10s", "DRAIN_DELAY": "3s", "CLUSTER_NAME": "e2e",
	}
	maps.Copy(settings, env)
	container := w.container(webhookName, 65532, nil, "/bin/apss-webhook")
	yes := true
	container.SecurityContext.RunAsNonRoot = &yes
	container.Env = []corev1.EnvVar{downward("POD_NAME", "metadata.name"), downward("POD_NAMESPACE", "metadata.namespace")}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		container.Env = append(container.Env, corev1.EnvVar{Name: key, Value: settings[key]})
	}
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}},
			PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 3,
		}
	}
	container.ReadinessProbe = probe("/readyz")
	p := w.pod("", container)
	grace := int64(30)
	p.Spec.RestartPolicy, p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = corev1.RestartPolicyAlways, webhookName, &yes
	p.Spec.TerminationGracePeriodSeconds = &grace
	must(w.client.AppsV1().Deployments(w.namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: name,
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: p.Spec},
		},
	}, metav1.CreateOptions{}))
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("what the webhook says:\n%s", w.logs())
		}
	})
	w.ready(replicas)
	return w
}

// logs is what all replicas that run print.
func (w *webhook) logs() string {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	pods := w.client.CoreV1().Pods(w.namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "app=" + webhookName})
	if err != nil {
		return err.Error()
	}
	var all strings.Builder
	for i := range list.Items {
		log, err := pods.GetLogs(list.Items[i].Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		fmt.Fprintf(&all, "%s\n%v\n", log, err)
	}
	return all.String()
}

// ready waits until so many replicas are.
func (w *webhook) ready(replicas int32) {
	w.t.Helper()
	w.await(fmt.Sprintf("%d replicas of the webhook", replicas), func(ctx context.Context) error {
		d, err := w.client.AppsV1().Deployments(w.namespace).Get(ctx, webhookName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s := d.Status
		if s.ObservedGeneration < d.Generation || s.UpdatedReplicas != replicas || s.ReadyReplicas != replicas || s.Replicas != replicas {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// target returns a namespace that is injected, with these labels besides, once it is: the Service's addresses and the
// namespace's labels take their time to get around.
func (w *webhook) target(labels map[string]string) *cluster {
	w.t.Helper()
	all := map[string]string{"apss.dev/inject": "enabled", labelTest: w.namespace}
	maps.Copy(all, labels)
	c := w.other(all)
	probe, yes := c.pod("probe", c.container("app", 1000, nil, "/bin/witness", "look")), true
	probe.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes} // for restricted ones
	c.await("an injected pod", func(ctx context.Context) error {
		p, err := c.dryRun(ctx, probe)
		if err != nil {
			return err
		}
		if s, _ := sidecar(p); s == nil {
			return errors.New("it was not")
		}
		return nil
	})
	return c
}

// dryRun returns what would be created.
func (c *cluster) dryRun(ctx context.Context, p *corev1.Pod) (*corev1.Pod, error) {
	return c.client.CoreV1().Pods(c.namespace).Create(ctx, p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// configure makes the webhook configuration as the chart does: it fails open, soon, and never for the system or for us.
func (w *webhook) configure() {
	w.t.Helper()
	ignore, none, ifNeeded, equivalent := admissionv1.Ignore, admissionv1.SideEffectClassNoneOnDryRun, admissionv1.IfNeededReinvocationPolicy, admissionv1.Equivalent
	seconds, namespaced := int32(3), admissionv1.NamespacedScope
	webhooks := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := webhooks.Create(w.patience(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.apss.dev", AdmissionReviewVersions: []string{"v1"}, FailurePolicy: &ignore, TimeoutSeconds: &seconds,
			SideEffects: &none, ReinvocationPolicy: &ifNeeded, MatchPolicy: &equivalent,
			ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: w.namespace, Name: webhookName}}, // the path is the webhook's to write
			Rules: []admissionv1.RuleWithOperations{
				{Operations: []admissionv1.OperationType{admissionv1.Create}, Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}, Scope: &namespaced,
				}},
				{Operations: []admissionv1.OperationType{admissionv1.Connect}, Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods/exec", "pods/attach"}, Scope: &namespaced,
				}},
			},
			NamespaceSelector: &metav1.LabelSelector{
				MatchLabels: map[string]string{labelTest: w.namespace},
				MatchExpressions: []metav1.LabelSelectorRequirement{{
					Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system", "kube-node-lease", w.namespace},
				}},
			},
			MatchConditions: []admissionv1.MatchCondition{{Name: "not-a-node", Expression: `!("system:nodes" in request.userInfo.groups)`}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := webhooks.Delete(ctx, w.namespace, metav1.DeleteOptions{}); err != nil {
			w.t.Errorf("deleting the webhook configuration: %v", err)
		}
	})
}

// charted are the manifests in a file of the chart, as objects of one type each.
func charted(t *testing.T, file string, into func(kind string) runtime.Object) []runtime.Object {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "helm", "apss", "files", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []runtime.Object
	documents := yaml.NewYAMLOrJSONDecoder(f, 4096)
	for {
		var raw runtime.RawExtension
		err := documents.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(raw.Raw, &kind); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		o := into(kind.Kind)
		if err := yaml.UnmarshalStrict(raw.Raw, o); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, o)
	}
}

// grant gives the webhook the chart's roles: what it does here is what these allow.
func (w *webhook) grant() {
	w.t.Helper()
	ctx, rbac := w.patience(), w.client.RbacV1()
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: webhookName, Namespace: w.namespace}}
	var errs []error
	for _, o := range charted(w.t, "webhook-rbac.yaml", func(kind string) runtime.Object {
		if kind == "Role" {
			return &rbacv1.Role{}
		}
		return &rbacv1.ClusterRole{}
	}) {
		switch role := o.(type) {
		case *rbacv1.Role:
			role.Namespace = w.namespace
			_, err1 := rbac.Roles(w.namespace).Create(ctx, role, metav1.CreateOptions{})
			_, err2 := rbac.RoleBindings(w.namespace).Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: role.Name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name}, Subjects: subjects,
			}, metav1.CreateOptions{})
			errs = append(errs, err1, err2)
		case *rbacv1.ClusterRole:
			role.Name = strings.Replace(role.Name, webhookName, w.namespace, 1)
			for i := range role.Rules {
				for j, name := range role.Rules[i].ResourceNames {
					role.Rules[i].ResourceNames[j] = strings.Replace(name, webhookName, w.namespace, 1)
				}
			}
			_, err1 := rbac.ClusterRoles().Create(ctx, role, metav1.CreateOptions{})
			_, err2 := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: role.Name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name}, Subjects: subjects,
			}, metav1.CreateOptions{})
			errs = append(errs, err1, err2)
			w.t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), within)
				defer cancel()
				if err := errors.Join(rbac.ClusterRoleBindings().Delete(ctx, role.Name, metav1.DeleteOptions{}),
					rbac.ClusterRoles().Delete(ctx, role.Name, metav1.DeleteOptions{})); err != nil && !apierrors.IsNotFound(err) {
					w.t.Errorf("deleting roles: %v", err)
				}
			})
		}
	}
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
}

// sidecar returns the agent's container in a pod, and whether it is a native one; nil when there is none.
func sidecar(p *corev1.Pod) (c *corev1.Container, native bool) {
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.Name == "apss-agent" {
			return c, c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}
	}
	for i := range p.Spec.Containers {
		if c := &p.Spec.Containers[i]; c.Name == "apss-agent" {
			return c, false
		}
	}
	return nil, false
}
