package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// name is what API servers call w.
func (w *webhook) name() string { return webhookName + "." + w.namespace + ".svc" }

// bundle is what API servers verify w by.
func (w *webhook) bundle() []byte {
	w.t.Helper()
	c, err := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(w.patience(), w.namespace, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Webhooks[0].ClientConfig.CABundle
}

// served is the certificate that w shows.
func (w *webhook) served(ctx context.Context) (*x509.Certificate, error) {
	s, err := w.client.CoreV1().Services(w.namespace).Get(ctx, webhookName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // it is looked at
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.Spec.ClusterIP, "443"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// first509 is the first certificate in PEM; nil when there is none.
func first509(text []byte) *x509.Certificate {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	c, _ := x509.ParseCertificate(block.Bytes) // nil is none
	return c
}

// verifies reports whether who has the bundle trusts a certificate for a name; any name where it is empty.
func verifies(bundle []byte, c *x509.Certificate, name string) bool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	if c == nil {
		return false
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
	return err == nil
}

// call has API servers call w at a path, and verify it by these.
func (w *webhook) call(path string, bundle []byte) {
	w.t.Helper()
	patch, err := json.Marshal([]map[string]any{
		{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}, {"op": "add", "path": "/webhooks/0/clientConfig/service/path", "value": path},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(w.patience(), w.namespace, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// TestCertificateFiles: a certificate and paths that others keep are replaced under way, and no pod goes without its agent.
func TestCertificateFiles(t *testing.T) {
	w := open(t).deployWebhook(1, nil)
	w.scale(0)
	const secret, one, two = "files", "/mutate/aaaaaaaaaaaaaaaaaaaaaaaaaa", "/mutate/bbbbbbbbbbbbbbbbbbbbbbbbbb"
	cert1, key1 := certificate(t, w.name())
	cert2, key2 := certificate(t, w.name())
	secrets := w.client.CoreV1().Secrets(w.namespace)
	files := func(cert, key []byte, paths ...string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secret}, Data: map[string][]byte{"tls.crt": cert, "tls.key": key, "paths": []byte(strings.Join(paths, "\n"))}}
	}
	if _, err := secrets.Create(w.patience(), files(cert1, key1, one), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.AppsV1().Deployments(w.namespace).Patch(w.patience(), webhookName, types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{
		"volumes":[{"name":"files","secret":{"secretName":"files"}}],
		"containers":[{"name":"apss-webhook","volumeMounts":[{"name":"files","mountPath":"/files"}],"env":[{"name":"CERTS","value":"files"},
			{"name":"TLS_CERT_FILE","value":"/files/tls.crt"},{"name":"TLS_KEY_FILE","value":"/files/tls.key"},{"name":"WEBHOOK_PATHS_FILE","value":"/files/paths"}]}]}}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.call(one, cert1)
	w.scale(1)
	c := w.target(nil)
	if answer, err := w.forge(w.patience(), "/mutate", "forged"); err != nil || !strings.Contains(answer, "elsewhere") {
		t.Errorf("a forged review: got %q, %v", answer, err)
	}

	made := c.making()
	w.call(one, append(append([]byte(nil), cert1...), cert2...))
	replace := func(s *corev1.Secret) {
		t.Helper()
		if _, err := secrets.Update(w.patience(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	replace(files(cert2, key2, one, two))
	c.await("the new certificate", func(ctx context.Context) error {
		leaf, err := w.served(ctx)
		if err == nil && !leaf.Equal(first509(cert2)) {
			err = errors.New("it is the old one")
		}
		return err
	})
	at := func(what, path string, elsewhere bool) {
		t.Helper()
		c.await(what, func(ctx context.Context) error {
			answer, err := w.forge(ctx, path, "known")
			if err == nil && strings.Contains(answer, "elsewhere") != elsewhere {
				err = errors.New(answer)
			}
			return err
		})
	}
	at("the new path to be served", two, false)
	w.call(two, cert2)
	replace(files(cert2, key2, two))
	at("the end of the old path", one, true)
	made()
}
