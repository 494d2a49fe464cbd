package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admission "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// laterWebhook puts another webhook after w: it adds a proxy as another user, with the agent's port, and puts it before all.
func (w *webhook) laterWebhook() {
	w.t.Helper()
	host := w.hostAddress()
	cert, key := certificate(w.t, host)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(addProxy))
	server.Listener.Close()
	server.Listener, server.TLS = l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	w.t.Cleanup(server.Close)
	address := "https://" + l.Addr().String() + "/"
	ignore, none, ifNeeded, seconds := admissionv1.Ignore, admissionv1.SideEffectClassNone, admissionv1.IfNeededReinvocationPolicy, int32(10)
	webhooks := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	name := "z-" + w.namespace // they are called by name
	if _, err := webhooks.Create(w.patience(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "proxy.example.com", AdmissionReviewVersions: []string{"v1"}, FailurePolicy: &ignore, SideEffects: &none, ReinvocationPolicy: &ifNeeded, TimeoutSeconds: &seconds,
			ClientConfig: admissionv1.WebhookClientConfig{URL: &address, CABundle: cert},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create}, Rule: admissionv1.Rule{
				APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"},
			}}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{labelTest: w.namespace}},
		}},
	}, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := webhooks.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			w.t.Errorf("deleting the later webhook's configuration: %v", err)
		}
	})
}

func addProxy(rw http.ResponseWriter, r *http.Request) {
	var review admission.AdmissionReview
	var pod corev1.Pod
	if err := errors.Join(json.NewDecoder(r.Body).Decode(&review), json.Unmarshal(review.Request.Object.Raw, &pod)); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if pod.Spec.Containers[0].Name != "proxy" {
		proxy := pod.Spec.Containers[0]
		proxy.Name, proxy.SecurityContext = "proxy", proxy.SecurityContext.DeepCopy()
		proxy.SecurityContext.RunAsUser = new(int64(1337))
		proxy.Ports = []corev1.ContainerPort{{ContainerPort: 18080}}
		patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/spec/containers/0", "value": proxy}})
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		kind := admission.PatchTypeJSONPatch
		review.Response.Patch, review.Response.PatchType = patch, &kind
	}
	review.Request = nil
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(&review) // the API server says so where it cannot read it
}

// TestALaterWebhook: what another webhook does to a pod after ours makes our sidecar no less ours, when we are called again and
// when the policy judges.
func TestALaterWebhook(t *testing.T) {
	w := open(t).deployWebhook(1, nil)
	w.policy()
	c := w.target(nil)
	w.laterWebhook()
	var p *corev1.Pod
	c.await("a pod with a proxy", func(ctx context.Context) (err error) {
		if p, err = c.dryRun(ctx, c.pod("shop", c.container("app", 1000, nil, "/bin/witness", "look"))); err != nil {
			return err
		}
		if p.Spec.Containers[0].Name != "proxy" {
			return fmt.Errorf("got %d containers", len(p.Spec.Containers))
		}
		return nil
	})
	s, native := sidecar(p)
	if s == nil || !native || *s.SecurityContext.RunAsUser != 1000 || len(p.Spec.InitContainers) != 1 {
		t.Errorf("got %+v", p.Spec)
	}
	w.count(`apss_admission_reviews_total{`, `reason="already-injected"`)
	c.run(c.pod("shop", c.container("app", 1000, nil, "/bin/witness", "app")))
	c.await("it to start", func(ctx context.Context) error {
		p, err := c.client.CoreV1().Pods(c.namespace).Get(ctx, "shop", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return started(p)
	})
	w.count(`apss_coverage_pods{`, `state="covered"`)
	text, err := w.metrics(w.patience())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, `reason="foreign-sidecar"`) || strings.Contains(line, `state="differs"`) && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			t.Errorf("got %s", line)
		}
	}
}
