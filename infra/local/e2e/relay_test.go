package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/apss-sensor/apss/infra/local/internal/broker"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
)

// TestSidecarsThroughTheRelay runs a relay and Pub/Sub, two pods with the agent beside their application, one of which says
// to be another, and speaks to the relay itself with tokens good and bad.
func TestSidecarsThroughTheRelay(t *testing.T) {
	c := open(t)
	w := c.startRelay()
	mark := c.namespace
	c.run(w.sidecar("honest", mark))
	c.run(w.sidecar("liar", mark+"-lie", corev1.EnvVar{Name: "POD_NAME", Value: "victim"}, corev1.EnvVar{Name: "POD_NAMESPACE", Value: "bank"}))
	node := ""
	c.await("the honest pod", func(ctx context.Context) error {
		p, err := c.client.CoreV1().Pods(c.namespace).Get(ctx, "honest", metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("%s %+v", p.Status.Phase, p.Status.InitContainerStatuses)
		}
		if err == nil {
			node = p.Spec.NodeName
		}
		return err
	})
	marked := func(e *event.Event, mark string) bool {
		return e.Type == event.ProcessExec && e.Process != nil && strings.HasSuffix(e.Process.Cmdline, "mark "+mark)
	}
	attested := func(what string, e *event.Event, pod string) {
		t.Helper()
		t.Logf("%s: %s of %s/%s on %s", what, e.Type, e.PodNamespace, e.PodName, e.NodeName)
		if e.PodName != pod || e.PodNamespace != c.namespace || e.NodeName != node || e.AgentID != "e2e/"+pod {
			t.Errorf("%s is of %s/%s on %q by %s, want %s/%s on %q", what, e.PodNamespace, e.PodName, e.NodeName, e.AgentID, c.namespace, pod, node)
		}
	}
	attested("the application's program", w.event("the honest pod's exec", func(e *event.Event) bool { return marked(e, mark) }), "honest")
	attested("the application's file", w.event("the honest pod's file", func(e *event.Event) bool {
		return e.File != nil && e.File.Path == "/data/honest" && e.Type != event.FileRead
	}), "honest")
	attested("the liar's program", w.event("the liar's exec", func(e *event.Event) bool { return marked(e, mark+"-lie") }), "liar")
	conflict := w.event("the conflict", func(e *event.Event) bool { return e.Type == event.AgentIdentityConflict })
	if claimed, _ := conflict.Metadata["claimed"].(map[string]any); conflict.PodName != "liar" || claimed["pod_name"] != "victim" || claimed["pod_namespace"] != "bank" {
		t.Errorf("got a conflict of %s about %v, want the liar's about its claim to be bank/victim", conflict.PodName, conflict.Metadata)
	}

	t.Run("tokens", func(t *testing.T) { w.tokens(t) })
	t.Run("restart", func(t *testing.T) { w.restart(t) })
	since := time.Now()
	attested("after the restart", w.event("an exec after the restart", func(e *event.Event) bool {
		return marked(e, mark) && e.Timestamp.After(since)
	}), "honest")
}

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

// sidecar is a pod as the webhook makes them: a native sidecar with the application's user and a token for the relay.
func (w *world) sidecar(name, mark string, lies ...corev1.EnvVar) *corev1.Pod {
	life, always, yes := int64(3600), corev1.ContainerRestartPolicyAlways, true
	app := w.container("app", 1000, nil, "/bin/witness", "app", mark, "/data/"+name)
	app.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	agent := w.container("apss-agent", 1000, nil, "/bin/apss-agent")
	agent.RestartPolicy = &always
	agent.VolumeMounts = []corev1.VolumeMount{
		{Name: "data", MountPath: "/data", ReadOnly: true}, {Name: "apss-spool", MountPath: "/var/lib/apss"},
		{Name: "apss-token", MountPath: "/var/run/secrets/apss", ReadOnly: true},
	}
	agent.Env = append([]corev1.EnvVar{
		downward("POD_NAME", "metadata.name"), downward("POD_NAMESPACE", "metadata.namespace"), downward("POD_UID", "metadata.uid"),
		downward("NODE_NAME", "spec.nodeName"),
		{Name: "CLUSTER_NAME", Value: "e2e"}, {Name: "PUBLISHER", Value: "relay"}, {Name: "CONTROLLER_ENDPOINT", Value: w.url},
		{Name: "RELAY_CA", Value: w.ca}, {Name: "RELAY_TOKEN_FILE", Value: "/var/run/secrets/apss/token"}, {Name: "WATCH_PATHS", Value: "/data"},
	}, lies...)
	pod := w.pod(name, app)
	pod.Spec.ShareProcessNamespace = &yes
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(1000))}
	pod.Spec.InitContainers = []corev1.Container{agent}
	empty := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: empty}, {Name: "apss-spool", VolumeSource: empty},
		{Name: "apss-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "apss-relay", ExpirationSeconds: &life, Path: "token"},
		}}}}},
	}
	return pod
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

// token has the API server make a token that is bound to a pod.
func (w *world) token(t *testing.T, pod, audience string) string {
	t.Helper()
	p, err := w.client.CoreV1().Pods(w.namespace).Get(w.patience(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.client.CoreV1().ServiceAccounts(w.namespace).CreateToken(w.patience(), "default", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{audience}, BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: p.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

// post sends one event to the relay.
func (w *world) post(ctx context.Context, token string, e *event.Event) (status int, said string, err error) {
	var b envelope.Batch
	b.Append(e)
	m := b.Seal(envelope.Source{AgentID: e.AgentID, Cluster: e.Cluster}, time.Now())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/v1/events", bytes.NewReader(m.Data))
	if err != nil {
		return 0, "", err
	}
	for _, name := range []string{"ce-type", "content-encoding", "content-type"} {
		req.Header.Set(name, m.Attributes[name])
	}
	req.Header.Set("Authorization", "Bearer "+token)
	r, err := w.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, string(text), err
}

func oneEvent() *event.Event {
	return &event.Event{ID: event.NewID(), AgentID: "e2e/x", Type: event.AgentHeartbeat, Timestamp: time.Now(), Cluster: "e2e"}
}

// tokens proves that a token is good for the relay as long as its pod lives, and that no other is.
func (w *world) tokens(t *testing.T) {
	t.Helper()
	doomed := w.pod("doomed", w.container("app", 1000, nil, "/bin/witness", "app"))
	w.run(doomed)
	good := w.token(t, "doomed", "apss-relay")
	head, signature, _ := strings.Cut(good[strings.IndexByte(good, '.')+1:], ".")
	forged := good[:len(good)-len(signature)] + strings.Repeat("A", len(signature))
	for _, c := range []struct {
		name, token string
		status      int
		want        string
	}{
		{"of its pod", good, http.StatusOK, ""},
		{"of another audience", w.token(t, "doomed", "vault"), http.StatusUnauthorized, "vault"},
		{"of the API server", w.token(t, "doomed", "https://kubernetes.default.svc"), http.StatusUnauthorized, "audience"},
		{"forged", forged, http.StatusUnauthorized, "does not accept"},
		{"none", head, http.StatusUnauthorized, "Web Token"},
	} {
		status, said, err := w.post(w.t.Context(), c.token, oneEvent())
		t.Logf("a token %s: %d %s", c.name, status, said)
		if err != nil || status != c.status || !strings.Contains(said, c.want) {
			t.Errorf("a token %s: got %d %q, %v, want %d with %q", c.name, status, said, err, c.status, c.want)
		}
	}
	now := int64(0)
	if err := w.client.CoreV1().Pods(w.namespace).Delete(w.patience(), "doomed", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	w.await("the refusal of a deleted pod's token", func(ctx context.Context) error {
		status, said, err := w.post(ctx, good, oneEvent())
		if err == nil && status != http.StatusUnauthorized {
			err = fmt.Errorf("%d %s", status, said)
		}
		if err == nil {
			t.Logf("a deleted pod's token: %d %s", status, said)
		}
		return err
	})
}

// restart replaces the relay's pod while events come in, and looks for each that it answered with 200 at Pub/Sub.
func (w *world) restart(t *testing.T) {
	t.Helper()
	token := w.token(t, "honest", "apss-relay")
	var (
		accepted sync.Map
		sum      atomic.Int64
		refused  atomic.Int64
		senders  sync.WaitGroup
	)
	ctx, stop := context.WithCancel(w.patience())
	for range 8 {
		senders.Go(func() {
			for ctx.Err() == nil {
				e := oneEvent()
				for ctx.Err() == nil {
					status, _, err := w.post(w.t.Context(), token, e)
					if err == nil && status == http.StatusOK {
						accepted.Store(e.ID, true)
						sum.Add(1)
						break
					}
					refused.Add(1)
					select { // as an agent does
					case <-time.After(200 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	some := func(more int64) {
		want := sum.Load() + more
		w.await("events through the relay", func(context.Context) error {
			if n := sum.Load(); n < want {
				return fmt.Errorf("%d of %d", n, want)
			}
			return nil
		})
	}
	some(50)
	if err := w.client.CoreV1().Pods(w.namespace).DeleteCollection(w.patience(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=" + labelRelay}); err != nil {
		t.Fatal(err)
	}
	some(50)
	w.ready()
	some(50)
	stop()
	senders.Wait()
	w.mu.Lock()
	for _, e := range w.events {
		accepted.Delete(e.ID)
	}
	w.mu.Unlock()
	lost := 0
	accepted.Range(func(any, any) bool { lost++; return true })
	t.Logf("%d events accepted, %d tries failed during the restart, %d lost", sum.Load(), refused.Load(), lost)
	if lost > 0 {
		t.Errorf("%d of %d events were answered with 200 and are not at Pub/Sub", lost, sum.Load())
	}
}

// certificate makes one for an address, which is its own authority.
func certificate(t *testing.T, address string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: labelRelay}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, IsCA: true, BasicConstraintsValid: true,
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
