package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// policy puts the chart's policy in force for the namespaces that w injects into.
func (w *webhook) policy() {
	w.t.Helper()
	ctx, admission := w.patience(), w.client.AdmissionregistrationV1()
	set := map[string]any{
		"images": []string{w.image}, "audiences": []string{"apss-relay"},
		"least": map[string][]string{"cpu": {"5m"}, "memory": {"64Mi"}, "ephemeral-storage": {"64Mi"}},
		"env": [][]string{{"OF=another release"}, {
			"CLUSTER_NAME=e2e", "PUBLISHER=stdout", "CONTROLLER_ENDPOINT=https://apss-relay." + w.namespace + ".svc:8444", "RELAY_TOKEN_FILE=/var/run/secrets/apss/token",
			"HTTP_ADDR=:18080", "SPOOL_DIR=/var/lib/apss/spool", "STATE_DIR=/var/lib/apss/state", "HEARTBEAT_INTERVAL=2s",
		}},
	}
	for _, o := range charted(w.t, "sidecar-policy.yaml", func(kind string) runtime.Object {
		if kind == "ValidatingAdmissionPolicy" {
			return &admissionv1.ValidatingAdmissionPolicy{}
		}
		return &admissionv1.ValidatingAdmissionPolicyBinding{}
	}) {
		switch p := o.(type) {
		case *admissionv1.ValidatingAdmissionPolicy:
			p.Name = w.namespace
			for i := range p.Spec.Variables {
				v := &p.Spec.Variables[i]
				if value, ok := set[v.Name]; ok {
					b, err := json.Marshal(value)
					if err != nil {
						w.t.Fatal(err)
					}
					v.Expression = string(b)
				}
			}
			if _, err := admission.ValidatingAdmissionPolicies().Create(ctx, p, metav1.CreateOptions{}); err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), within)
				defer cancel()
				if err := admission.ValidatingAdmissionPolicies().Delete(ctx, w.namespace, metav1.DeleteOptions{}); err != nil {
					w.t.Errorf("deleting the policy: %v", err)
				}
			})
		case *admissionv1.ValidatingAdmissionPolicyBinding:
			p.Name, p.Spec.PolicyName = w.namespace, w.namespace
			p.Spec.MatchResources.NamespaceSelector.MatchLabels = map[string]string{labelTest: w.namespace}
			if _, err := admission.ValidatingAdmissionPolicyBindings().Create(ctx, p, metav1.CreateOptions{}); err != nil {
				w.t.Fatal(err)
			}
			w.t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), within)
				defer cancel()
				if err := admission.ValidatingAdmissionPolicyBindings().Delete(ctx, w.namespace, metav1.DeleteOptions{}); err != nil {
					w.t.Errorf("deleting the policy's binding: %v", err)
				}
			})
		}
	}
}

// TestPolicyRefusesFakes: what the webhook writes is admitted, and nothing that looks like it.
func TestPolicyRefusesFakes(t *testing.T) {
	w := open(t).deployWebhook(1, nil)
	w.policy()
	c := w.target(nil)
	genuine := func() *corev1.Pod { // as somebody has it who copied one
		p, err := c.dryRun(c.patience(), c.pod("copy", c.container("app", 1000, nil, "/bin/witness", "app")))
		if err != nil {
			t.Fatal(err)
		}
		p.UID, p.ResourceVersion, p.ManagedFields, p.Status = "", "", nil, corev1.PodStatus{}
		return p
	}
	own := func(p *corev1.Pod) *corev1.Container { s, _ := sidecar(p); return s }
	env := func(name, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			s := own(p)
			for i := range s.Env {
				if s.Env[i].Name == name {
					s.Env[i].Value = value
					return
				}
			}
			s.Env = append(s.Env, corev1.EnvVar{Name: name, Value: value})
		}
	}
	try := func(change func(*corev1.Pod)) error {
		p := genuine()
		change(p)
		_, err := c.dryRun(c.patience(), p)
		return err
	}
	c.await("the policy to be in force", func(context.Context) error {
		if try(func(p *corev1.Pod) { own(p).Command = []string{"/bin/witness"} }) == nil {
			return errors.New("it is not")
		}
		return nil
	})
	yes := true
	for name, change := range map[string]func(*corev1.Pod){
		"the copy of one":   func(*corev1.Pod) {},
		"a pod without one": func(p *corev1.Pod) { *p = *c.pod("own", c.container("app", 1000, nil, "/bin/witness", "app")) },
		"another resource": func(p *corev1.Pod) {
			own(p).Resources.Requests[corev1.ResourceCPU] = own(p).Resources.Limits[corev1.ResourceCPU]
		},
		"another authority":     env("RELAY_CA", "-----BEGIN CERTIFICATE-----"),
		"another authority, no": env("RELAY_CA", ""),
	} {
		if err := try(change); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tt := range map[string]struct {
		change func(*corev1.Pod)
		says   string
	}{
		"another image": {func(p *corev1.Pod) { own(p).Image = "evil:1" }, "image"},
		"a command":     {func(p *corev1.Pod) { own(p).Command = []string{"sleep"} }, "runs something else"},
		"arguments":     {func(p *corev1.Pod) { own(p).Args = []string{"-version"} }, "runs something else"},
		"a hook": {func(p *corev1.Pod) {
			own(p).Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
		}, "probed or hooked"},
		"nowhere to publish":  {env("PUBLISHER", "none"), "settings"},
		"another relay":       {env("CONTROLLER_ENDPOINT", "https://evil:1"), "settings"},
		"one more variable":   {env("GODEBUG", "x"), "settings"},
		"one variable less":   {func(p *corev1.Pod) { own(p).Env = own(p).Env[:len(own(p).Env)-2] }, "settings"},
		"a variable twice":    {func(p *corev1.Pod) { own(p).Env = append(own(p).Env, own(p).Env...) }, "settings"},
		"a variable by field": {func(p *corev1.Pod) { own(p).Env = append(own(p).Env, downward("PUBLISHER", "metadata.name")) }, "settings"},
		"another field":       {func(p *corev1.Pod) { own(p).Env[1].ValueFrom.FieldRef.FieldPath = "metadata.uid" }, "settings"},
		"privileged": {func(p *corev1.Pod) {
			own(p).SecurityContext.Privileged = &yes
			own(p).SecurityContext.AllowPrivilegeEscalation = &yes
		}, "rights"},
		"a capability": {func(p *corev1.Pod) {
			own(p).SecurityContext.Capabilities.Add = append(own(p).SecurityContext.Capabilities.Add, "SYS_ADMIN")
		}, "rights"},
		"another user": {func(p *corev1.Pod) { own(p).SecurityContext.RunAsUser = new(int64(12345)) }, "as a user"},
		"root": {func(p *corev1.Pod) {
			own(p).SecurityContext.RunAsUser, own(p).SecurityContext.RunAsNonRoot = new(int64(0)), new(bool)
		}, "as a user"},
		"its token elsewhere": {func(p *corev1.Pod) { own(p).VolumeMounts[1].MountPath = "/t" }, "elsewhere"},
		"a limit that kills it": {func(p *corev1.Pod) {
			own(p).Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")}}
		}, "too little"},
		"an empty folder for its token": {func(p *corev1.Pod) {
			volume(p, "apss-token").VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		}, "volumes"},
		"an init container": {func(p *corev1.Pod) { own(p).RestartPolicy = nil }, "ends"},
		"two": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, *own(p))
			p.Spec.Containers[1].Name = "x"
			p.Spec.Containers[1].RestartPolicy = nil
		}, "reaches into"},
		"only the volumes": {func(p *corev1.Pod) { p.Spec.InitContainers = nil }, "its volumes without it"},
		"a host's folder": {func(p *corev1.Pod) {
			volume(p, "apss-spool").VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}
		}, "volumes"},
		"another audience": {func(p *corev1.Pod) {
			volume(p, "apss-token").Projected.Sources[0].ServiceAccountToken.Audience = "vault"
		}, "volumes"},
		"the token in the app": {func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "apss-token", MountPath: "/t"})
		}, "reaches into"},
		"the app in the agent": {func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
			own(p).VolumeMounts = append(own(p).VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: "/etc"})
		}, "mounts"},
	} {
		if err := try(tt.change); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want a refusal that says %q", name, err, tt.says)
		}
	}

	// A pod that is there.
	c.run(c.pod("there", c.container("app", 1000, nil, "/bin/witness", "app")))
	pods := c.client.CoreV1().Pods(c.namespace)
	update := func(change func(*corev1.Pod), subresource ...string) (err error) {
		c.await("an update", func(ctx context.Context) error {
			p, get := pods.Get(ctx, "there", metav1.GetOptions{})
			if get != nil {
				return get
			}
			change(p)
			switch {
			case len(subresource) == 0:
				_, err = pods.Update(ctx, p, metav1.UpdateOptions{})
			case subresource[0] == "resize":
				_, err = pods.UpdateResize(ctx, "there", p, metav1.UpdateOptions{})
			default:
				_, err = pods.UpdateEphemeralContainers(ctx, "there", p, metav1.UpdateOptions{})
			}
			if err != nil && strings.Contains(err.Error(), "has been modified") {
				return err // the kubelet's status came between
			}
			return nil
		})
		return err
	}
	if err := update(func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }); err != nil {
		t.Errorf("a label: %v", err)
	}
	if err := update(func(p *corev1.Pod) { own(p).Image = "evil:1" }); err == nil || !strings.Contains(err.Error(), "image") {
		t.Errorf("another image of the agent: got %v", err)
	}
	resize := func(memory string) error {
		return update(func(p *corev1.Pod) {
			own(p).Resources.Limits[corev1.ResourceMemory] = resource.MustParse(memory)
			own(p).Resources.Requests[corev1.ResourceMemory] = resource.MustParse(memory)
		}, "resize")
	}
	if err := resize("1Mi"); err == nil || !strings.Contains(err.Error(), "too little") {
		t.Errorf("a resize of the agent that kills it: got %v", err)
	}
	debug := func(target string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug-" + target, Image: c.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"/bin/witness", "look"}},
				TargetContainerName:      target,
			})
		}
	}
	if err := update(debug("app"), "ephemeralcontainers"); err != nil {
		t.Errorf("debugging the application: %v", err)
	}
	if err := update(debug("apss-agent"), "ephemeralcontainers"); err == nil || !strings.Contains(err.Error(), "processes of apss-agent") {
		t.Errorf("debugging the agent: got %v", err)
	}
}

func volume(p *corev1.Pod, name string) *corev1.Volume {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == name {
			return &p.Spec.Volumes[i]
		}
	}
	return nil
}
