package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apss-sensor/apss/webhook/internal/kube"
	"github.com/apss-sensor/apss/webhook/internal/pod"
)

// API is the store that the API server is. It needs get and update on the Secrets, get and patch on the configuration.
type API struct {
	Client    *kube.Client
	Namespace string // of the Secrets
	Webhook   string // the MutatingWebhookConfiguration
	Pod       string // ours
}

// known gives an error of the API server our names.
func known(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case apierrors.IsConflict(err):
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

// Secret implements store.
func (a *API) Secret(ctx context.Context, name string) (*Secret, error) {
	s, err := a.secret(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Secret{Version: s.ResourceVersion, Rotate: s.Annotations[RotateAnnotation], Data: s.Data}, nil
}

func (a *API) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	s := new(corev1.Secret)
	return s, known(a.Client.Core.Get().Namespace(a.Namespace).Resource("secrets").Name(name).Do(ctx).Into(s))
}

// WriteSecret implements store. What is not ours of the Secret (labels, annotations) stays.
func (a *API) WriteSecret(ctx context.Context, name, version string, data map[string][]byte) error {
	s, err := a.secret(ctx, name)
	if err != nil {
		return err
	}
	if s.ResourceVersion != version {
		return ErrConflict
	}
	s.Data = maps.Clone(data)
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	return known(a.Client.Core.Put().Namespace(a.Namespace).Resource("secrets").Name(name).Body(s).Do(ctx).Error())
}

// Configuration implements store.
func (a *API) Configuration(ctx context.Context) (*Configuration, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	m := new(admissionv1.MutatingWebhookConfiguration)
	err := a.Client.Admission.Get().Resource("mutatingwebhookconfigurations").Name(a.Webhook).Do(ctx).Into(m)
	if err != nil {
		return nil, known(err)
	}
	if len(m.Webhooks) == 0 {
		return nil, fmt.Errorf("%s has no webhooks: %w", a.Webhook, ErrNotFound)
	}
	c := &Configuration{Version: m.ResourceVersion}
	for i := range m.Webhooks {
		from := &m.Webhooks[i].ClientConfig
		to := Client{Bundle: from.CABundle, URL: from.Service == nil}
		if from.URL != nil {
			if u, err := url.Parse(*from.URL); err == nil {
				to.Path = u.Path
			}
		} else if from.Service != nil && from.Service.Path != nil {
			to.Path = *from.Service.Path
		}
		c.Webhooks = append(c.Webhooks, to)
	}
	return c, nil
}

// WriteClients implements store. It patches, so that fields of a newer API stay.
func (a *API) WriteClients(ctx context.Context, c *Configuration, bundle []byte, path string) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	// With a version the API server answers Conflict when the object is another.
	patch := append(make([]operation, 0, 1+2*len(c.Webhooks)), operation{"replace", "/metadata/resourceVersion", c.Version})
	for i := range c.Webhooks {
		client := "/webhooks/" + strconv.Itoa(i) + "/clientConfig"
		patch = append(patch, operation{"add", client + "/caBundle", bundle})
		if !c.Webhooks[i].URL {
			patch = append(patch, operation{"add", client + "/service/path", path})
		}
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	err = a.Client.Admission.Patch(types.JSONPatchType).Resource("mutatingwebhookconfigurations").Name(a.Webhook).Body(body).Do(ctx).Error()
	if err := known(err); !errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("%w: it was removed meanwhile", ErrConflict)
}

// Others implements store: it looks for pods of our Deployment that another of its ReplicaSets made. Who ends still answers.
func (a *API) Others(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, kube.Timeout)
	defer cancel()
	b, err := a.Client.Core.Get().Namespace(a.Namespace).Resource("pods").SetHeader("Accept", "application/json").
		Param("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed").DoRaw(ctx)
	if err != nil {
		return false, fmt.Errorf("listing our pods: %w", err)
	}
	var pods struct {
		Items []*pod.Pod `json:"items"`
	}
	if err := json.Unmarshal(b, &pods); err != nil {
		return false, fmt.Errorf("reading our pods: %w", err)
	}
	i := slices.IndexFunc(pods.Items, func(p *pod.Pod) bool { return p.Metadata.Name == a.Pod })
	if i < 0 {
		return false, fmt.Errorf("there is no pod %s among ours", a.Pod)
	}
	ours := pods.Items[i]
	return slices.ContainsFunc(pods.Items, func(p *pod.Pod) bool {
		return p.Controller() != ours.Controller() && p.Workload() == ours.Workload()
	}), nil
}
