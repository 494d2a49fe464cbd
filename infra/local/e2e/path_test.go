package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// path is where reviews are sent.
func (w *webhook) path() string {
	w.t.Helper()
	c, err := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(w.patience(), w.namespace, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	if path := c.Webhooks[0].ClientConfig.Service.Path; path != nil {
		return *path
	}
	return ""
}

// forge posts a review to the webhook's Service at a path, as any pod can, and returns the answer.
func (w *webhook) forge(ctx context.Context, path, pod string) (answer string, err error) {
	s, err := w.client.CoreV1().Services(w.namespace).Get(ctx, webhookName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // a forger does not mind
	}}
	body := fmt.Sprintf(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{"group":"","version":"v1","kind":"Pod"},`+
		`"namespace":"kube-public","operation":"CREATE","userInfo":{"username":"system:admin"},"object":{"metadata":{"name":%q},"spec":{"containers":[{"name":"a","image":"x","securityContext":{"privileged":true}}]}}}}`, pod)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+net.JoinHostPort(s.Spec.ClusterIP, "443")+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	r, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

// TestForgedReviewsGetNowhere: who posts a review without the path's secret part makes no event; who has it would. Pods are
// injected all along, while the path is replaced too.
func TestForgedReviewsGetNowhere(t *testing.T) {
	w := open(t).deployWebhook(2, map[string]string{"CA_GRACE": "1m"})
	c := w.target(nil)
	first := w.path()
	if !strings.HasPrefix(first, "/mutate/") {
		t.Fatalf("reviews are sent to %q", first)
	}
	for _, path := range []string{"/mutate", "/", "/mutate/", first + "x", first[:len(first)-1]} {
		answer, err := w.forge(w.patience(), path, "forged")
		if err != nil || !strings.Contains(answer, `"allowed":true,"auditAnnotations":{"decision":"elsewhere"}`) {
			t.Errorf("a review at %d characters of a path: got %q, %v", len(path), answer, err)
		}
	}
	if answer, err := w.forge(w.patience(), first, "known"); err != nil || strings.Contains(answer, "elsewhere") {
		t.Fatalf("a review at the path: got %q, %v", answer, err)
	}
	w.await("the event of a review at the path", func(context.Context) error {
		if !strings.Contains(w.logs(), `"pod_name":"known"`) {
			return errors.New("not told yet")
		}
		return nil
	})
	if strings.Contains(w.logs(), `"pod_name":"forged"`) {
		t.Error("a forged review was told of")
	}
	w.count(`apss_admission_reviews_total{`, `reason="elsewhere"`)

	// Another authority and another path are asked for, and pods go on to be made.
	made, old := c.making(), w.bundle()
	if _, err := w.client.CoreV1().Secrets(w.namespace).Patch(w.patience(), webhookCerts, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"apss.dev/rotate-ca":"1"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	c.await("another path", func(context.Context) error {
		if w.path() == first {
			return errors.New("it is the first one")
		}
		return nil
	})
	c.await("the end of the first path", func(ctx context.Context) error {
		for range 8 { // whichever replica it is
			answer, err := w.forge(ctx, first, "late")
			if err != nil {
				return err
			}
			if !strings.Contains(answer, "elsewhere") {
				return errors.New("it is served still")
			}
		}
		return nil
	})
	c.await("another authority", func(ctx context.Context) error {
		leaf, err := w.served(ctx)
		if err != nil {
			return err
		}
		relay, err := w.client.CoreV1().Secrets(w.namespace).Get(ctx, relayCerts, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if verifies(old, leaf, w.name()) || verifies(old, first509(relay.Data["tls.crt"]), "") {
			return errors.New("the old one signs")
		}
		if !verifies(w.bundle(), leaf, w.name()) {
			t.Error("the webhook's certificate is not verified by what is published")
		}
		return nil
	})
	made()
}

// metrics are those of all replicas of the webhook.
func (w *webhook) metrics(ctx context.Context) (string, error) {
	pods, err := w.pods(ctx, webhookName)
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for i := range pods {
		text, err := w.client.CoreV1().Pods(w.namespace).ProxyGet("http", pods[i].Name, "8080", "/metrics", nil).DoRaw(ctx)
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	return all.String(), nil
}

// count waits until a replica of the webhook counts something in a line of its metrics with all of these.
func (w *webhook) count(parts ...string) {
	w.t.Helper()
	w.await("a count of "+strings.Join(parts, " "), func(ctx context.Context) error {
		text, err := w.metrics(ctx)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			has := !strings.HasSuffix(strings.TrimSpace(line), " 0")
			for _, part := range parts {
				has = has && strings.Contains(line, part)
			}
			if has {
				w.t.Logf("%s", line)
				return nil
			}
		}
		return errors.New("there is none")
	})
}

// making makes pods, dry, until what it returns is called: it fails the test when one of them got no agent.
func (c *cluster) making() (end func()) {
	c.t.Helper()
	ctx, stop := context.WithCancel(c.t.Context())
	type result struct {
		made, without int
		err           error
	}
	done := make(chan result, 1)
	probe := c.pod("made", c.container("app", 1000, nil, "/bin/witness", "look"))
	go func() {
		var r result
		for ctx.Err() == nil && r.err == nil {
			var p *corev1.Pod
			if p, r.err = c.dryRun(c.t.Context(), probe); r.err != nil {
				break
			}
			r.made++
			if s, _ := sidecar(p); s == nil {
				r.without++
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		done <- r
	}()
	return func() {
		c.t.Helper()
		stop()
		r := <-done
		c.t.Logf("%d pods made, %d without the agent", r.made, r.without)
		if r.err != nil || r.made == 0 || r.without > 0 {
			c.t.Errorf("%d of %d pods have no agent: %v", r.without, r.made, r.err)
		}
	}
}
