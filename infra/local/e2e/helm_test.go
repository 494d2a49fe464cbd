package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/infra/local/internal/system"
	"github.com/apss-sensor/apss/shared/event"
)

// whole asks for what takes longer: an outage of a minute, and figures that are worth quoting.
var whole = os.Getenv("APSS_E2E_WHOLE") != ""

// during is how long something takes, in the whole and else.
func during(all, some time.Duration) time.Duration {
	if whole {
		return all
	}
	return some
}

// beside lets a test run beside others of its kind, but where its figures are to be quoted.
func beside(t *testing.T) {
	t.Helper()
	if !whole {
		t.Parallel()
	}
}

// TestChartSidecars installs the chart as on Autopilot, and goes with it from the first event to the last object.
func TestChartSidecars(t *testing.T) {
	beside(t)
	c := open(t)
	in, m := c.cloud(), c.master()
	// The tests' other namespaces are not ours: their pods are injected and judged as their tests want it.
	r := c.release("mode=sidecar", "project="+system.Project, "pubsubEmulator="+in.addr, "relay.clusterIP="+c.freeAddress(), "sidecar.excluded={apss-e2e-*,apss-bad-*,apss-upgrade-*}",
		"agent.env.ALERT_WINDOW=0s", "webhook.env.COVERAGE_INTERVAL=10s")
	r.values = append(r.values, "policy.namespaceLabels."+strings.ReplaceAll(labelTest, ".", `\.`)+"="+r.namespace)
	began := time.Now()
	r.apply("install")
	target := c.called("apss-chart-", map[string]string{"apss.dev/inject": "enabled", labelTest: r.namespace})
	r.component("relay", 2)
	r.component("webhook", 2)
	r.bench("install_to_ready", time.Since(began).Seconds(), "s")
	target.injected()
	pod := in.intrude(m, target, true)
	first := in.event("the first event", func(e *event.Event) bool { return e.PodNamespace == target.namespace })
	r.bench("install_to_first_event", first.at.Sub(began).Seconds(), "s")
	if err := started(pod); err != nil {
		t.Error(err)
	}
	in.quickness(m, pod, "")

	n := in.number(m, pod)
	r.replaced("relay", 2)
	r.replaced("webhook", 2)
	in.outage()
	n.blinded(m)
	n.whole()

	relays, webhooks := r.component("relay", 2), r.component("webhook", 2)
	r.figures(m.caught(pod.Name), map[string]place{
		"webhook": {r.namespace, webhooks[0].Name, 8080}, "relay": {r.namespace, relays[0].Name, 8080}, "sidecar": {target.namespace, pod.Name, 9787},
	})
	m.startups(target)
	r.testAndUninstall("")
}

// TestChartNode installs the chart as on GKE Standard, and sees what a pod without a sidecar does. It runs alone: the agent sees
// what the pods of other tests do, too, and Slack would be told of them instead.
func TestChartNode(t *testing.T) {
	c := open(t)
	in, m := c.cloud(), c.master()
	port := freePort(t)
	r := c.release("mode=node", "project="+system.Project, "pubsubEmulator="+in.addr, fmt.Sprintf("agent.port=%d", port), "agent.stateDir="+t.TempDir(),
		"agent.mountPropagation=None", "agent.env.ALERT_WINDOW=0s")
	nodes, err := c.client.CoreV1().Nodes().List(c.patience(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.apply("install")
	r.component("agent", len(nodes.Items))
	r.bench("node_install_to_ready", time.Since(began).Seconds(), "s")
	pod := in.intrude(m, c, false)
	first := in.event("the first event", func(e *event.Event) bool { return e.PodNamespace == c.namespace })
	r.bench("node_install_to_first_event", first.at.Sub(began).Seconds(), "s")
	if err := started(pod); err == nil {
		t.Error("the pod has a sidecar: the agent of the node proved nothing")
	}
	in.quickness(m, pod, "node_")

	n := in.number(m, pod)
	in.outage()
	since := time.Now()
	r.replaced("agent", len(nodes.Items))
	n.blind("the agent was replaced", since)
	old := r.component("agent", len(nodes.Items))
	since = time.Now()
	r.apply("upgrade", "agent.env.LOG_LEVEL=DEBUG")
	r.gone(old)
	r.component("agent", len(nodes.Items))
	n.blind("the upgrade", since)
	n.whole()

	agents := r.component("agent", len(nodes.Items))
	r.figures(m.caught(pod.Name), map[string]place{"node_agent": {r.namespace, agents[0].Name, port}})
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
