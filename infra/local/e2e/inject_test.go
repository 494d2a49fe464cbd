package e2e

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestInjectedPods creates pods of all sorts in injected namespaces.
func TestInjectedPods(t *testing.T) {
	w := open(t).deployWebhook(2, nil)
	c := w.target(nil)
	p := c.pod("plain", c.container("app", 1000, nil, "/bin/witness", "look"))
	c.run(p)
	got, err := c.client.CoreV1().Pods(c.namespace).Get(c.patience(), "plain", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s, native := sidecar(got); s == nil || !native {
		t.Fatalf("got %+v", got.Spec)
	}
	_ = corev1.PodSucceeded
}
