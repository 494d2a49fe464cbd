package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// within bounds every wait for the cluster: a busy machine starts a pod in half a minute.
	within = 3 * time.Minute
	// every is how often a state is asked for.
	every = 500 * time.Millisecond
)

// bin is where make build puts the programs.
var bin = filepath.Join("..", "..", "..", "bin")

// cluster is a namespace of a real cluster, for one test.
type cluster struct {
	t         *testing.T
	client    *kubernetes.Clientset
	namespace string
	image     string
}

// open returns a namespace to work in, or skips the test.
func open(t *testing.T) *cluster {
	t.Helper()
	config, load, image := os.Getenv("KUBECONFIG"), os.Getenv("APSS_E2E_LOAD"), os.Getenv("APSS_E2E_IMAGE")
	if config == "" || load == "" && image == "" {
		t.Skip("SKIPPED: no cluster: set KUBECONFIG, and APSS_E2E_LOAD to a command that loads an image (NAME:TAG FOLDER ENTRYPOINT), or APSS_E2E_IMAGE")
	}
	client, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	if image == "" {
		if image, err = loaded(); err != nil {
			t.Fatal(err)
		}
	}
	return (&cluster{t: t, client: client, image: image}).other(nil)
}

// other returns another namespace of the same cluster, with these labels.
func (c *cluster) other(labels map[string]string) *cluster {
	c.t.Helper()
	return c.called("apss-e2e-", labels)
}

// called is other, with a name that begins like this.
func (c *cluster) called(prefix string, labels map[string]string) *cluster {
	c.t.Helper()
	client, next := c.client, *c
	c = &next
	ns, err := owned(prefix, labels)
	if err != nil {
		c.t.Fatal(err)
	}
	if ns, err = client.CoreV1().Namespaces().Create(c.patience(), ns, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	c.namespace = ns.Name
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		now := int64(0)
		if err := client.CoreV1().Namespaces().Delete(ctx, c.namespace, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			c.t.Errorf("deleting the namespace: %v", err)
		}
	})
	c.await("the default service account", func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts(c.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return c
}

// patience is a context for one step.
func (c *cluster) patience() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	c.t.Cleanup(cancel)
	return ctx
}

// pause lets time go by.
func (c *cluster) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.t.Context().Done():
	}
}

// await asks until ask returns nil, and fails the test with what it says when that takes too long.
func (c *cluster) await(what string, ask func(context.Context) error) {
	c.t.Helper()
	ctx := c.patience()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(every):
		}
	}
}

// run creates a pod in the namespace.
func (c *cluster) run(p *corev1.Pod) {
	c.t.Helper()
	if _, err := c.client.CoreV1().Pods(c.namespace).Create(c.patience(), p, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// output waits for the end of a container and returns what it printed; it must have ended well.
func (c *cluster) output(pod, container string) string {
	c.t.Helper()
	c.await("the end of "+pod+"/"+container, func(ctx context.Context) error {
		p, err := c.client.CoreV1().Pods(c.namespace).Get(ctx, pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, s := range p.Status.ContainerStatuses {
			if s.Name == container && s.State.Terminated != nil {
				return nil
			}
		}
		return fmt.Errorf("%s, %+v", p.Status.Phase, p.Status.ContainerStatuses)
	})
	log, err := c.client.CoreV1().Pods(c.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(c.patience())
	if err != nil {
		c.t.Fatal(err)
	}
	return string(log)
}

// lines calls see with each line of a running container's output until it returns true.
func (c *cluster) lines(pod, container string, see func(line []byte) bool) {
	c.t.Helper()
	c.await("output of "+pod+"/"+container, func(ctx context.Context) error {
		stream, err := c.client.CoreV1().Pods(c.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, Follow: true}).Stream(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		return until(stream, see)
	})
}

func until(r io.Reader, see func(line []byte) bool) error {
	const longest = 4 << 20
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longest)
	n := 0
	for ; lines.Scan(); n++ {
		if see(lines.Bytes()) {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("not in %d lines", n), lines.Err())
}

// account makes a service account; one that sees the pods of the cluster where seesPods.
func (c *cluster) account(name string, seesPods bool) {
	c.t.Helper()
	ctx := c.patience()
	_, err := c.client.CoreV1().ServiceAccounts(c.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	if !seesPods {
		return
	}
	meta := metav1.ObjectMeta{Name: c.namespace + "-" + name}
	rbac := c.client.RbacV1()
	_, errRole := rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}},
	}}, metav1.CreateOptions{})
	_, errBinding := rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: c.namespace}},
	}, metav1.CreateOptions{})
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := errors.Join(rbac.ClusterRoleBindings().Delete(ctx, meta.Name, metav1.DeleteOptions{}),
			rbac.ClusterRoles().Delete(ctx, meta.Name, metav1.DeleteOptions{})); err != nil {
			c.t.Errorf("deleting roles: %v", err)
		}
	})
	if err := errors.Join(errRole, errBinding); err != nil {
		c.t.Fatal(err)
	}
}
