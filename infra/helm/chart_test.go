package helm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// pod is a pod that the chart makes, by the name of what makes it.
type pod struct {
	name     string
	selector *metav1.LabelSelector
	template corev1.PodTemplateSpec
}

// pods are those of r.
func (r *rendering) pods(t *testing.T) []pod {
	t.Helper()
	var pods []pod
	for _, o := range r.objects {
		switch o := typed(t, o).(type) {
		case *appsv1.DaemonSet:
			pods = append(pods, pod{"DaemonSet/" + o.Name, o.Spec.Selector, o.Spec.Template})
		case *appsv1.Deployment:
			pods = append(pods, pod{"Deployment/" + o.Name, o.Spec.Selector, o.Spec.Template})
		case *corev1.Pod:
			pods = append(pods, pod{"Pod/" + o.Name, nil, corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}})
		}
	}
	return pods
}

// everyCI calls test with each of ci/*-values.yaml laid over what must be given.
func everyCI(t *testing.T, test func(t *testing.T, v values)) {
	t.Helper()
	files, err := filepath.Glob("apss/ci/*-values.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no values to try: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), "-values.yaml"), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var v values
			if err := yaml.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
			test(t, v)
		})
	}
}

// TestManifests: all that is rendered is what Kubernetes knows, in our namespace or in none, labelled as ours.
func TestManifests(t *testing.T) {
	everyCI(t, func(t *testing.T, v values) {
		t.Helper()
		r := mustRender(t, v, "monitoring.googleapis.com/v1/PodMonitoring", "monitoring.coreos.com/v1/ServiceMonitor")
		seen := map[string]bool{}
		for _, o := range r.objects {
			name := o.GetKind() + "/" + o.GetName()
			if seen[name] {
				t.Errorf("%s is rendered twice", name)
			}
			seen[name] = true
			if typed(t, o) == nil && !strings.HasPrefix(o.GetAPIVersion(), "monitoring.") {
				t.Errorf("%s: %s is unknown to Kubernetes", name, o.GetAPIVersion())
			}
			if ns := o.GetNamespace(); ns != "" && ns != "apss-system" {
				t.Errorf("%s is in namespace %s", name, ns)
			}
			if o.GetLabels()["app.kubernetes.io/part-of"] != "apss" {
				t.Errorf("%s is not labelled as part of apss", name)
			}
		}
		for _, p := range r.pods(t) {
			if p.selector == nil {
				continue
			}
			// A selector cannot be changed by an upgrade.
			for key := range p.selector.MatchLabels {
				if !slices.Contains([]string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}, key) {
					t.Errorf("%s: the selector has %s, which may change", p.name, key)
				}
				if p.template.Labels[key] != p.selector.MatchLabels[key] {
					t.Errorf("%s: its pods do not have the label %s", p.name, key)
				}
			}
		}
	})
}

// TestPodSecurity holds the pods against the Pod Security Standards, as the API server does it.
func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	everyCI(t, func(t *testing.T, v values) {
		t.Helper()
		for _, p := range mustRender(t, v).pods(t) {
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &p.template.ObjectMeta, &p.template.Spec))
			if strings.HasPrefix(p.name, "DaemonSet/") {
				if result.Allowed {
					t.Errorf("%s: is restricted, so how does it see the node?", p.name)
				}
				continue
			}
			if !result.Allowed {
				t.Errorf("%s: %s", p.name, result.ForbiddenDetail())
			}
		}
	})
}

// TestAutopilot holds what mode sidecar renders against what GKE Autopilot admits
// (https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-security).
func TestAutopilot(t *testing.T) {
	for _, p := range mustRender(t, given()).pods(t) {
		s := p.template.Spec
		if s.HostNetwork || s.HostPID || s.HostIPC {
			t.Errorf("%s: shares a namespace with the host", p.name)
		}
		for _, v := range s.Volumes {
			if v.HostPath != nil {
				t.Errorf("%s: volume %s is a folder of the host", p.name, v.Name)
			}
		}
		for _, c := range slices.Concat(s.InitContainers, s.Containers) {
			if sc := c.SecurityContext; sc == nil || sc.Privileged != nil && *sc.Privileged || sc.Capabilities == nil || len(sc.Capabilities.Add) > 0 {
				t.Errorf("%s/%s: security context %+v", p.name, c.Name, c.SecurityContext)
			}
			for _, port := range c.Ports {
				if port.HostPort != 0 {
					t.Errorf("%s/%s: host port %d", p.name, c.Name, port.HostPort)
				}
			}
			// With bursting: 50m and 52 MiB at least (https://cloud.google.com/kubernetes-engine/docs/concepts/autopilot-resource-requests).
			cpu, memory := c.Resources.Requests[corev1.ResourceCPU], c.Resources.Requests[corev1.ResourceMemory]
			if cpu.MilliValue() < 50 || memory.Value() < 52<<20 {
				t.Errorf("%s/%s: requests %s and %s are below Autopilot's minimum", p.name, c.Name, &cpu, &memory)
			}
		}
	}
}

// TestModes: what runs in each, and which one is taken.
func TestModes(t *testing.T) {
	for name, test := range map[string]struct {
		mode string
		apis []string
		want string
	}{
		"node":            {"node", nil, "DaemonSet/apss-agent"},
		"sidecar":         {"sidecar", nil, "Deployment/apss-webhook"},
		"auto, unknown":   {"auto", nil, "DaemonSet/apss-agent"},
		"auto, Autopilot": {"auto", []string{"auto.gke.io/v1/WorkloadAllowlist"}, "Deployment/apss-webhook"},
	} {
		got := mustRender(t, given(values{"mode": test.mode}), test.apis...).names()
		if !slices.Contains(got, test.want) || slices.Contains(got, "DaemonSet/apss-agent") && slices.Contains(got, "Deployment/apss-webhook") {
			t.Errorf("%s: got %q, want %s and nothing of the other mode", name, got, test.want)
		}
	}
}

// TestRefused: what is wrong is said, with what to do.
func TestRefused(t *testing.T) {
	without := func(key string) values { v := given(); delete(v, key); return v }
	for name, test := range map[string]struct {
		v    values
		want string
	}{
		"no project":          {without("project"), "--set project="},
		"no cluster":          {without("cluster"), "--set cluster="},
		"no images":           {without("images"), "--set images.registry="},
		"no digest":           {given(values{"images": values{"digests": values{"relay": ""}}}), "images.digests.relay"},
		"a digest that isn't": {given(values{"images": values{"digests": values{"relay": "v1"}}}), "/images/digests/relay"},
		"unknown key":         {given(values{"relays": values{}}), "'relays' not allowed"},
		"unknown, deep":       {given(values{"webhook": values{"replica": 3}}), "'replica' not allowed"},
		"wrong type":          {given(values{"webhook": values{"replicas": "two"}}), "/webhook/replicas"},
		"mode":                {given(values{"mode": "daemonset"}), "/mode"},
		"our own setting":     {given(values{"webhook": values{"env": values{"CLUSTER_NAME": "x"}}}), "webhook.env.CLUSTER_NAME"},
		"first: sweet":        {given(values{"sweetSecurity": values{"apiKey": "hunter2"}}), "Sweet Security is called by the functions now"},
		"first: slack":        {given(values{"controller": values{"alerting": values{"slack": values{"webhookUrl": "hunter2"}}}}), "controller.alerting.slack.webhookUrl"},
		"first: pagerduty":    {given(values{"controller": values{"alerting": values{"pagerduty": values{"routingKey": "hunter2"}}}}), "controller.alerting.pagerduty.routingKey"},
		"first: topic":        {given(values{"controller": values{"alerting": values{"pubsub": values{"topicId": "old"}}}}), "--set topics.alerts=old"},
		"first: other":        {given(values{"controller": values{"replicas": 2}}), "there is no controller any more"},
	} {
		_, err := render(t, test.v)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells a secret: %v", name, err)
		}
	}
}

// TestSchemaIsWhole: the schema knows each value of values.yaml and refuses any other.
func TestSchemaIsWhole(t *testing.T) {
	b, err := os.ReadFile("apss/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var defaults map[string]any
	if err := yaml.Unmarshal(b, &defaults); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile("apss/values.schema.json"); err != nil {
		t.Fatal(err)
	}
	var root schema
	if err := json.Unmarshal(b, &root); err != nil {
		t.Fatal(err)
	}
	root.hold(t, "", defaults)
}

// schema is the part of JSON Schema that says which keys there are.
type schema struct {
	Properties map[string]*schema `json:"properties"`
	Additional json.RawMessage    `json:"additionalProperties"`
}

func (s *schema) hold(t *testing.T, path string, v any) {
	t.Helper()
	object, ok := v.(map[string]any)
	if !ok || s.Properties == nil {
		return
	}
	if string(s.Additional) != "false" {
		t.Errorf("%s: unknown keys are allowed", path)
	}
	for key, value := range object {
		p := s.Properties[key]
		if p == nil {
			t.Errorf("%s/%s is not in the schema", path, key)
			continue
		}
		p.hold(t, path+"/"+key, value)
	}
}

// TestReadme: it has each value, as make chart writes it.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("apss/README.md")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("apss/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var defaults map[string]any
	if err := yaml.Unmarshal(b, &defaults); err != nil {
		t.Fatal(err)
	}
	var look func(path string, v any)
	look = func(path string, v any) {
		if strings.Contains(string(readme), "\n| "+path+" |") || strings.Contains(string(readme), "\n| "+path+"[0]") {
			return
		}
		object, ok := v.(map[string]any)
		if !ok || len(object) == 0 {
			t.Errorf("%s is not in the README: run make chart", path)
			return
		}
		for key, value := range object {
			look(strings.TrimPrefix(path+"."+key, "."), value)
		}
	}
	look("", defaults)
}

// TestNotes: the next command is there.
func TestNotes(t *testing.T) {
	for name, test := range map[string]struct {
		v    values
		want []string
	}{
		"node":    {given(values{"mode": "node"}), []string{"rollout status daemonset/apss-agent", "helm test apss --namespace apss-system"}},
		"sidecar": {given(), []string{"firewall-rules create", "tcp:8443", "kubectl label namespace MY_NAMESPACE apss.dev/inject=enabled"}},
		"10250":   {given(values{"webhook": values{"port": 10250}}), []string{"Port 10250 is open on GKE"}},
		"all":     {given(values{"sidecar": values{"namespaces": "all"}}), []string{"All namespaces but those labelled"}},
	} {
		r := mustRender(t, test.v)
		for _, want := range test.want {
			if !strings.Contains(r.notes, want) {
				t.Errorf("%s: the notes lack %q:\n%s", name, want, r.notes)
			}
		}
	}
}
