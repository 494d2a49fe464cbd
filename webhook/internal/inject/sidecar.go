package inject

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/apss-sensor/apss/webhook/internal/decide"
)

// Sidecar is what the operator says of the agent's container.
type Sidecar struct {
	Image    string // by digest
	AnyImage bool   // tests and local clusters: a tag will do
	Cluster  string // name, for CLUSTER_NAME
	Relay    string // URL, for CONTROLLER_ENDPOINT
	RelayCA  string // PEM; empty: the system's authorities
	Audience string // of the token for the relay
	Port     int    // of /metrics /healthz /readyz in the pod's network, where the application has its own
	Spool    string // size of the volume for what is not confirmed yet
	Request  Amount
	Limit    Amount
	// PullSecrets are added to the pods' own: names of Secrets that have to be in their namespaces.
	PullSecrets []string
	Env         map[string]string // further settings of the agent, or others than ours
}

// Amount is of a container's resources, as Kubernetes writes quantities.
type Amount struct{ CPU, Memory string }

var (
	byDigest = regexp.MustCompile(`^[a-z0-9][a-zA-Z0-9._/:-]*@sha256:[0-9a-f]{64}$`)
	envName  = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	// DNS subdomains (https://kubernetes.io/docs/concepts/overview/working-with-objects/names).
	secretName = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
)

// Validate reports all that is wrong with s.
func (s *Sidecar) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !s.AnyImage && !byDigest.MatchString(s.Image) || s.Image == "" {
		fault("the sidecar's image is %q, want one by digest: name@sha256:...", s.Image)
	}
	if u, err := url.Parse(s.Relay); err != nil || u.Scheme != "https" || u.Host == "" {
		fault("the relay is %q, want an address such as https://apss-relay.apss.svc:8444", s.Relay)
	}
	if s.Audience == "" {
		fault("the audience of the relay's token is empty")
	}
	if s.Port < 1024 || s.Port > 65535 {
		fault("the sidecar's port is %d, want 1024 to 65535", s.Port)
	}
	for what, q := range map[string]string{
		"spool": s.Spool, "CPU request": s.Request.CPU, "CPU limit": s.Limit.CPU, "memory request": s.Request.Memory, "memory limit": s.Limit.Memory,
	} {
		if v, err := resource.ParseQuantity(q); err != nil || v.Sign() <= 0 {
			fault("the sidecar's %s is %q, want a quantity such as 50m or 64Mi", what, q)
		}
	}
	if v, err := resource.ParseQuantity(s.Spool); err == nil && v.Value() < minSpool {
		fault("the sidecar's spool is %q, want 8Mi or more", s.Spool)
	}
	for _, name := range s.PullSecrets {
		if !secretName.MatchString(name) {
			fault("%q is no name of a Secret", name)
		}
	}
	for name := range s.Env {
		if !envName.MatchString(name) {
			fault("%q is no name of a setting of the agent", name)
		}
	}
	return errors.Join(errs...)
}

// Paths in the sidecar.
const (
	spoolPath = "/var/lib/apss"
	tokenPath = "/var/run/secrets/apss" //nolint:gosec // a path
)

// The parts of a container that we write, as Kubernetes names them.
type (
	container struct {
		Name            string        `json:"name"`
		Image           string        `json:"image"`
		RestartPolicy   string        `json:"restartPolicy,omitzero"`
		SecurityContext security      `json:"securityContext"`
		Env             []env         `json:"env"`
		Ports           []port        `json:"ports,omitempty"`
		Resources       resources     `json:"resources"`
		VolumeMounts    []volumeMount `json:"volumeMounts"`
	}
	security struct {
		User                     int64          `json:"runAsUser"` // a mark, see template
		NonRoot                  bool           `json:"runAsNonRoot"`
		Privileged               bool           `json:"privileged"`
		AllowPrivilegeEscalation bool           `json:"allowPrivilegeEscalation"`
		ReadOnlyRoot             bool           `json:"readOnlyRootFilesystem"`
		Capabilities             capabilities   `json:"capabilities"`
		Seccomp                  seccompProfile `json:"seccompProfile"`
	}
	capabilities struct {
		Add  []string `json:"add,omitempty"`
		Drop []string `json:"drop"`
	}
	seccompProfile struct {
		Type string `json:"type"`
	}
	env struct {
		Name  string     `json:"name"`
		Value string     `json:"value,omitzero"`
		From  *envSource `json:"valueFrom,omitzero"`
	}
	envSource struct {
		Field fieldRef `json:"fieldRef"`
	}
	fieldRef struct {
		Version string `json:"apiVersion"`
		Path    string `json:"fieldPath"`
	}
	port struct {
		Name     string `json:"name"`
		Port     int    `json:"containerPort"`
		Protocol string `json:"protocol"`
	}
	resources struct {
		Requests amount `json:"requests"`
		Limits   amount `json:"limits,omitzero"`
	}
	amount struct {
		CPU     string `json:"cpu,omitzero"`
		Memory  string `json:"memory,omitzero"`
		Storage string `json:"ephemeral-storage,omitzero"`
	}
	volumeMount struct {
		Name     string `json:"name"`
		Path     string `json:"mountPath"`
		ReadOnly bool   `json:"readOnly,omitzero"`
	}
	volume struct {
		Name      string     `json:"name"`
		EmptyDir  *emptyDir  `json:"emptyDir,omitzero"`
		Projected *projected `json:"projected,omitzero"`
	}
	emptyDir struct {
		SizeLimit string `json:"sizeLimit"`
	}
	projected struct {
		Mode    int      `json:"defaultMode"`
		Sources []source `json:"sources"`
	}
	source struct {
		Token serviceAccountToken `json:"serviceAccountToken"`
	}
	serviceAccountToken struct {
		Audience   string `json:"audience"`
		Expiration int    `json:"expirationSeconds"`
		Path       string `json:"path"`
	}
)

// container is the sidecar of a tier. There is no probe that the pod's start or readiness would wait for, and no hook: the
// agent sends what it has when it is told to end, a native one after all others ended.
func (s *Sidecar) container(f form) container {
	events, alerts, segment := s.spool()
	c := container{
		Name:  decide.Sidecar,
		Image: s.Image,
		SecurityContext: security{
			User: -1, NonRoot: f.tier != decide.Full, ReadOnlyRoot: true,
			Capabilities: capabilities{Drop: []string{"ALL"}}, Seccomp: seccompProfile{"RuntimeDefault"},
		},
		Ports:        []port{{"apss-metrics", s.Port, "TCP"}},
		Resources:    resources{Requests: amount{Storage: canonical(s.Spool)}},
		VolumeMounts: []volumeMount{{decide.SpoolVolume, spoolPath, false}, {decide.TokenVolume, tokenPath, true}},
		Env: []env{
			{Name: "WORKLOAD", Value: "@workload@"},
			{Name: "POD_NAME", From: field("metadata.name")},
			{Name: "POD_NAMESPACE", From: field("metadata.namespace")},
			{Name: "POD_UID", From: field("metadata.uid")},
			{Name: "NODE_NAME", From: field("spec.nodeName")},
			{Name: "CLUSTER_NAME", Value: s.Cluster},
			{Name: "PUBLISHER", Value: "relay"},
			{Name: "CONTROLLER_ENDPOINT", Value: s.Relay},
			{Name: "RELAY_TOKEN_FILE", Value: tokenPath + "/token"},
			{Name: "HTTP_ADDR", Value: ":" + strconv.Itoa(s.Port)},
			{Name: "SPOOL_DIR", Value: spoolPath + "/spool"},
			{Name: "SPOOL_MAX_BYTES", Value: events},
			{Name: "SPOOL_ALERTS_MAX_BYTES", Value: alerts},
			{Name: "SPOOL_SEGMENT_BYTES", Value: segment},
			{Name: "STATE_DIR", Value: spoolPath + "/state"},
		},
	}
	if f.silent {
		c.Ports = nil
		c.Env[slices.IndexFunc(c.Env, func(e env) bool { return e.Name == "HTTP_ADDR" })].Value = "off"
	}
	if f.capped {
		c.Resources.Limits.Storage = canonical(s.Spool)
	}
	if !f.pooled {
		c.Resources.Requests.CPU, c.Resources.Requests.Memory = canonical(s.Request.CPU), canonical(s.Request.Memory)
		c.Resources.Limits.CPU, c.Resources.Limits.Memory = canonical(s.Limit.CPU), canonical(s.Limit.Memory)
	}
	if s.RelayCA != "" {
		c.Env = append(c.Env, env{Name: "RELAY_CA", Value: s.RelayCA})
	}
	for _, name := range sortedKeys(s.Env) {
		e := env{Name: name, Value: s.Env[name]}
		if i := slices.IndexFunc(c.Env, func(e env) bool { return e.Name == name }); i >= 0 {
			c.Env[i] = e // twice would be a warning at each pod
		} else {
			c.Env = append(c.Env, e)
		}
	}
	if f.native {
		c.RestartPolicy = "Always"
	}
	if f.tier == decide.Full {
		c.SecurityContext.Capabilities.Add = []string{"SYS_PTRACE", "DAC_OVERRIDE"}
	}
	return c
}

// minSpool leaves the agent files of a sensible size.
const minSpool = 8 << 20

// spool divides the volume between the agent's events, its alerts, a file that is begun in each, and what its sensors
// remember: the kubelet evicts the pod, and the application with it, when a volume exceeds its size
// (https://kubernetes.io/docs/concepts/storage/volumes/#emptydir).
func (s *Sidecar) spool() (events, alerts, segment string) {
	v := resource.MustParse(s.Spool) // Validate has seen it
	part := v.Value() / 16
	text := func(n int64) string { return strconv.FormatInt(n, 10) }
	return text(8 * part), text(2 * part), text(min(part, 4<<20))
}

// canonical writes a quantity as the API server does.
func canonical(q string) string {
	v := resource.MustParse(q) // Validate has seen it
	return v.String()
}

func field(path string) *envSource { return &envSource{fieldRef{"v1", path}} }

// tokenLife: the kubelet renews a token when 80 % of it is over; 10 minutes is the least that is allowed
// (https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken).
const tokenLife = 3600

// volumes are those of the sidecar, named as in package decide.
func (s *Sidecar) volumes() []volume {
	return []volume{
		{Name: decide.SpoolVolume, EmptyDir: &emptyDir{canonical(s.Spool)}},
		{Name: decide.TokenVolume, Projected: &projected{0o444, []source{{serviceAccountToken{s.Audience, tokenLife, "token"}}}}},
	}
}
