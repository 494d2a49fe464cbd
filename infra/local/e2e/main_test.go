package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ownerKey annotates our namespaces with who made them: "HOST PID SECONDS", the last one of Unix at its start.
const ownerKey = "apss.dev/e2e-owner"

// oldest is how long a run may take that cannot be asked: its machine is not this one, or it was of a version that did not say
// who it is. make e2e gives it half an hour.
const oldest = time.Hour

// prefixes are how the names of our namespaces begin.
var prefixes = []string{"apss-e2e-", "apss-chart-", "apss-upgrade-", "apss-bad-"}

var begun = time.Now()

// TestMain removes what runs left behind that were killed, and what this one has for all its tests.
func TestMain(m *testing.M) {
	if os.Getenv("KUBECONFIG") != "" {
		if err := sweep(); err != nil {
			fmt.Fprintln(os.Stderr, "removing what earlier runs left:", err)
			os.Exit(1)
		}
	}
	var err error
	if scratch, err = os.MkdirTemp("", "apss-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := errors.Join(forget(), os.RemoveAll(scratch)); err != nil {
		fmt.Fprintln(os.Stderr, "removing what all tests had:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// scratch is a folder of this run.
var scratch string

func settings() (*rest.Config, error) {
	api, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	api.QPS, api.Burst, api.WarningHandlerWithContext = 200, 200, rest.NoWarnings{}
	return api, nil
}

func connect() (*kubernetes.Clientset, error) {
	api, err := settings()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(api)
}

// owned is a namespace of this run that does not exist yet.
func owned(prefix string, labels map[string]string) (*corev1.Namespace, error) {
	host, err := os.Hostname()
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: prefix, Labels: labels, Annotations: map[string]string{ownerKey: fmt.Sprint(host, " ", os.Getpid(), " ", begun.Unix())},
	}}, err
}

// orphaned reports whether a namespace is of a run that has ended.
func orphaned(ns *corev1.Namespace, host string, alive func(pid int) bool, now time.Time) bool {
	owner := strings.Fields(ns.Annotations[ownerKey])
	if len(owner) == 3 && owner[0] == host {
		if pid, err := strconv.Atoi(owner[1]); err == nil {
			return !alive(pid)
		}
	}
	ours := len(owner) > 0 || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(ns.Name, p) })
	return ours && now.Sub(ns.CreationTimestamp.Time) > oldest
}

// sweep deletes namespaces of runs that have ended, and what is named after these in no namespace.
func sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	client, err := connect()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	alive := func(pid int) bool { return pid != os.Getpid() && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }
	for i := range list.Items {
		ns := &list.Items[i]
		if ns.DeletionTimestamp != nil || !orphaned(ns, host, alive, time.Now()) {
			continue
		}
		fmt.Printf("removing %s, which a run left behind (%s)\n", ns.Name, ns.Annotations[ownerKey])
		if err := errors.Join(clusterwide(ctx, ns.Name), client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})); err != nil {
			return err
		}
	}
	return nil
}

// clusterwide deletes what the chart and the tests name after a namespace.
func clusterwide(ctx context.Context, namespace string) error {
	api, err := settings()
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(api)
	if err != nil {
		return err
	}
	var errs []error
	for _, kind := range []schema.GroupVersionResource{
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"},
	} {
		list, err := objects.Resource(kind).List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue // an older cluster
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range list.Items {
			if name := list.Items[i].Name; name == namespace || strings.HasPrefix(name, namespace+"-") {
				errs = append(errs, objects.Resource(kind).Delete(ctx, name, metav1.DeleteOptions{}))
			}
		}
	}
	return errors.Join(errs...)
}

// common is the namespace of what all tests of this run share.
var common struct {
	mu   sync.Mutex
	name string
}

// ours returns that namespace.
func ours(ctx context.Context, client *kubernetes.Clientset) (string, error) {
	common.mu.Lock()
	defer common.mu.Unlock()
	if common.name != "" {
		return common.name, nil
	}
	ns, err := owned("apss-e2e-images-", nil)
	if err != nil {
		return "", err
	}
	if ns, err = client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	for { // its service account, which pods want, comes a moment later
		_, err := client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			common.name = ns.Name
			return ns.Name, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for the default service account of %s: %w", ns.Name, err)
		case <-time.After(every / 5):
		}
	}
}

// forget deletes it.
func forget() error {
	common.mu.Lock()
	defer common.mu.Unlock()
	if common.name == "" {
		return nil
	}
	client, err := connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return client.CoreV1().Namespaces().Delete(ctx, common.name, metav1.DeleteOptions{})
}

// TestOrphaned: only a namespace of ours whose run has ended is one that was left behind.
func TestOrphaned(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		namespace, owner string
		age              time.Duration
		want             bool
	}{
		"somebody else's":            {"apss-system", "", 100 * time.Hour, false},
		"of a run that goes on":      {"apss-e2e-1", "here 7 1", 100 * time.Hour, false},
		"of a run that has ended":    {"apss-e2e-1", "here 8 1", 0, true},
		"of another machine":         {"apss-e2e-1", "there 8 1", time.Minute, false},
		"of another machine's past":  {"apss-e2e-1", "there 7 1", 3 * time.Hour, true},
		"of a version without owner": {"apss-chart-1", "", 3 * time.Hour, true},
		"a young one of such":        {"apss-chart-1", "", time.Minute, false},
	} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: test.namespace, CreationTimestamp: metav1.NewTime(now.Add(-test.age)), Annotations: map[string]string{ownerKey: test.owner}}}
		if got := orphaned(ns, "here", func(pid int) bool { return pid == 7 }, now); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}
