package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// registry is where the chart's images are.
const registry = "apss.local"

// charts loads the images that the chart names, and returns their tag.
var charts = sync.OnceValues(func() (string, error) {
	if os.Getenv("APSS_E2E_LOAD") == "" {
		return "", nil
	}
	tag := fmt.Sprintf("e2e-%d", time.Now().UnixNano())
	for _, program := range []string{"apss-agent", "apss-relay", "apss-webhook"} {
		if err := load(registry+"/"+program+":"+tag, `["/`+program+`"]`, map[string]string{program: program}); err != nil {
			return "", err
		}
	}
	return tag, nil
})

// release is the chart as helm installs it, in a namespace of its own.
type release struct {
	*cluster
	values []string // name=value
}

// release returns one that is not installed yet. Where it fails the test, what its pods print is shown.
func (c *cluster) release(values ...string) *release {
	c.t.Helper()
	tag, err := charts()
	if err != nil {
		c.t.Fatal(err)
	}
	if tag == "" {
		c.t.Skip("SKIPPED: the chart's images have to get into the cluster: set APSS_E2E_LOAD")
	}
	r := &release{c.other(nil), append([]string{
		"project=apss-e2e", "cluster=e2e", "images.registry=" + registry, "images.allowTag=true", "images.tag=" + tag,
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
	args := []string{verb, "apss", filepath.Join("..", "..", "helm", "apss")}
	for _, v := range slices.Concat(r.values, values) {
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
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst, config.WarningHandlerWithContext = 200, 200, rest.NoWarnings{}
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

// place is a program's /metrics, as the API server reaches them.
type place struct {
	namespace, pod string
	port           int
}

var aFigure = regexp.MustCompile(`(?m)^(process_(?:resident_memory_bytes|cpu_seconds_total)) (\S+)$`)

// figures prints what programs take of memory, and of CPU over some seconds.
func (c *cluster) figures(places map[string]place) {
	c.t.Helper()
	const over = 15 * time.Second
	read := func(at place) map[string]float64 {
		c.t.Helper()
		text, err := c.client.CoreV1().Pods(at.namespace).ProxyGet("http", at.pod, strconv.Itoa(at.port), "/metrics", nil).DoRaw(c.patience())
		if err != nil {
			c.t.Fatalf("the metrics of %s: %v", at.pod, err)
		}
		all := map[string]float64{"at": float64(time.Now().UnixNano()) / 1e9}
		for _, m := range aFigure.FindAllSubmatch(text, -1) {
			if all[string(m[1])], err = strconv.ParseFloat(string(m[2]), 64); err != nil {
				c.t.Fatal(err)
			}
		}
		if len(all) != 3 {
			c.t.Fatalf("the metrics of %s lack its memory or CPU: %v", at.pod, all)
		}
		return all
	}
	before := map[string]map[string]float64{}
	for name, at := range places {
		before[name] = read(at)
	}
	select {
	case <-time.After(over):
	case <-c.t.Context().Done():
	}
	for _, name := range slices.Sorted(maps.Keys(places)) {
		after := read(places[name])
		c.bench(name+"_idle_memory", after["process_resident_memory_bytes"]/(1<<20), "MiB")
		c.bench(name+"_idle_cpu", (after["process_cpu_seconds_total"]-before[name]["process_cpu_seconds_total"])/(after["at"]-before[name]["at"])*1000, "millicores")
	}
}

// bench prints a figure as make bench does.
func (c *cluster) bench(name string, value float64, unit string) {
	c.t.Helper()
	fmt.Printf("BENCH e2e_%s %.3g %s\n", name, value, unit)
}
