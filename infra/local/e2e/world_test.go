package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// world is a relay in the cluster and Pub/Sub beside the tests.
type world struct {
	*cluster
	ca, url string
	http    *http.Client

	mu     sync.Mutex
	events []*event.Event
	more   chan struct{} // closed and replaced when there are more
}

const labelRelay = "apss-relay"

// startRelay deploys a relay, which publishes to a broker in this process.
func (c *cluster) startRelay() *world {
	c.t.Helper()
	w := &world{cluster: c, more: make(chan struct{})}
	pubsub := w.pubsub(c.hostAddress())
	ctx := c.patience()
	service, err := c.client.CoreV1().Services(c.namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: labelRelay},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": labelRelay}, Ports: []corev1.ServicePort{{Port: 8444, TargetPort: intstr.FromInt32(8444)}}},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	w.url = "https://" + net.JoinHostPort(service.Spec.ClusterIP, "8444")
	cert, key := certificate(c.t, service.Spec.ClusterIP)
	w.ca = string(cert)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	w.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	c.t.Cleanup(w.http.CloseIdleConnections)
	if _, err := c.client.CoreV1().Secrets(c.namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "relay-tls"}, Data: map[string][]byte{"tls.crt": cert, "tls.key": key},
	}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.account("relay", false)
	c.reviewsTokens("relay")
	yes, grace := true, int64(30)
	container := c.container("relay", 65532, nil, "/bin/apss-relay")
	container.Env = []corev1.EnvVar{
		{Name: "CLUSTER_NAME", Value: "e2e"}, {Name: "PUBSUB_PROJECT_ID", Value: "e2e"}, {Name: "PUBSUB_EMULATOR_HOST", Value: pubsub},
		{Name: "TLS_CERT_FILE", Value: "/tls/tls.crt"}, {Name: "TLS_KEY_FILE", Value: "/tls/tls.key"}, {Name: "TOKEN_FRESH", Value: "1s"},
		downward("POD_NAME", "metadata.name"),
	}
	container.ReadinessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1,
	}
	container.VolumeMounts = []corev1.VolumeMount{{Name: "tls", MountPath: "/tls", ReadOnly: true}}
	pod := c.pod("", container)
	pod.Spec.RestartPolicy, pod.Spec.TerminationGracePeriodSeconds = corev1.RestartPolicyAlways, &grace
	pod.Spec.ServiceAccountName, pod.Spec.AutomountServiceAccountToken = "relay", &yes
	pod.Spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "relay-tls"}}}}
	labels := map[string]string{"app": labelRelay}
	if _, err := c.client.AppsV1().Deployments(c.namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: labelRelay},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	w.ready()
	return w
}

// ready waits for the relay.
func (w *world) ready() {
	w.t.Helper()
	w.await("the relay", func(ctx context.Context) error {
		d, err := w.client.AppsV1().Deployments(w.namespace).Get(ctx, labelRelay, metav1.GetOptions{})
		if err == nil && d.Status.ReadyReplicas < 1 {
			err = fmt.Errorf("%+v", d.Status)
		}
		return err
	})
}

// hostAddress is where pods reach this machine: the address that has the way to the API server.
func (c *cluster) hostAddress() string {
	c.t.Helper()
	if host := os.Getenv("APSS_E2E_HOST"); host != "" {
		return host
	}
	server := c.client.CoreV1().RESTClient().Get().URL()
	api, err := url.Parse(server.Scheme + "://" + server.Host)
	if err != nil {
		c.t.Fatal(err)
	}
	port := api.Port()
	if port == "" {
		port = "443"
	}
	conn, err := net.Dial("udp", net.JoinHostPort(api.Hostname(), port)) // sends nothing
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	host := conn.LocalAddr().(*net.UDPAddr).IP
	if host.IsLoopback() {
		c.t.Skip("SKIPPED: the API server is reached over the loopback, which pods have not: set APSS_E2E_HOST to this machine's address for pods")
	}
	return host.String()
}

// pubsub starts the broker and gathers all events that reach it. It returns its address.
func (w *world) pubsub(host string) string {
	b, err := broker.Start(w.t.Context(), broker.Options{
		Project: "e2e", Topics: []string{"apss-events", "apss-alerts"}, Addr: net.JoinHostPort(host, "0"),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	source, err := b.Subscribe(w.t.Context(), "apss-events", "all")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var receiving sync.WaitGroup
	receiving.Go(func() {
		for {
			messages, err := source.Receive(ctx, 100)
			if err != nil {
				return
			}
			for _, m := range messages {
				w.received(envelope.Message{Data: m.Data, Attributes: m.Attributes})
				_ = source.Done(ctx, m.Lease) // it is a queue in this process
			}
		}
	})
	w.t.Cleanup(func() {
		stop()
		receiving.Wait()
		if err := b.Close(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
	return b.Addr()
}

func (w *world) received(m envelope.Message) {
	raws, err := m.Events(nil)
	if err != nil {
		w.t.Errorf("a message at Pub/Sub: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, raw := range raws {
		e, err := event.Decode(raw)
		if err != nil {
			w.t.Errorf("an event at Pub/Sub: %v", err)
			continue
		}
		w.events = append(w.events, e)
	}
	close(w.more)
	w.more = make(chan struct{})
}

// event waits for an event at Pub/Sub.
func (w *world) event(what string, is func(*event.Event) bool) *event.Event {
	w.t.Helper()
	late := time.After(within)
	for from := 0; ; {
		w.mu.Lock()
		events, more := w.events, w.more
		w.mu.Unlock()
		for ; from < len(events); from++ {
			if is(events[from]) {
				return events[from]
			}
		}
		select {
		case <-more:
		case <-late:
			for _, pod := range []string{"honest", "liar"} {
				log, err := w.client.CoreV1().Pods(w.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: "apss-agent"}).DoRaw(context.Background())
				w.t.Logf("%s: %s %v", pod, log, err)
			}
			w.t.Fatalf("%s is not among the %d events at Pub/Sub", what, from)
		}
	}
}

// reviewsTokens gives an account the right to create tokenreviews, all that a relay needs.
func (c *cluster) reviewsTokens(account string) {
	c.t.Helper()
	ctx := c.patience()
	meta := metav1.ObjectMeta{Name: c.namespace + "-reviews"}
	rbac := c.client.RbacV1()
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		_ = rbac.ClusterRoleBindings().Delete(ctx, meta.Name, metav1.DeleteOptions{})
		if err := rbac.ClusterRoles().Delete(ctx, meta.Name, metav1.DeleteOptions{}); err != nil {
			c.t.Errorf("deleting roles: %v", err)
		}
	})
	if _, err := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	if _, err := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: c.namespace}},
	}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// certificate makes one for an address or a name, which is its own authority.
func certificate(t *testing.T, address string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: labelRelay}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(address); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{address}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}
