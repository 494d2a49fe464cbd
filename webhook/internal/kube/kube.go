// Package kube is the webhook's way to the API server: client-go's transport (tokens that are read again, pings, retry
// hints) with the few types that are spoken, because the whole clientset would be most of the program.
package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
)

// Timeout bounds a request that is no watch. The API server's own bound is 60 s (--request-timeout).
const Timeout = time.Minute

// Client speaks to one API server. Safe for concurrent use.
type Client struct {
	Core      rest.Interface // namespaces, nodes, pods, secrets, events
	Admission rest.Interface // webhook configurations
}

// New returns a client; a nil config means as a pod does it, with its service account.
func New(config *rest.Config) (*Client, error) {
	if config == nil {
		var err error
		if config, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("reaching the API server as a pod does: %w", err)
		}
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	client := func(path string, version schema.GroupVersion) (rest.Interface, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.UserAgent = path, &version, "apss-webhook"
		c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
		c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
		c.WarningHandlerWithContext = rest.NoWarnings{}
		return rest.RESTClientFor(c)
	}
	core, err := client("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	admission, err := client("/apis", admissionv1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	return &Client{core, admission}, nil
}

// Minor returns the API server's version 1.x.
func (c *Client) Minor(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	b, err := c.Core.Get().AbsPath("/version").SetHeader("Accept", runtime.ContentTypeJSON).DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking for the API server's version: %w", err)
	}
	var v version.Info
	if err := json.Unmarshal(b, &v); err != nil {
		return 0, fmt.Errorf("reading the API server's version: %w", err)
	}
	return Minor(v.GitVersion)
}

// Minor reads x of a version such as "v1.34.1-gke.1829001".
func Minor(version string) (int, error) {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	text, _, _ := strings.Cut(rest, ".")
	minor, err := strconv.Atoi(text)
	if err != nil || major != "1" || minor < 0 {
		return 0, fmt.Errorf("%.40q is no version of Kubernetes such as v1.34.1", version)
	}
	return minor, nil
}
