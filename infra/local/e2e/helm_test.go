package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/shared/event"
)

// deeds is how many the application is made to do, once a second.
const deeds = 10

// TestChartSidecars installs the chart as on Autopilot, and goes with it from the first event to the last object.
func TestChartSidecars(t *testing.T) {
	c := open(t)
	in := c.inbox()
	// The tests' other namespaces are not ours: their pods are injected and judged as their tests want it.
	r := c.release("mode=sidecar", "pubsubEmulator="+in.addr, "relay.clusterIP="+c.freeAddress(), "sidecar.excluded={apss-e2e-*}",
		"agent.env.ALERT_WINDOW=0s", "webhook.env.COVERAGE_INTERVAL=10s")
	r.values = append(r.values, "policy.namespaceLabels."+strings.ReplaceAll(labelTest, ".", `\.`)+"="+r.namespace)
	began := time.Now()
	r.apply("install")
	target := c.called("apss-chart-", map[string]string{"apss.dev/inject": "enabled", labelTest: r.namespace})
	relays := r.component("relay", 2)
	r.component("webhook", 2)
	r.bench("install_to_ready", time.Since(began).Seconds(), "s")
	target.injected()
	target.deploy("shop")
	in.told(target, "shop", true, began)

	pod := target.deployed("shop")
	if err := started(pod); err != nil {
		t.Error(err)
	}
	r.upgrade(target)
	webhooks := r.component("webhook", 2)
	target.figures(map[string]place{
		"webhook": {r.namespace, webhooks[0].Name, 8080}, "relay": {r.namespace, relays[0].Name, 8080}, "sidecar": {target.namespace, "idle", 9787},
	})
	r.testAndUninstall("")
}

// TestChartNode installs the chart as on GKE Standard, and sees what a pod without a sidecar does.
func TestChartNode(t *testing.T) {
	c := open(t)
	in := c.inbox()
	port := freePort(t)
	r := c.release("mode=node", "pubsubEmulator="+in.addr, fmt.Sprintf("agent.port=%d", port), "agent.stateDir="+t.TempDir(), "agent.mountPropagation=None", "agent.env.ALERT_WINDOW=0s")
	nodes, err := c.client.CoreV1().Nodes().List(c.patience(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.apply("install")
	agents := r.component("agent", len(nodes.Items))
	r.bench("node_install_to_ready", time.Since(began).Seconds(), "s")
	c.deploy("shop")
	in.told(c, "shop", false, began)
	if err := started(c.deployed("shop")); err == nil {
		t.Error("the pod has a sidecar: the agent of the node proved nothing")
	}
	r.figures(map[string]place{"node_agent": {r.namespace, agents[0].Name, port}})
	r.testAndUninstall("node_")
}

// TestChartRefuses: helm says what is missing, and leaves nothing in the cluster.
func TestChartRefuses(t *testing.T) {
	r := open(t).release("mode=sidecar")
	for name, test := range map[string]struct{ value, want string }{
		"project":  {"project=", "project is not set"},
		"cluster":  {"cluster=", "cluster is not set"},
		"registry": {"images.registry=", "images.registry is not set"},
		"digest":   {"images.allowTag=false", "is not set: a packaged chart has the digests of its release"},
		"unknown":  {"relay.replica=3", "'replica' not allowed"},
		"first":    {"controller.alerting.slack.webhookUrl=hunter2", "Slack is called by the functions now"},
	} {
		out, err := r.helm(t.Context(), r.command("install", test.value)...)
		if err == nil || !strings.Contains(out, test.want) || strings.Contains(out, "hunter2") {
			t.Errorf("%s: got %v: %s, want %q", name, err, out, test.want)
		}
	}
	if left, err := r.left(r.patience()); err != nil || len(left) > 0 {
		t.Errorf("refused installations left %q, %v", left, err)
	}
}

// told waits for what the application of a Deployment does: its program, its file and its deeds.
func (i *inbox) told(c *cluster, deployment string, attested bool, began time.Time) {
	t := i.t
	t.Helper()
	mine := func(e *event.Event) bool {
		return e.PodNamespace == c.namespace && e.Workload == "Deployment/"+deployment
	}
	first := i.event("the first event", mine)
	kind := map[bool]string{true: "", false: "node_"}[attested]
	i.bench(kind+"install_to_first_event", first.at.Sub(began).Seconds(), "s")
	pod := c.deployed(deployment)
	for what, is := range map[string]func(*event.Event) bool{
		"program": func(e *event.Event) bool {
			return e.Type == event.ProcessExec && e.Process != nil && strings.HasSuffix(e.Process.Cmdline, "mark "+c.namespace)
		},
		"file": func(e *event.Event) bool {
			return e.Type != event.FileRead && e.File != nil && strings.HasSuffix(e.File.Path, watched)
		},
	} {
		e := i.event("the application's "+what, func(e *event.Event) bool { return mine(e) && is(e) }).what
		t.Logf("its %s: %s of %s/%s (%s) on %s", what, e.Type, e.PodNamespace, e.PodName, e.Workload, e.NodeName)
		if e.PodName != pod.Name || e.NodeName != pod.Spec.NodeName || attested && e.AgentID != "e2e/"+pod.Name {
			t.Errorf("its %s is of %s on %q by %s, want %s on %q", what, e.PodName, e.NodeName, e.AgentID, pod.Name, pod.Spec.NodeName)
		}
	}
	const rule = "APSS-009" // a web server runs an intruder's first commands
	var took []time.Duration
	for done, a := range i.deeds(rule, c.namespace, deeds) {
		took = append(took, a.at.Sub(done))
		if a.what.PodName != pod.Name || a.what.NodeName != pod.Spec.NodeName || a.what.Workload != "Deployment/"+deployment || a.what.MITREID == "" {
			t.Errorf("the alert is of %s (%s) on %q with technique %q, want %s on %q", a.what.PodName, a.what.Workload, a.what.NodeName, a.what.MITREID, pod.Name, pod.Spec.NodeName)
		}
	}
	slices.Sort(took)
	t.Logf("from deed to alert: %v", took)
	i.bench(kind+"deed_to_alert_p50", took[len(took)/2].Seconds(), "s")
	i.bench(kind+"deed_to_alert_most", took[len(took)-1].Seconds(), "s")
}

// watched is a file that the agent watches by itself.
const watched = "/home/app/.ssh/authorized_keys"

// deploy runs an application that writes a watched file and runs programs, beside a web server that is broken into.
func (c *cluster) deploy(name string) {
	c.t.Helper()
	template := c.template(name, corev1.RestartPolicyAlways, "/bin/witness", "app", c.namespace, watched)
	template.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(1000))}
	template.Spec.Volumes = []corev1.Volume{{Name: "keys", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "keys", MountPath: "/home/app/.ssh"}}
	template.Spec.Containers = append(template.Spec.Containers, c.container("web", 1000, nil, "/bin/nginx", "intrude", fmt.Sprint(2*deeds)))
	if _, err := c.client.AppsV1().Deployments(c.namespace).Create(c.patience(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Selector: selects(name), Template: template},
	}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// deployed is the pod of a Deployment of one, once it runs.
func (c *cluster) deployed(name string) *corev1.Pod {
	c.t.Helper()
	var pod *corev1.Pod
	c.await("the pod of "+name, func(ctx context.Context) error {
		pods, err := c.pods(ctx, name)
		if err != nil {
			return err
		}
		if len(pods) != 1 || pods[0].Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%d, %+v", len(pods), pods)
		}
		pod = &pods[0]
		return nil
	})
	return pod
}

// freeAddress is one of the cluster's Service addresses.
func (c *cluster) freeAddress() string {
	c.t.Helper()
	services := c.client.CoreV1().Services(c.namespace)
	s, err := services.Create(c.patience(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "address-"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 8444}}},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := services.Delete(c.patience(), s.Name, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
	return s.Spec.ClusterIP
}

// freePort is one of this machine.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// injected waits until pods of the namespace are.
func (c *cluster) injected() {
	c.t.Helper()
	probe := c.pod("probe", c.container("app", 1000, nil, "/bin/witness", "app"))
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
}

// upgrade changes a value while pods are created: each has its sidecar, and what the webhook wrote stays.
func (r *release) upgrade(c *cluster) {
	r.t.Helper()
	type written struct {
		Clients []admissionv1.WebhookClientConfig // with caBundle and path
		Secrets map[string]map[string][]byte
	}
	look := func() (w written) {
		r.t.Helper()
		configuration, err := r.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(r.patience(), r.namespace+"-apss-webhook", metav1.GetOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		for i := range configuration.Webhooks {
			w.Clients = append(w.Clients, configuration.Webhooks[i].ClientConfig)
		}
		w.Secrets = map[string]map[string][]byte{}
		for _, name := range []string{webhookCerts, relayCerts} {
			s, err := r.client.CoreV1().Secrets(r.namespace).Get(r.patience(), name, metav1.GetOptions{})
			if err != nil {
				r.t.Fatal(err)
			}
			if len(s.Data) == 0 {
				r.t.Errorf("the Secret %s is empty", name)
			}
			w.Secrets[name] = s.Data
		}
		return w
	}
	before := look()
	old := r.component("webhook", 2)
	ctx, stop := context.WithCancel(r.t.Context())
	var created, without int
	done := make(chan error, 1)
	go func() {
		probe := c.pod("probe", c.container("app", 1000, nil, "/bin/witness", "app"))
		for ctx.Err() == nil {
			p, err := c.dryRun(r.t.Context(), probe)
			if err != nil {
				done <- err
				return
			}
			created++
			if s, _ := sidecar(p); s == nil {
				without++
			}
		}
		done <- nil
	}()
	r.apply("upgrade", "webhook.env.LOG_LEVEL=DEBUG")
	c.run(c.pod("idle", c.container("app", 1000, nil, "/bin/witness", "app")))
	r.await("a new webhook", func(ctx context.Context) error {
		for i := range old {
			if _, err := r.client.CoreV1().Pods(r.namespace).Get(ctx, old[i].Name, metav1.GetOptions{}); err == nil {
				return fmt.Errorf("%s is still there", old[i].Name)
			}
		}
		return nil
	})
	r.component("webhook", 2)
	stop()
	if err := <-done; err != nil {
		r.t.Error(err)
	}
	r.t.Logf("%d pods made during the upgrade", created)
	if without > 0 || created == 0 {
		r.t.Errorf("%d of %d pods that were made during the upgrade have no sidecar", without, created)
	}
	c.await("the pod that was made during the upgrade", func(ctx context.Context) error {
		p, err := c.client.CoreV1().Pods(c.namespace).Get(ctx, "idle", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return started(p)
	})
	if diff := cmp.Diff(before, look()); diff != "" {
		r.t.Errorf("what the webhook wrote is changed (-before +after): %s", diff)
	}
}
