package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/secret"
)

// chat is a kind with a setting of every sort.
type chat struct {
	URL       Secret            `yaml:"webhook_url"`
	Channel   string            `yaml:"channel"`
	Mention   []string          `yaml:"mention"`
	Headers   map[string]Secret `yaml:"headers"`
	Labels    map[string]string `yaml:"labels"`
	Port      uint16            `yaml:"port"`
	Depth     int               `yaml:"depth"`
	Share     float64           `yaml:"share"`
	Wait      time.Duration     `yaml:"wait"`
	Least     event.Severity    `yaml:"least"`
	TLS       *chatTLS          `yaml:"tls"`
	chatExtra `yaml:",inline"`
}

type chatTLS struct {
	Verify bool   `yaml:"verify"`
	Key    Secret `yaml:"key"`
}

type chatExtra struct {
	Unfurl bool `yaml:"unfurl"`
}

func (c *chat) Validate() error {
	var errs []error
	if !c.URL.Set() {
		errs = append(errs, errors.New("webhook_url: is required"))
	}
	if c.Port == 1 {
		errs = append(errs, errors.New("with port 1 nothing works"))
	}
	return errors.Join(errs...)
}

func (*chat) New(Env) (Integration, error) { return nil, errors.New("not in this test") }

// vault is a source that is reached by secret://.
type vault struct {
	ref string
	err error
}

func (v vault) Get(context.Context) (secret.Value, error) {
	return secret.New("value of " + v.ref), v.err
}
func (vault) Refresh() {}

func document(local bool) Document {
	return Document{
		Local: local,
		Kinds: []Kind{
			{Name: "chat", Rate: Rate{PerMinute: 60, Burst: 5}, Settings: func() Settings { return &chat{Port: 443} }},
			{Name: "pager", Settings: func() Settings { return &chat{} }},
		},
		Schemes: secret.Schemes{"secret": func(ref string) (secret.Source, error) {
			switch {
			case strings.Contains(ref, "malformed"):
				return nil, errors.New("a reference is secret://projects/P/secrets/S/versions/V")
			case strings.Contains(ref, "gone"):
				return vault{err: errors.New("there is no such secret")}, nil
			}
			return vault{ref: ref}, nil
		}},
	}
}

var compare = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.AllowUnexported(chat{}),
	cmp.Comparer(func(a, b Secret) bool {
		if !a.Set() || !b.Set() {
			return a.Set() == b.Set()
		}
		va, _ := a.Get(context.Background())
		vb, _ := b.Get(context.Background())
		return a.Ref == b.Ref && va.Equal(vb)
	}),
}

func TestDocument(t *testing.T) {
	t.Setenv("APSS_TEST_CHANNEL", "#from-env")
	t.Setenv("APSS_TEST_PORT", "8443")
	ref := func(s string) Secret { return Secret{vault{ref: s}, s} }
	full := Instance{
		Name: "oncall", Kind: "chat", Enabled: true,
		Route: Route{MinSeverity: event.High, Types: []Glob{"file_*", "process_exec"}, Rules: []Glob{"APSS-0*"}, Namespaces: []Glob{"prod-*"}, Clusters: []Glob{"*"}},
		Rate:  Rate{PerMinute: 30, Burst: 3},
		Group: Group{Window: 10 * time.Minute, ResolveAfter: 2 * time.Hour, DigestEvery: time.Minute},
		Settings: &chat{URL: ref("secret://hook"), Channel: "#from-env", Mention: []string{"a", "b"}, Headers: map[string]Secret{"x-key": ref("secret://key")},
			Labels: map[string]string{"team": "007"}, Port: 8443, Depth: -3, Share: 0.5, Wait: time.Minute, Least: event.Low,
			TLS: &chatTLS{Verify: true, Key: ref("secret://tls")}, chatExtra: chatExtra{Unfurl: true}},
	}
	quiet := Instance{Name: "pager", Kind: "pager", Group: DefaultGroup(), Settings: &chat{Channel: "env://NOT_SET_AND_NOT_READ"}}
	tests := []struct {
		name, text string
		want       []Instance
	}{
		{"nothing", "", nil},
		{"comment", "# none yet\n", nil},
		{"empty list", "[]", nil},
		{"yaml", `
- name: oncall
  kind: chat
  enabled: true
  route: {min_severity: high, types: ["file_*", process_exec], rules: APSS-0*, namespaces: [prod-*], clusters: ['*']}
  rate: {per_minute: 30, burst: 3}
  group:
    window: 10m
    resolve_after: 2h
  webhook_url: secret://hook
  channel: env://APSS_TEST_CHANNEL
  mention: [a, b]
  headers: {x-key: secret://key}
  labels: {team: 007}
  port: env://APSS_TEST_PORT
  depth: -3
  share: 0.5
  wait: 1m
  least: LOW
  tls: {verify: true, key: secret://tls}
  unfurl: true
- kind: pager
  channel: env://NOT_SET_AND_NOT_READ
  port: env://NOT_SET_AND_NOT_READ
  least: env://NOT_SET_AND_NOT_READ
  webhook_url:
`, []Instance{full, quiet}},
		{"json with tabs and escapes", "[\n\t{\"kind\":\t\"pager\", \"channel\": \"env:\\/\\/NOT_SET_AND_NOT_READ\"}\n]", []Instance{quiet}},
		{"json beyond 16 bits", `[{"kind":"pager","channel":"\\ud83d\ud83d\ude00"}]`,
			[]Instance{{Name: "pager", Kind: "pager", Group: DefaultGroup(), Settings: &chat{Channel: `\ud83d😀`}}}},
		{"the kind's rate", "- {kind: chat}", []Instance{{Name: "chat", Kind: "chat", Rate: Rate{PerMinute: 60, Burst: 5}, Group: DefaultGroup(), Settings: &chat{Port: 443}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := document(false).Read(t.Context(), []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, compare); diff != "" {
				t.Errorf("instances (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDocumentFaults(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string // one line of the error each
	}{
		{"all at once", `
- name: On Call
  kind: chta
  enabled: yes
- name: second
  kind: chat
  enabled: true
  webhook_ulr: secret://hook
  route: {min_severity: HIHG, types: [file_modfy], namespace: [x]}
  rate: {per_minute: -1, bursts: 3}
  group: {window: 5, resolve_after: 1s}
  port: 70000
  tls: {verify: 1, ke: x}
  zzz: 1
- just text
- name: second
  kind: pager
  name: again
`, []string{
			`line 2: "On Call": name: "On Call" is no name; write small letters, digits and dashes, at most 63`,
			`line 3: "On Call": kind: "chta" is none; did you mean chat?`,
			`line 4: "On Call": enabled: "yes" is not "true" or "false"`,
			`line 5: second: webhook_url: is required`,
			`line 8: second: webhook_ulr: an integration of kind chat has no such key; did you mean webhook_url?`,
		}},
		{"no list", "name: x", []string{`line 1: the document is not a list of integrations; start each with "- name: ..."`}},
		{"two documents", "- kind: chat\n---\n- kind: pager", []string{`there is a second document`}},
		{"no YAML", "- kind: chat\n  x: [", []string{`the document is neither YAML nor JSON: `}},
		{"kind missing", "- name: x", []string{`line 1: x: kind: is required: one of chat, pager`}},
		{"far kind", "- kind: telegraph", []string{`line 1: telegraph: kind: "telegraph" is none; there are chat, pager`}},
		{"alias", "- &a {kind: chat}\n- *a", []string{"line 1: anchors and aliases are not read; write the value out"}},
		{"merge", "- <<: {kind: chat}\n  kind: chat", []string{`line 1: chat: merge keys are not read; write the keys out`}},
		{"tag", "- kind: !secret chat", []string{"line 1: tags are not read; put a text that starts with ! in quotes"}},
		{"plain secret", "- {kind: chat, webhook_url: hunter2}", []string{`line 1: chat: webhook_url: a secret is written here; keep it in Secret Manager`}},
		{"plain secret deep down", "- {kind: chat, headers: {x: hunter2}, tls: {key: hunter2}}", []string{
			`headers.x: a secret is written here`, `tls.key: a secret is written here`}},
		{"unknown scheme", "- {kind: chat, webhook_url: vault://hunter2}", []string{`webhook_url: a secret reference of unknown scheme`}},
		{"malformed reference", "- {kind: chat, webhook_url: secret://malformed/hunter2}", []string{`webhook_url: a reference is secret://projects/`}},
		{"text that refers to nothing", "- {kind: chat, enabled: true, webhook_url: secret://x, channel: secret://gone}", []string{`channel: there is no such secret`}},
		{"number that refers to a text", "- {kind: chat, enabled: true, webhook_url: secret://x, port: secret://hunter2}", []string{`port: what it refers to is not a whole number`}},
		{"severity that refers to a text", "- {kind: chat, enabled: true, webhook_url: secret://x, least: secret://hunter2}", []string{`least: what it refers to is not accepted`}},
		{"validated", "- {kind: chat, enabled: true, webhook_url: secret://x,\n    port: 1}", []string{`line 2: chat: with port 1 nothing works`}},
		{"wrong shapes", "- {kind: chat, webhook_url: [a], channel: {}, route: 3, labels: x, mention: [[]], wait: 5, share: x}", []string{
			`webhook_url: is not one value`, `channel: is not one value`, `route: is not a set`, `labels: is not a set`, `mention[0]: is not one value`,
			`wait: "5" is not a duration`, `share: "x" is not a number`}},
		{"route", "- {kind: chat,\n    route: {types: [file_modfy, nothing_like_it], rules: [''], clusters: [" + strings.Repeat("x", 257) + "]}}", []string{
			`line 2: chat: route.rules[0]: a pattern has 1 to 256 bytes, not 0`, `line 2: chat: route.clusters[0]: a pattern has`}},
		{"types", "- {kind: chat, route: {types: [file_modfy, nothing_like_it]}}", []string{
			`route: types: "file_modfy" matches no type of event; did you mean file_modify?`, `route: types: "nothing_like_it" matches no type of event`}},
		{"rate and group", "- {kind: chat, rate: {per_minute: 1e9, burst: -1}, group: {window: 1h, resolve_after: 10m, digest_every: 1m}}", []string{
			`rate: per_minute is`, `rate: burst is -1, want`, `group: resolve_after is 10m0s, want more than window, 1h0m0s`}},
		{"twice", "- kind: chat\n- kind: chat", []string{`line 2: chat: name: chat is taken by the one in line 1`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := document(false).Read(t.Context(), []byte(tt.text))
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the secret:\n%v", err)
			}
		})
	}
}

// TestDocumentBounds: documents that cost more than they should are refused, and soon.
func TestDocumentBounds(t *testing.T) {
	for name, text := range map[string]string{
		"large":    "# " + strings.Repeat("x", maxDocument),
		"deep":     strings.Repeat("[", 10_000),
		"nested":   "- " + strings.Repeat("{a: ", 20) + "1" + strings.Repeat("}", 20),
		"numerous": "[" + strings.Repeat("1,", maxNodes) + "1]",
		"laughs":   "- &a [x, x]\n- &b [*a, *a]\n- &c [*b, *b]\n",
	} {
		if _, err := document(true).Read(t.Context(), []byte(text)); err == nil || len(err.Error()) > 1<<10 {
			t.Errorf("%s: got %.200v, want one fault", name, err)
		}
	}
}

func TestLocal(t *testing.T) {
	got, err := document(true).Read(t.Context(), []byte("- {kind: chat, enabled: true, webhook_url: 'https://hooks.example/x'}"))
	if err != nil {
		t.Fatal(err)
	}
	want := Secret{Source: secret.Plain{Value: secret.New("https://hooks.example/x")}}
	if diff := cmp.Diff(want, got[0].Settings.(*chat).URL, compare); diff != "" {
		t.Errorf("secret (-want +got):\n%s", diff)
	}
}

func TestShortcut(t *testing.T) {
	variables := map[string]string{"webhook_url": "CHAT_WEBHOOK_URL", "port": "CHAT_PORT"}
	got, err := document(false).Read(t.Context(), []byte("- {kind: pager}"), Shortcut{
		Kind: "chat", Variables: variables, Values: map[string]secret.Value{"webhook_url": secret.New("https://hooks.example/hunter2")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Instance{Name: "chat", Kind: "chat", Enabled: true, Rate: Rate{PerMinute: 60, Burst: 5}, Group: DefaultGroup(),
		Settings: &chat{Port: 443, URL: Secret{Source: secret.Plain{Value: secret.New("https://hooks.example/hunter2")}}}}
	if diff := cmp.Diff(want, got[1], compare); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	tests := []struct {
		name, text string
		values     map[string]secret.Value
		want       string
	}{
		{"missing", "", map[string]secret.Value{"port": secret.New("1")}, "CHAT_WEBHOOK_URL: is required"},
		{"wrong", "", map[string]secret.Value{"port": secret.New("x")}, `CHAT_PORT: "x" is not a whole number`},
		{"in both", "- {kind: chat}", map[string]secret.Value{"webhook_url": secret.New("x")}, "name: chat is taken by the one in line 1"},
	}
	for _, tt := range tests {
		_, err := document(false).Read(t.Context(), []byte(tt.text), Shortcut{Kind: "chat", Variables: variables, Values: tt.values})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want it to say %q", tt.name, err, tt.want)
		}
	}
}

func TestText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "integrations.yaml")
	if err := os.WriteFile(file, []byte("- {kind: chat}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		file: "- {kind: chat}", "file://" + file: "- {kind: chat}", "": "", "[]": "[]", "- kind: chat": "- kind: chat", "# none": "# none",
	} {
		if got, err := Text(value); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q", value, got, err, want)
		}
	}
	for _, value := range []string{file + ".missing", "secret://projects/p", "gs://bucket/file"} {
		if got, err := Text(value); err == nil {
			t.Errorf("%q: got %q, want an error", value, got)
		}
	}
}

// FuzzDocument: any text is read or refused, at a bounded cost, and no fault tells the secret.
func FuzzDocument(f *testing.F) {
	for _, text := range []string{
		"", "- kind: chat", "- {kind: chat, enabled: true, webhook_url: hunter2-hunter2}", "[{\"kind\":\"chat\",\"headers\":{\"a\":\"hunter2-hunter2\"}}]",
		"- &a {kind: chat}\n- *a", "- <<: [*x]", "---\n...\n---", "- {kind: chat, route: {min_severity: high, types: ['*']}}", "[\t]", "- webhook_url: *hunter2-hunter2",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		instances, err := document(false).Read(t.Context(), text)
		if err != nil {
			return
		}
		for _, in := range instances {
			if in.Settings == nil || !namePattern.MatchString(in.Name) {
				t.Errorf("read without a fault: %+v", in)
			}
			if url := in.Settings.(*chat).URL; url.Set() && url.Ref == "" {
				t.Error("a plain secret was read")
			}
		}
	})
}
