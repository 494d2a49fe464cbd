package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
)

// release is the chart as helm installs it, in a namespace of its own.
type release struct {
	*cluster
	version
	values []string // name=value
}

// release returns one that is not installed yet. Where it fails the test, what its pods print is shown.
func (c *cluster) release(values ...string) *release {
	c.t.Helper()
	now := present(c.t)
	r := &release{c.other(nil), now, append([]string{
		"project=apss-e2e", "cluster=e2e", "images.registry=" + registry, "images.allowTag=true",
	}, values...)}
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Logf("what our pods say:\n%s", r.logs())
		}
		// The namespace is deleted next; this is for what is in none.
		if out, err := r.helm(context.Background(), "uninstall", "apss", "--ignore-not-found"); err != nil {
			r.t.Errorf("uninstalling: %v: %s", err, out)
		}
	})
	return r
}

// helm runs it in the namespace of r.
func (r *release) helm(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(bin, "helm"), append(args, "--namespace", r.namespace)...)
	out, err := command.CombinedOutput()
	return string(out), err
}

// apply installs or upgrades the release, with these values besides, and does not wait for its pods.
func (r *release) apply(verb string, values ...string) {
	r.t.Helper()
	if out, err := r.helm(r.t.Context(), r.command(verb, values...)...); err != nil {
		r.t.Fatalf("helm %s: %v: %s", verb, err, out)
	} else if verb == "install" {
		r.t.Logf("helm %s\n%s", verb, out)
	}
}

func (r *release) command(verb string, values ...string) []string {
	args := []string{verb, "apss", r.chart}
	for _, v := range slices.Concat(r.values, []string{"images.tag=" + r.tag}, values) {
		args = append(args, "--set", v)
	}
	return args
}

// testAndUninstall runs helm test, takes the release away and looks for what stayed. The figure is called after kind.
func (r *release) testAndUninstall(kind string) {
	r.t.Helper()
	out, err := r.helm(r.t.Context(), "test", "apss", "--logs")
	if err != nil || !strings.Contains(out, "confirmed after") {
		r.t.Errorf("helm test: %v: %s", err, out)
	}
	r.t.Logf("helm test\n%s", out)
	began := time.Now()
	if out, err := r.helm(r.t.Context(), "uninstall", "apss"); err != nil {
		r.t.Fatalf("helm uninstall: %v: %s", err, out)
	}
	r.await("nothing of ours", func(ctx context.Context) error {
		left, err := r.left(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("there is %q", left)
		}
		return err
	})
	r.bench(kind+"uninstall_to_nothing", time.Since(began).Seconds(), "s")
}

// left are the objects of any kind in the namespace of r, but for those of every namespace, and the ones in no namespace
// that are named after it.
func (r *release) left(ctx context.Context) ([]string, error) {
	config, err := settings()
	if err != nil {
		return nil, err
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	lists, err := r.client.Discovery().ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	listed := discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, lists)
	kinds, err := discovery.GroupVersionResources(listed)
	if err != nil {
		return nil, err
	}
	namespaced := map[schema.GroupVersionResource]bool{}
	for _, list := range listed {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, resource := range list.APIResources {
			namespaced[gv.WithResource(resource.Name)] = resource.Namespaced
		}
	}
	var left []string
	for kind := range kinds {
		from := objects.Resource(kind).Namespace("")
		if namespaced[kind] {
			from = objects.Resource(kind).Namespace(r.namespace)
		}
		list, err := from.List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("listing %s: %w", kind, err)
		}
		for i := range list.Items {
			name := list.Items[i].Name
			if namespaced[kind] && kind.Resource != "events" && name != "kube-root-ca.crt" && name != "default" || !namespaced[kind] && strings.HasPrefix(name, r.namespace+"-") {
				left = append(left, kind.Resource+"/"+name)
			}
		}
	}
	slices.Sort(left)
	return left, nil
}

// component waits until n pods of one are ready, and all there are, and returns them.
func (r *release) component(name string, n int) []corev1.Pod {
	r.t.Helper()
	var pods []corev1.Pod
	r.await(fmt.Sprintf("%d ready pods of the %s", n, name), func(ctx context.Context) error {
		list, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + name})
		if err != nil {
			return err
		}
		pods = list.Items
		var errs []error
		for i := range pods {
			p := &pods[i]
			if p.DeletionTimestamp != nil || !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				errs = append(errs, fmt.Errorf("pod %s is %s: %+v", p.Name, p.Status.Phase, p.Status.ContainerStatuses))
			}
		}
		if len(pods) != n {
			errs = append(errs, fmt.Errorf("there are %d", len(pods)))
		}
		return errors.Join(errs...)
	})
	return pods
}

// logs is what all pods of r print.
func (r *release) logs() string {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	list, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	var all strings.Builder
	lines := int64(50)
	for i := range list.Items {
		log, err := r.client.CoreV1().Pods(r.namespace).GetLogs(list.Items[i].Name, &corev1.PodLogOptions{TailLines: &lines}).DoRaw(ctx)
		fmt.Fprintf(&all, "%s (%s, %+v):\n%s\n", list.Items[i].Name, list.Items[i].Status.Phase, err, log)
	}
	return all.String()
}
