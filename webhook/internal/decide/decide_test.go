package decide

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apss-sensor/apss/webhook/internal/pod"
)

func TestWhether(t *testing.T) {
	const web = `"containers":[{"name":"web","image":"nginx"}]`
	enabled := map[string]string{LabelInject: "enabled"}
	for _, tt := range []struct {
		name   string
		pod    string // metadata and spec without their braces
		spec   string
		ns     Namespace
		change func(*Settings, *Cluster)
		want   Reason
		warn   string
	}{
		{"labelled", "", web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"not labelled", "", web, Namespace{"shop", nil}, nil, NamespaceNotEnabled, ""},
		{"not labelled, all", "", web, Namespace{"shop", nil}, func(s *Settings, _ *Cluster) { s.All = true }, Injected, ""},
		{"disabled, all", "", web, Namespace{"shop", map[string]string{LabelInject: "disabled"}}, func(s *Settings, _ *Cluster) { s.All = true }, NamespaceDisabled, ""},
		{"nonsense label", "", web, Namespace{"shop", map[string]string{LabelInject: "yes"}}, nil, NamespaceNotEnabled, `is "yes", want enabled or disabled`},
		{"our own namespace, labelled", "", web, Namespace{"apss", enabled}, nil, OwnNamespace, ""},
		{"kube-system, labelled", "", web, Namespace{"kube-system", enabled}, nil, ManagedNamespace, ""},
		{"GKE's, labelled", "", web, Namespace{"gke-managed-cim", enabled}, nil, ManagedNamespace, ""},
		{"excluded", "", web, Namespace{"ci-7", enabled}, func(s *Settings, _ *Cluster) { s.Excluded = []string{"ci-*"} }, ManagedNamespace, ""},
		{"host network", "", `"hostNetwork":true,` + web, Namespace{"shop", enabled}, nil, HostNetwork, ""},
		{"host pid", "", `"hostPID":true,` + web, Namespace{"shop", enabled}, nil, HostPID, ""},
		{"Windows by os", "", `"os":{"name":"windows"},` + web, Namespace{"shop", enabled}, nil, Windows, ""},
		{"Windows by selector", "", `"nodeSelector":{"a":"b","kubernetes.io/os":"windows"},` + web, Namespace{"shop", enabled}, nil, Windows, ""},
		{"Windows by its old label", "", `"nodeSelector":{"beta.kubernetes.io/os":"windows"},` + web, Namespace{"shop", enabled}, nil, Windows, ""},
		{"Windows by affinity", "", affinity(`{"key":"kubernetes.io/os","operator":"In","values":["windows"]},{"key":"a","operator":"Exists"}`) + web, Namespace{"shop", enabled}, nil, Windows, ""},
		{"Windows by each of its affinities", "", affinity(`{"key":"beta.kubernetes.io/os","operator":"In","values":["windows"]}`, `{"key":"kubernetes.io/os","operator":"NotIn","values":["linux","x"]}`, `{"key":"node.kubernetes.io/windows-build","operator":"Exists"}`) + web, Namespace{"shop", enabled}, nil, Windows, ""},
		{"Windows by one of its affinities", "", affinity(`{"key":"kubernetes.io/os","operator":"In","values":["windows"]}`, `{"key":"a","operator":"Exists"}`) + web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"both by affinity", "", affinity(`{"key":"kubernetes.io/os","operator":"In","values":["windows","linux"]}`) + web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"not Windows by affinity", "", affinity(`{"key":"kubernetes.io/os","operator":"NotIn","values":["windows"]}`) + web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"an affinity of nothing", "", `"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[]}}},` + web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"an affinity that is null", "", `"affinity":null,` + web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"mirror", `"annotations":{"kubernetes.io/config.mirror":"0"}`, web, Namespace{"shop", enabled}, nil, MirrorPod, ""},
		{"static", `"annotations":{"kubernetes.io/config.source":"file"}`, web, Namespace{"shop", enabled}, nil, MirrorPod, ""},
		{"from the API", `"annotations":{"kubernetes.io/config.source":"api"}`, web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"opts out, may not", `"annotations":{"apss.dev/inject":"false"}`, web, Namespace{"shop", enabled}, nil, Injected, "may not opt out"},
		{"opts out, may by label", `"annotations":{"apss.dev/inject":"false"}`, web, Namespace{"shop", map[string]string{LabelInject: "enabled", LabelOptOut: "allowed"}}, nil, PodOptedOut, ""},
		{"opts out, label, never", `"annotations":{"apss.dev/inject":"false"}`, web, Namespace{"shop", map[string]string{LabelInject: "enabled", LabelOptOut: "allowed"}}, func(s *Settings, _ *Cluster) { s.OptOut = Never }, Injected, "may not opt out"},
		{"opts out, always", `"annotations":{"apss.dev/inject":"false"}`, web, Namespace{"shop", enabled}, func(s *Settings, _ *Cluster) { s.OptOut = Always }, PodOptedOut, ""},
		{"nonsense annotation", `"annotations":{"apss.dev/inject":"nope"}`, web, Namespace{"shop", enabled}, nil, Injected, `is "nope", want "true" or "false"; taken as true`},
		{"a pod cannot opt in", `"annotations":{"apss.dev/inject":"true"}`, web, Namespace{"shop", nil}, nil, NamespaceNotEnabled, ""},
		{"forged status", `"annotations":{"apss.dev/status":"injected"}`, web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"our name", "", `"containers":[{"name":"apss-agent","image":"x"}]`, Namespace{"shop", enabled}, nil, Present, ""},
		{"our volume", "", `"volumes":[{"name":"apss-token"}],` + web, Namespace{"shop", enabled}, nil, Present, ""},
		{"no containers", "", `"containers":[]`, Namespace{"shop", enabled}, nil, NoContainers, ""},
		{"a Job, native", `"ownerReferences":[{"kind":"Job","name":"j","controller":true}]`, `"restartPolicy":"Never",` + web, Namespace{"shop", enabled}, nil, Injected, ""},
		{"a Job, old kubelet", `"ownerReferences":[{"kind":"Job","name":"j","controller":true}]`, web, Namespace{"shop", enabled}, func(_ *Settings, c *Cluster) { c.Minor = 28 }, NeedsNative, ""},
		{"ends by itself, unknown kubelet", "", `"restartPolicy":"OnFailure",` + web, Namespace{"shop", enabled}, func(_ *Settings, c *Cluster) { c.Minor = 0 }, NeedsNative, ""},
		{"a Deployment, old kubelet", "", `"restartPolicy":"Always",` + web, Namespace{"shop", enabled}, func(_ *Settings, c *Cluster) { c.Minor = 28 }, Injected, ""},
	} {
		s, c := Settings{OptOut: ByNamespace, Tier: Auto, Own: "apss"}, Cluster{Minor: 34}
		if tt.change != nil {
			tt.change(&s, &c)
		}
		p, err := pod.Parse(fmt.Appendf(nil, `{"metadata":{%s},"spec":{%s}}`, tt.pod, tt.spec))
		if err != nil {
			t.Fatal(tt.name, err)
		}
		d := Pod(p, tt.ns, &s, c)
		if d.Reason != tt.want || !strings.Contains(strings.Join(d.Warnings, "\n"), tt.warn) || (tt.warn == "") != (len(d.Warnings) == 0) {
			t.Errorf("%s: got %s, warnings %q; want %s, %q", tt.name, d.Reason, d.Warnings, tt.want, tt.warn)
		}
		if d.Reason == Injected && d.Native != (c.Minor >= 29) {
			t.Errorf("%s: native is %t with kubelet 1.%d", tt.name, d.Native, c.Minor)
		}
		if d.Reason.Text() == string(d.Reason) {
			t.Errorf("%s: %s has no text", tt.name, d.Reason)
		}
	}
}

// affinity binds a pod to nodes that fulfil one of these terms.
func affinity(terms ...string) string {
	return `"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[` +
		strings.Join(terms, `]},{"matchExpressions":[`) + `]}]}}},`
}

func TestForm(t *testing.T) {
	psa := func(level string) map[string]string {
		if level == "" {
			return map[string]string{LabelInject: "enabled"}
		}
		return map[string]string{LabelInject: "enabled", labelPSA: level}
	}
	uid := `"securityContext":{"runAsUser":1000,"runAsGroup":3000},"containers":[{"name":"a"},{"name":"b"}]`
	root := `"containers":[{"name":"a"}]`
	for _, tt := range []struct {
		name  string
		spec  string
		asked Tier // by annotation; empty: by the settings
		by    Tier // the settings'; empty: Auto
		label string
		want  string // tier uid gid share
		warn  string
	}{
		{"an unknown uid", root, "", "", "", "pod-full 0 0 true", ""},
		{"one uid", uid, "", "", "", "pod-same-uid 1000 3000 true", ""},
		{"one uid of each container", `"containers":[{"name":"a","securityContext":{"runAsUser":7}},{"name":"b","securityContext":{"runAsUser":7,"runAsGroup":8}}]`, "", "", "", "pod-same-uid 7 - true", ""},
		{"two uids", `"securityContext":{"runAsUser":1000},"containers":[{"name":"a"},{"name":"b","securityContext":{"runAsUser":0}}]`, "", "", "", "pod-full 0 0 true", ""},
		{"one says nothing", `"containers":[{"name":"a","securityContext":{"runAsUser":7}},{"name":"b"}]`, "", "", "", "pod-full 0 0 true", ""},
		{"root by its own words", `"securityContext":{"runAsUser":0},"containers":[{"name":"a"}]`, "", "", "", "pod-full 0 0 true", ""},
		{"restricted, one uid", uid, "", "", "restricted", "pod-same-uid 1000 3000 true", ""},
		{"restricted, unknown", root, "", "", "restricted", "pod-limited 65534 65534 true", "the agent sees little of this pod"},
		{"baseline, unknown", root, "", "", "baseline", "pod-limited 65534 65534 true", "the agent sees little of this pod"},
		{"what is no level", root, "", "", "Baseline", "pod-limited 65534 65534 true", "the agent sees little of this pod"},
		{"privileged is no limit", root, "", "", "privileged", "pod-full 0 0 true", ""},
		{"no shared processes", `"shareProcessNamespace":false,` + uid, "", "", "", "pod-limited 65534 65534 false", ""},
		{"full by annotation", uid, Full, "", "", "pod-full 0 0 true", ""},
		{"full by annotation, restricted", uid, Full, "", "restricted", "pod-same-uid 1000 3000 true", `refuses SYS_PTRACE; taken as pod-same-uid`},
		{"full by the settings, restricted", uid, "", Full, "restricted", "pod-same-uid 1000 3000 true", ""},
		{"full, not shared", `"shareProcessNamespace":false,` + root, Full, "", "", "pod-limited 65534 65534 false", "do not share their processes"},
		{"same uid, unknown", root, SameUID, "", "", "pod-limited 65534 65534 true", "runAsUser; taken as pod-limited"},
		{"limited by annotation", uid, Limited, Full, "", "pod-limited 65534 65534 true", ""},
		{"nonsense", uid, "admin", "", "", "pod-same-uid 1000 3000 true", `is "admin", want pod-full, pod-same-uid or pod-limited; taken as auto`},
	} {
		annotation := ""
		if tt.asked != "" {
			annotation = fmt.Sprintf(`"annotations":{"apss.dev/tier":%q}`, tt.asked)
		}
		p, err := pod.Parse(fmt.Appendf(nil, `{"metadata":{%s},"spec":{%s}}`, annotation, tt.spec))
		if err != nil {
			t.Fatal(tt.name, err)
		}
		s := Settings{OptOut: Never, Tier: Auto}
		if tt.by != "" {
			s.Tier = tt.by
		}
		d := Pod(p, Namespace{"shop", psa(tt.label)}, &s, Cluster{Minor: 34})
		id := func(p *int64) string {
			if p == nil {
				return "-"
			}
			return fmt.Sprint(*p)
		}
		if got := fmt.Sprintf("%s %s %s %t", d.Tier, id(d.UID), id(d.GID), d.Share); got != tt.want {
			t.Errorf("%s: got %s want %s", tt.name, got, tt.want)
		}
		if got := strings.Join(d.Warnings, "\n"); !strings.Contains(got, tt.warn) || (tt.warn == "") != (got == "") {
			t.Errorf("%s: got warnings %q want %q", tt.name, got, tt.warn)
		}
	}
}

// Who keeps its processes to itself, and why a sidecar sees less.
func TestShareAndLess(t *testing.T) {
	const root, uid = `"containers":[{"name":"a"}]`, `"containers":[{"name":"a","securityContext":{"runAsUser":7}}]`
	annotated := func(value string) string { return `"annotations":{"apss.dev/share-processes":"` + value + `"}` }
	for _, tt := range []struct {
		name, metadata, spec string
		settings             Settings
		want                 string // tier, whether processes are shared, less
		warn                 string
	}{
		{"by default", "", root, Settings{}, "pod-full true ", ""},
		{"one user", "", uid, Settings{}, "pod-same-uid true one-user", ""},
		{"the settings say no", "", root, Settings{Unshared: true}, "pod-limited false not-shared", ""},
		{"the settings say no, the annotation yes", annotated("true"), root, Settings{Unshared: true}, "pod-full true ", ""},
		{"the annotation says no", annotated("false"), root, Settings{}, "pod-limited false not-shared", ""},
		{"the annotation says no, and has one user", annotated("false"), uid, Settings{Tier: SameUID}, "pod-limited false not-shared", ""},
		{"the annotation is nonsense", annotated("nope"), root, Settings{}, "pod-full true ", `is "nope", want "true" or "false"; taken as true`},
		{"the pod says no, the annotation yes", annotated("true"), `"shareProcessNamespace":false,` + root, Settings{}, "pod-limited false not-shared", "sets shareProcessNamespace to false, and that holds"},
		{"the pod says yes, the annotation no", annotated("false"), `"shareProcessNamespace":true,` + root, Settings{}, "pod-full true ", "sets shareProcessNamespace to true, and that holds"},
		{"the pod says yes, the settings no", "", `"shareProcessNamespace":true,` + root, Settings{Unshared: true}, "pod-full true ", ""},
		{"held to baseline without a label", "", root, Settings{Security: "baseline"}, "pod-limited true pod-security", `namespace shop is held to Pod Security "baseline"`},
		{"held to restricted without a label, one user", "", uid, Settings{Security: "restricted", Tier: Full}, "pod-same-uid true pod-security", ""},
		{"limited is wanted", "", uid, Settings{Tier: Limited}, "pod-limited true asked-for", ""},
		{"one user is wanted", "", uid, Settings{Tier: SameUID}, "pod-same-uid true asked-for", ""},
		{"one user is wanted, and is not there", "", root, Settings{Tier: SameUID}, "pod-limited true several-users", ""},
	} {
		p, err := pod.Parse(fmt.Appendf(nil, `{"metadata":{%s},"spec":{%s}}`, tt.metadata, tt.spec))
		if err != nil {
			t.Fatal(tt.name, err)
		}
		tt.settings.OptOut = Never
		if tt.settings.Tier == "" {
			tt.settings.Tier = Auto
		}
		if err := tt.settings.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		d := Pod(p, Namespace{"shop", map[string]string{LabelInject: "enabled"}}, &tt.settings, Cluster{Minor: 34})
		if got := fmt.Sprintf("%s %t %s", d.Tier, d.Share, d.Less); got != tt.want {
			t.Errorf("%s: got %s want %s", tt.name, got, tt.want)
		}
		if got := strings.Join(d.Warnings, "\n"); !strings.Contains(got, tt.warn) || (tt.warn == "") != (got == "") {
			t.Errorf("%s: got warnings %q want %q", tt.name, got, tt.warn)
		}
	}
	if (&Settings{OptOut: Never, Tier: Auto, Security: "Baseline"}).Validate() == nil {
		t.Error("a level that is none is accepted")
	}
}
