package e2e

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/shared/event"
)

// TestNodeAgentNamesWhatItSees runs two agents of the node beside a Deployment: one may list the pods, the other may not.
func TestNodeAgentNamesWhatItSees(t *testing.T) {
	c := open(t)
	mark := c.namespace // nobody else's
	labels := map[string]string{"app": "shop"}
	template := c.pod("", c.container("cashier", 1000, nil, "/bin/witness", "app", mark))
	template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	_, err := c.client.AppsV1().Deployments(c.namespace).Create(c.patience(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		named bool
	}{{"agent", true}, {"stranger", false}} {
		t.Run(test.name, func(t *testing.T) {
			c := *c
			c.t = t
			c.account(test.name, test.named)
			p := nodeAgent(c.pod(test.name, c.container("agent", 0, everything, "/bin/apss-agent")))
			yes := true
			p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = test.name, &yes
			c.run(p)
			var ran, beat *event.Event
			c.lines(test.name, "agent", func(line []byte) bool {
				var e event.Event
				if !bytes.HasPrefix(line, []byte{'{'}) || json.Unmarshal(line, &e) != nil || e.ID == "" {
					return false // the log
				}
				switch {
				case e.Type == event.AgentHeartbeat && (stateOf(&e) == "watching") == test.named && stateOf(&e) != "starting":
					beat = &e
				case e.Type == event.ProcessExec && e.Process != nil && strings.HasSuffix(e.Process.Cmdline, "mark "+mark):
					// The first ones may come before the list of pods.
					if (e.PodName != "") == test.named {
						ran = &e
					}
				}
				return ran != nil && beat != nil
			})
			t.Logf("process_exec: pod %q, namespace %q, workload %q, container %+v", ran.PodName, ran.PodNamespace, ran.Workload, *ran.Container)
			t.Logf("heartbeat: tier %v, pods %v", beat.Metadata["tier"], podsOf(beat))
			if len(ran.Container.ID) != 64 || ran.NodeName == "" || beat.Metadata["tier"] != "node" {
				t.Errorf("got container %+v of node %q at tier %v", ran.Container, ran.NodeName, beat.Metadata["tier"])
			}
			if !test.named {
				if ran.PodNamespace != "" || ran.Workload != "" || ran.Container.Image != "" {
					t.Errorf("got names that nobody told: %+v", ran)
				}
				if reason, _ := podsOf(beat)["reason"].(string); !strings.Contains(reason, "Forbidden") {
					t.Errorf("got a heartbeat with pods %v, want it to say that they are forbidden", podsOf(beat))
				}
				return
			}
			if !strings.HasPrefix(ran.PodName, "shop-") || ran.PodNamespace != c.namespace || ran.Workload != "Deployment/shop" ||
				ran.Container.Name != "cashier" || ran.Container.Image != c.image {
				t.Errorf("got pod %q in %q of %q, container %+v", ran.PodName, ran.PodNamespace, ran.Workload, ran.Container)
			}
		})
	}
}

func podsOf(beat *event.Event) map[string]any {
	sensors, _ := beat.Metadata["sensors"].(map[string]any)
	pods, _ := sensors["pods"].(map[string]any)
	return pods
}

func stateOf(beat *event.Event) string {
	state, _ := podsOf(beat)["state"].(string)
	return state
}
