package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
)

// forbidden is what Pub/Sub says to who may not publish.
var forbidden = status.New(codes.PermissionDenied, "User not authorized to perform this action.")

// said is how often a pod says something in its log, at most: once, and each minute after that. Events, alerts and
// heartbeats have their own ways and say it for themselves.
func said(began time.Time) int { return 2 * (1 + int(time.Since(began)/time.Minute)) }

// pubsub starts one without functions.
func (c *cluster) pubsub() *broker.Broker {
	c.t.Helper()
	b, err := broker.Start(c.t.Context(), broker.Options{
		Project: "apss-e2e", Topics: []string{"apss-events", "apss-alerts"}, Addr: net.JoinHostPort(c.hostAddress(), "0"),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			c.t.Error(err)
		}
	})
	return b
}

// log is what a container has printed.
func (c *cluster) log(ctx context.Context, pod, container string) (string, error) {
	b, err := c.client.CoreV1().Pods(c.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
	return string(b), err
}

// says waits until a container prints a line with all of these words, and looks how often it prints the first.
func (c *cluster) says(pod, container string, words ...string) {
	c.t.Helper()
	c.await(fmt.Sprintf("%s/%s to say %q", pod, container, words), func(ctx context.Context) error {
		text, err := c.log(ctx, pod, container)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if has(line, words) {
				c.t.Logf("%s: %s", pod, line)
				return nil
			}
		}
		return errors.New(text)
	})
}

func has(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// quiet looks how often a container has printed a message.
func (c *cluster) quiet(pod, container, message string, began time.Time) {
	c.t.Helper()
	text, err := c.log(c.patience(), pod, container)
	if err != nil {
		c.t.Fatal(err)
	}
	if n := strings.Count(text, message); n > said(began) {
		c.t.Errorf("%s says %q %d times in %v:\n%s", pod, message, n, time.Since(began), text)
	}
}

// ask reads a page of a pod's own server, whatever its status.
func (c *cluster) ask(ctx context.Context, at place, page string) string {
	b, _ := c.client.CoreV1().Pods(at.namespace).ProxyGet("http", at.pod, strconv.Itoa(at.port), page, nil).DoRaw(ctx) // a 503 has a body
	return string(b)
}

// answers waits until such a page matches.
func (c *cluster) answers(at place, page, want string) {
	c.t.Helper()
	is := regexp.MustCompile(want)
	c.await(fmt.Sprintf("%s of %s to match %q", page, at.pod, want), func(ctx context.Context) error {
		if text := c.ask(ctx, at, page); !is.MatchString(text) {
			return errors.New(text)
		}
		return nil
	})
}

// TestBadInputSidecars: what is wrong with Pub/Sub, the relay or the settings is said, once a minute, and every application
// starts.
func TestBadInputSidecars(t *testing.T) {
	beside(t)
	c := open(t)
	b := c.pubsub()
	r := c.release("mode=sidecar", "pubsubEmulator="+b.Addr(), "relay.clusterIP="+c.freeAddress(), "sidecar.excluded={apss-e2e-*,apss-chart-*,apss-upgrade-*}", "agent.env.HEARTBEAT_INTERVAL=1s")
	r.values = append(r.values, "policy.namespaceLabels."+strings.ReplaceAll(labelTest, ".", `\.`)+"="+r.namespace)
	began := time.Now()
	r.apply("install", "topics.events=apss-missing")
	target := c.called("apss-bad-", map[string]string{"apss.dev/inject": "enabled", labelTest: r.namespace})
	relays := r.component("relay", 2)
	webhooks := r.component("webhook", 2)
	target.injected()
	starts := func(name string) place {
		t.Helper()
		target.run(target.pod(name, target.container("app", 1000, nil, "/bin/witness", "app", target.namespace)))
		target.await("the application "+name, func(ctx context.Context) error {
			p, err := target.client.CoreV1().Pods(target.namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			return started(p)
		})
		return place{target.namespace, name, 9787}
	}

	// A topic that is missing.
	shop := starts("no-topic")
	target.says(shop.pod, "apss-agent", "what is sealed waits in the spool", "HTTP 429", "the relay's log says why")
	r.oneSays(relays, "apss-relay", "the topic does not exist; create it", "topics/apss-missing")
	r.oneSays(webhooks, "apss-webhook", "the topic does not exist; create it", "topics/apss-missing")
	target.answers(shop, "/readyz", `publish-events.*the relay's log says why`)
	target.answers(shop, "/metrics", `(?m)^apss_agent_publish_failures_total\{.*lane="events".*\} [1-9]`)
	r.oneAnswers(relays, 8080, "/metrics", `(?m)^apss_relay_refused_total\{.*reason="pubsub".*\} [1-9]`)

	// No right to publish.
	b.SetRefusal(forbidden)
	r.apply("upgrade")
	r.gone(relays)
	relays = r.component("relay", 2)
	r.oneSays(relays, "apss-relay", "not allowed; give", "roles/pubsub.publisher", "topics/apss-events")
	target.answers(shop, "/readyz", `publish-events.*does not accept the relay; the relay's log says why`)
	starts("no-right")
	for _, p := range relays {
		r.quiet(p.Name, "apss-relay", "publishing; the senders keep", began)
	}
	b.SetRefusal(nil)
	target.answers(shop, "/readyz", `publish-events: ok`)
	target.says(shop.pod, "apss-agent", "the publisher confirms again")

	// No relay.
	r.scale("apss-relay", 0)
	r.gone(relays)
	target.answers(shop, "/readyz", `publish-events.*publishing to the relay`)
	starts("no-relay")
	target.quiet(shop.pod, "apss-agent", "what is sealed waits in the spool", began)
	r.scale("apss-relay", 2)
	target.answers(shop, "/readyz", `publish-events: ok`)

	// A setting that the webhook does not know: the new one says so, the old ones go on.
	r.apply("upgrade", "webhook.env.INJECT_NOTHING=true")
	r.await("what is wrong with the settings", func(ctx context.Context) error {
		list, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			if text, err := r.log(ctx, p.Name, "apss-webhook"); err == nil && has(text, []string{"wrong settings", "INJECT_NOTHING"}) {
				t.Logf("%s: %s", p.Name, text)
				return nil
			}
		}
		return fmt.Errorf("none of %d pods says it", len(list.Items))
	})
	starts("wrong-setting")
}

// oneSays waits until one of pods, which share the work, prints such a line.
func (r *release) oneSays(pods []corev1.Pod, container string, words ...string) {
	r.t.Helper()
	r.await(fmt.Sprintf("a %s to say %q", container, words), func(ctx context.Context) error {
		var all strings.Builder
		for i := range pods {
			text, err := r.log(ctx, pods[i].Name, container)
			if err != nil {
				return err
			}
			for line := range strings.Lines(text) {
				if has(line, words) {
					r.t.Logf("%s: %s", pods[i].Name, line)
					return nil
				}
			}
			all.WriteString(text)
		}
		return errors.New(all.String())
	})
}

// oneAnswers is answers of one of pods.
func (r *release) oneAnswers(pods []corev1.Pod, port int, page, want string) {
	r.t.Helper()
	is := regexp.MustCompile(want)
	r.await(fmt.Sprintf("a %s that matches %q", page, want), func(ctx context.Context) error {
		text := ""
		for i := range pods {
			if text = r.ask(ctx, place{r.namespace, pods[i].Name, port}, page); is.MatchString(text) {
				return nil
			}
		}
		return errors.New(text)
	})
}

func (r *release) scale(deployment string, replicas int32) {
	r.t.Helper()
	deployments := r.client.AppsV1().Deployments(r.namespace)
	r.await("a new scale of "+deployment, func(ctx context.Context) error {
		s, err := deployments.GetScale(ctx, deployment, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s.Spec.Replicas = replicas
		_, err = deployments.UpdateScale(ctx, deployment, s, metav1.UpdateOptions{})
		return err
	})
}

// TestBadInputNode: the same where agents publish themselves.
func TestBadInputNode(t *testing.T) {
	beside(t)
	c := open(t)
	b := c.pubsub()
	port := freePort(t)
	r := c.release("mode=node", "pubsubEmulator="+b.Addr(), fmt.Sprintf("agent.port=%d", port), "agent.stateDir="+t.TempDir(), "agent.mountPropagation=None", "agent.env.HEARTBEAT_INTERVAL=1s")
	began := time.Now()
	r.apply("install", "project=apss-elsewhere")
	agent := func() place {
		t.Helper()
		var at place
		r.await("the agent", func(ctx context.Context) error {
			list, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=agent"})
			if err == nil && (len(list.Items) == 0 || list.Items[0].Status.Phase != corev1.PodRunning || list.Items[0].DeletionTimestamp != nil) {
				err = fmt.Errorf("%+v", list.Items)
			}
			if err == nil {
				at = place{r.namespace, list.Items[0].Name, port}
			}
			return err
		})
		return at
	}

	// A project that is not ours.
	at := agent()
	r.says(at.pod, "apss-agent", "what is sealed waits in the spool", "the topic does not exist; create it", "PUBSUB_PROJECT_ID", "projects/apss-elsewhere")
	r.answers(at, "/readyz", `publish-events.*the topic does not exist; create it`)
	r.answers(at, "/metrics", `(?m)^apss_agent_publish_failures_total\{.*lane="events".*\} [1-9]`)
	if whole { // it tries for a minute
		if out, err := r.helm(r.t.Context(), "test", "apss", "--logs", "--timeout", "2m"); err == nil || !strings.Contains(out, "the topic does not exist; create it") {
			t.Errorf("helm test: got %v, want it to fail and say that the topic does not exist: %s", err, out)
		}
	}
	r.quiet(at.pod, "apss-agent", "what is sealed waits in the spool", began)

	// No right to publish.
	b.SetRefusal(forbidden)
	old := at.pod
	r.apply("upgrade")
	r.await("another agent", func(ctx context.Context) error {
		_, err := r.client.CoreV1().Pods(r.namespace).Get(ctx, old, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("%s is still there", old)
		}
		return nil
	})
	at = agent()
	r.says(at.pod, "apss-agent", "what is sealed waits in the spool", "not allowed; give", "roles/pubsub.publisher")
	r.answers(at, "/readyz", `publish-events.*not allowed; give`)
	b.SetRefusal(nil)
	r.answers(at, "/readyz", `publish-events: ok`)
	r.says(at.pod, "apss-agent", "the publisher confirms again")
}
