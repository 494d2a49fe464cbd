package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apss-sensor/apss/infra/local/internal/system"
)

// version is one of ours: a chart, and the tag of its images in the cluster.
type version struct{ chart, tag string }

// present is the one that is built; the test is skipped where its images cannot get into the cluster.
func present(t *testing.T) version {
	t.Helper()
	tag, err := charts()
	if err != nil {
		t.Fatal(err)
	}
	if tag == "" {
		t.Skip("SKIPPED: the chart's images have to get into the cluster: set APSS_E2E_LOAD")
	}
	return version{filepath.Join("..", "..", "helm", "apss"), tag}
}

// previous is the version of the revision APSS_E2E_FROM: by default of the last tag, or else of the last change but one of what
// runs in clusters. Without a history it is the present one.
func previous(t *testing.T) version {
	t.Helper()
	now := present(t)
	before, err := earlier()
	if errors.Is(err, errNoHistory) {
		t.Logf("SKIPPED: the upgrade from another version, this one stands for it: %v", err)
		return now
	}
	if err != nil {
		t.Fatal(err)
	}
	return before
}

var errNoHistory = errors.New("there is no version before this one: it takes a history in git, and APSS_E2E_FROM names a revision")

// earlier builds that version.
var earlier = sync.OnceValues(func() (version, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*within)
	defer cancel()
	dir := filepath.Join(scratch, "earlier")
	rev, err := unpack(ctx, dir)
	if err != nil {
		return version{}, fmt.Errorf("%w: %w", errNoHistory, err)
	}
	fmt.Printf("the version before is that of %s\n", rev)
	built := filepath.Join(dir, "bin")
	if err := os.MkdirAll(built, 0o755); err != nil {
		return version{}, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-tags", "grpcnotrace", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+rev,
		"-o", built, "./edge/cmd/apss-agent", "./edge/cmd/apss-relay", "./webhook/cmd/apss-webhook")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return version{}, fmt.Errorf("building %s: %w: %s", rev, err, out)
	}
	tag, err := chartsOf(built)
	return version{filepath.Join(dir, "infra", "helm", "apss"), tag}, err
})

// unpack puts the sources of the previous version into a folder.
func unpack(ctx context.Context, dir string) (rev string, err error) {
	git := func(args ...string) (string, error) {
		command := exec.CommandContext(ctx, "git", append([]string{"-C", filepath.Join("..", "..", "..")}, args...)...)
		var said bytes.Buffer
		command.Stderr = &said
		out, err := command.Output()
		if err != nil {
			err = fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, &said)
		}
		return strings.TrimSpace(string(out)), err
	}
	if rev = os.Getenv("APSS_E2E_FROM"); rev == "" {
		if rev, err = git("describe", "--tags", "--abbrev=0", "HEAD^"); err != nil {
			rev, err = git("log", "-1", "--skip=1", "--format=%h", "--", "infra/helm/apss", "edge", "webhook", "shared")
		}
	}
	if err == nil && rev == "" {
		err = errors.New("there is no earlier revision")
	}
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	archive := filepath.Join(dir, "sources.tar")
	if _, err := git("archive", "--output", archive, rev); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "-xf", archive).CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpacking %s: %w: %s", rev, err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "infra", "helm", "apss", "Chart.yaml")); err != nil {
		return "", fmt.Errorf("%s has no chart yet: %w", rev, err)
	}
	return rev, nil
}

// TestUpgrade goes from the version before to this one: every pod that is made meanwhile gets its sidecar, and what the sidecars of
// the version before see arrives.
func TestUpgrade(t *testing.T) {
	beside(t)
	c := open(t)
	before := previous(t)
	in, m := c.cloud(), c.master()
	r := c.release("mode=sidecar", "project="+system.Project, "pubsubEmulator="+in.addr, "relay.clusterIP="+c.freeAddress(), "sidecar.excluded={apss-e2e-*,apss-bad-*,apss-chart-*}")
	r.values = append(r.values, "policy.namespaceLabels."+strings.ReplaceAll(labelTest, ".", `\.`)+"="+r.namespace)
	r.version = before
	r.apply("install")
	target := c.called("apss-upgrade-", map[string]string{"apss.dev/inject": "enabled", labelTest: r.namespace})
	r.component("relay", 2)
	r.component("webhook", 2)
	target.injected()
	m.breakIn(target, "shop")
	pod := target.deployed("shop")
	in.watched(m, pod)
	n := in.number(m, pod)
	r.upgrade(target)
	n.whole()
	r.testAndUninstall("")
}

// TestUpgradeNode is the same for the agents of nodes.
func TestUpgradeNode(t *testing.T) {
	beside(t)
	c := open(t)
	before := previous(t)
	in, m := c.cloud(), c.master()
	nodes, err := c.client.CoreV1().Nodes().List(c.patience(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := c.release("mode=node", "project="+system.Project, "pubsubEmulator="+in.addr, fmt.Sprintf("agent.port=%d", freePort(t)), "agent.stateDir="+t.TempDir(), "agent.mountPropagation=None")
	now := r.version
	r.version = before
	r.apply("install")
	old := r.component("agent", len(nodes.Items))
	m.breakIn(c, "shop")
	pod := c.deployed("shop")
	in.watched(m, pod)
	n := in.number(m, pod)
	in.Broker.SetOutage(true) // so that the spool has something of the old version's
	in.pause(2 * time.Second)
	since := time.Now()
	r.version = now
	r.apply("upgrade")
	r.gone(old)
	in.Broker.SetOutage(false)
	r.component("agent", len(nodes.Items))
	n.blind("the upgrade", since)
	n.whole()
}

// upgrade brings this version, and changes a value, while pods are created: each has its sidecar, and what the webhook wrote
// stays.
func (r *release) upgrade(c *cluster) {
	r.t.Helper()
	now := present(r.t)
	another := r.version != now
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
		if another { // it may write more than the version before, or elsewhere; who is trusted stays
			for i := range w.Clients {
				w.Clients[i].Service = nil
			}
			w.Secrets = map[string]map[string][]byte{relayCerts: {"ca.crt": w.Secrets[relayCerts]["ca.crt"]}}
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
	r.version = now
	r.apply("upgrade", "webhook.env.LOG_LEVEL=DEBUG")
	c.run(c.pod("idle", c.container("app", 1000, nil, "/bin/witness", "app")))
	r.gone(old)
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
