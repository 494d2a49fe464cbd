package policy

import (
	"flag"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	repository = "../.."
	terraform  = "infra/terraform"
)

func load(t *testing.T, files fs.FS) *Config {
	t.Helper()
	c, err := Load(files, terraform)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mutated is the repository in which old was replaced by new in a file.
func mutated(t *testing.T, file, from, to string) fs.FS {
	t.Helper()
	source, err := os.ReadFile(repository + "/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(source), from) == 0 {
		t.Fatalf("%s has no %q: the mutation says nothing", file, from)
	}
	return overlay{os.DirFS(repository), fstest.MapFS{file: &fstest.MapFile{Data: []byte(strings.ReplaceAll(string(source), from, to))}}}
}

type overlay struct {
	fs.FS
	over fstest.MapFS
}

func (o overlay) Open(name string) (fs.File, error) {
	if o.over[name] != nil {
		return o.over.Open(name)
	}
	return o.FS.Open(name)
}

func (o overlay) ReadFile(name string) ([]byte, error) {
	if f := o.over[name]; f != nil {
		return f.Data, nil
	}
	return fs.ReadFile(o.FS, name)
}

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile("testdata/"+name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("testdata/%s (-want +got); when it is meant so, go test ./infra/policy -update writes it, and a reviewer reads it:\n%s", name, diff)
	}
}

// TestRules: no rule finds a fault in the configuration, and each finds the one that a mutation makes.
func TestRules(t *testing.T) {
	const (
		pubsub     = terraform + "/pubsub/"
		identities = terraform + "/identities.tf"
	)
	type mutation struct{ file, from, to, want string }
	rules := []struct {
		name      string
		rule      func(*Config) []string
		mutations []mutation
	}{
		{"References", References, []mutation{
			{identities, "google_service_account.scheduler.member", "google_service_account.schedule.member", "there is no resource google_service_account.schedule"},
			{terraform + "/functions.tf", "local.deadlines.linger", "local.dedlines.linger", "there is no local dedlines"},
			{terraform + "/outputs.tf", "var.edge.namespace", "var.egde.namespace", "there is no variable egde"},
			{terraform + "/functions.tf", "module.pubsub.topics", "module.pubsub.topic", "there is no output topic of module pubsub"},
			{terraform + "/pubsub.tf", "agent     =", "agents     =", "module pubsub has no variable agents"},
			{terraform + "/pubsub.tf", "agent     =", "#", "module pubsub is not given its variable agent"},
		}},
		{"TooWide", TooWide, []mutation{
			{identities, "google_pubsub_topic_iam_member\" \"health\"", "google_pubsub_topic_iam_binding\" \"health\"", "takes away what others have granted"},
			{terraform + "/artifacts.tf", `"roles/storage.objectViewer"`, `"roles/storage.admin"`, "more than anything here needs"},
			{identities, "member   = google_service_account.push[each.key].member", `member = "allUsers"`, "is for everybody"},
			{terraform + "/state.tf", "condition {", "lifecycle {", "on the whole project has no condition"},
			{terraform + "/archive.tf", `"roles/storage.objectCreator"`, `"roles/storage.objectAdmin"`, "more than anything here needs"},
			{identities, `"google_cloud_run_v2_service_iam_member" "operators"`, `"google_service_account_key" "operators"`, "keys of service accounts"},
		}},
		{"Subscriptions", Subscriptions, []mutation{
			{pubsub + "subscriptions.tf", `ttl = ""`, `ttl = "2678400s"`, "google_pubsub_subscription.way: expires"},
			{pubsub + "topics.tf", "expiration_policy {", "lifecycle {", "google_pubsub_subscription.dead: expires after 31 idle days"},
			{pubsub + "subscriptions.tf", "audience  ", "#", "pushes without an identity"},
			{pubsub + "grants.tf", `"roles/pubsub.publisher"`, `"roles/pubsub.viewer"`, "may not publish to google_pubsub_topic.dead"},
			{pubsub + "grants.tf", `"roles/pubsub.subscriber"`, `"roles/pubsub.viewer"`, "may not acknowledge"},
			{pubsub + "grants.tf", "for_each = var.ways", `for_each = { for w, x in var.ways : w => x if x.topic == "events" }`, "may not acknowledge"},
			{pubsub + "topics.tf", "google_pubsub_topic.dead.id", `google_pubsub_topic.way["events"].id`, "no subscription that keeps the dead letters"},
		}},
		{"Deadlines", Deadlines, []mutation{
			{terraform + "/deadlines.tf", "answer  = 45", "answer  = 30", "is not more than"},
			{terraform + "/deadlines.tf", "ack     = 60", "ack     = 45", "is not less than"},
			{terraform + "/deadlines.tf", "request = 60", "request = 45", "Cloud Run cuts off"},
			{terraform + "/deadlines.tf", "linger  = 0.05", "linger  = 0.5", "FORWARD_LINGER"},
			{"functions/internal/program/settings.go", `FORWARD_CALL_TIMEOUT, default=10s`, `FORWARD_CALL_TIMEOUT, default=11s`, "FORWARD_CALL_TIMEOUT"},
			{"functions/internal/program/settings.go", `callTries = 2`, `callTries = 4`, "is not more than"},
			{pubsub + "subscriptions.tf", "ack_deadline_seconds       = var.deadlines.ack", "ack_deadline_seconds       = 50", "google_pubsub_subscription.agents"},
			{terraform + "/functions.tf", "local.deadlines.request", "300", "timeout_seconds"},
		}},
		{"Settings", Settings, []mutation{
			{terraform + "/functions.tf", "FORWARD_LINGER  ", "FORWARD_LINGERS  ", "FORWARD_LINGERS is no setting"},
			{terraform + "/functions.tf", "PUBSUB_PROJECT_ID  ", "PUBSUB_PROJECT  ", "PUBSUB_PROJECT_ID is required"},
			{"functions/internal/program/settings.go", "LOG_LEVEL, default=INFO", "LOG_LEVEL_OF_ALL, default=INFO", "LOG_LEVEL is no setting"},
		}},
		{"Kinds", Kinds, []mutation{
			{terraform + "/kinds.tf", "    discord = {", "    teams = {", "discord cannot be enabled"},
			{terraform + "/kinds.tf", "    discord = {", "    teams = {", "teams is no integration"},
			{terraform + "/kinds.tf", `["routing_key", "region"]`, `["routing_key"]`, "pagerduty: the key region"},
			{terraform + "/kinds.tf", `secrets  = ["password"]`, `secrets  = []`, "email: password is a secret"},
			{terraform + "/kinds.tf", `"gov"]`, `"gov", "team"]`, "slack: there is no key team"},
			{terraform + "/kinds.tf", "events   = true", "events   = false", "sweetsecurity: takes events"},
			{terraform + "/kinds.tf", `"agent_coverage", `, "", "event_types"},
			{terraform + "/kinds.tf", `"LOW", `, "", "severities"},
			{"functions/internal/integration/instance.go", "yaml:\"burst\"", "yaml:\"bursts\"", "rate"},
		}},
		{"Documented", Documented, []mutation{
			{terraform + "/variables.tf", `variable "labels"`, `variable "label"`, "README.md does not have the variable label"},
			{terraform + "/outputs.tf", `output "registry"`, `output "images"`, "README.md has the output registry"},
			{terraform + "/budget.tf", `"google_billing_budget" "project"`, `"google_billing_budget" "all"`, "google_billing_budget.all"},
			{terraform + "/variables.tf", "Level of the functions' logs", "Level of logs", "log_level otherwise"},
		}},
		{"Builds", Builds, []mutation{
			{"Makefile", "\ndist:", "\nzips:", "there is no target dist"},
			{"cloudbuild.yaml", "args: [check]", "args: [checks]", "does not call make check"},
			{"cloudbuild.yaml", "infra/build/chart", "infra/build/charts", "infra/build/charts"},
			{terraform + "/artifacts.tf", "_BUCKET ", "_BUCKETS ", "the trigger gives no _BUCKET"},
			{"cloudbuild.yaml", "    waitFor: [check, test]", "    waitsFor: [check, test]", `unknown field "waitsFor"`},
			{"cloudbuild.yaml", "timeout: 3600s", "timeout: 1h", "invalid google.protobuf.Duration"},
			{"cloudbuild.yaml", "CLOUD_LOGGING_ONLY", "CLOUD_ONLY", "CLOUD_ONLY"},
			{"cloudbuild.yaml", "waitFor: [images]", "waitFor: [upload]", "chart waits for upload"},
			{"cloudbuild.yaml", "$$BUCKET/charts", "$BUCKET/charts", "upload uses $BUCKET"},
		}},
		{"Words", Words, []mutation{
			{"functions/internal/health/agent.go", `"an agent is silent"`, `"an agent says nothing"`, "an agent is silent"},
			{"functions/internal/health/complain.go", `_canary_age_seconds`, `_canary_age`, "canary_age_seconds"},
			{terraform + "/monitoring.tf", `field  = "agent_id"`, `field  = "agent_name"`, "a field agent_name"},
		}},
		{"Pages", Pages, []mutation{
			{"README.md", "-var project=", "-var projekt=", "no example has a variable projekt"},
			{"README.md", "terraform output helm_command", "terraform output next", "no example has an output next"},
			{"README.md", "docs/install.md", "docs/installs.md", "there is no docs/installs.md"},
			{"README.md", "    make dist", "    make zips", "there is no target zips"},
			{"docs/install.md", "--set images.tag=", "--set image.tag=", "the chart has no value image.tag"},
			{"docs/health.md", "apssctl dlq replay -integration", "apssctl dlq replay -intgration", "apssctl dlq replay has no flag -intgration"},
			{"docs/health.md", "apssctl status ", "apssctl state ", "there is no use apssctl state"},
			{"docs/add-slack.md", "  integrations = [{", "  integration = [{", "the module has no variable integration"},
			{"docs/identities.md", "roles/bigquery.dataEditor", "roles/bigquery.dataOwner", "nobody is granted roles/bigquery.dataOwner"},
			{terraform + "/identities.tf", "roles/monitoring.viewer", "roles/monitoring.editor", "does not tell of roles/monitoring.editor"},
		}},
		{"Services", Services, []mutation{
			{terraform + "/services.tf", `    "logging.googleapis.com",`, "", "google_logging_metric.function needs logging.googleapis.com"},
			{terraform + "/services.tf", `["bigquery.googleapis.com"]`, "[]", "google_bigquery_dataset.archive needs bigquery.googleapis.com"},
			{terraform + "/budget.tf", `"google_billing_budget" "project"`, `"google_compute_network" "project"`, "which service has google_compute_network is not known"},
		}},
		{"Publishers", Publishers, []mutation{
			{terraform + "/workload_identity.tf", `webhook = ["events"]`, `webhook = ["events", "alerts"]`, "webhook may publish [alerts events], and its settings have [events]"},
			{terraform + "/workload_identity.tf", `relay = ["events", "alerts"]`, `relay = ["events"]`, "relay may publish [events]"},
			{"webhook/cmd/apss-webhook/settings.go", "EVENTS_TOPIC, default", "TOPIC, default", "webhook may publish [events], and its settings have []"},
			{"infra/helm/apss/templates/_helpers.tpl", `}}-{{ .component }}
`, `}}-of-{{ .component }}
`, "the chart names its service accounts otherwise"},
		}},
		{"Alarms", Alarms, []mutation{
			{terraform + "/alerts.tf", "    dead_letters = {", "    dead = {", "no policy dead_letters"},
			{terraform + "/monitoring.tf", "    silent_agents = {", "    agents = {", "no policy silent_agents"},
			{terraform + "/alerts.tf", "subscription/oldest_unacked_message_age", "subscription/oldest_message_age", "waiting: there is no metric pubsub.googleapis.com/subscription/oldest_message_age"},
			{terraform + "/dashboard.tf", "run.googleapis.com/request_latencies", "run.googleapis.com/latencies", "dashboard: there is no metric run.googleapis.com/latencies"},
			{terraform + "/alerts.tf", `\"apss-dead-letters\"`, `\"apss-dead\"`, "dead_letters: there is no apss-dead"},
			{terraform + "/alerts.tf", `apssctl dlq list`, `apssctl dlq ls`, "there is no use \"dlq ls\" of apssctl"},
		}},
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, fault := range r.rule(load(t, os.DirFS(repository))) {
				t.Error(fault)
			}
			for _, m := range r.mutations {
				got := strings.Join(r.rule(load(t, mutated(t, m.file, m.from, m.to))), "\n")
				if !strings.Contains(got, m.want) {
					t.Errorf("%s with %q for %q: got %q, want a fault that says %q", m.file, m.to, m.from, got, m.want)
				}
			}
		})
	}
}

// TestGrants: who may do what is what a reviewer has read.
func TestGrants(t *testing.T) {
	before := Grants(load(t, os.DirFS(repository)))
	golden(t, "grants.txt", before)
	if Grants(load(t, mutated(t, terraform+"/identities.tf", "roles/run.invoker", "roles/run.developer"))) == before {
		t.Error("another role is the same to it")
	}
	if Grants(load(t, mutated(t, terraform+"/workload_identity.tf", `webhook = ["events"]`, `webhook = ["events", "alerts"]`))) == before {
		t.Error("another publisher is the same to it")
	}
}

// TestRefusals: wrong variables are refused in sentences that name the variable and a right example. The variables are those of
// terraform's own test, so that both refuse the same.
func TestRefusals(t *testing.T) {
	c := load(t, os.DirFS(repository))
	body, err := parse(os.DirFS(repository), terraform+"/tests/invalid.tftest.hcl")
	if err != nil {
		t.Fatal(err)
	}
	common := arguments(t, block(body, "variables"))
	if sentences := refusals(t, c.Plan(common)); len(sentences) > 0 {
		t.Errorf("what is right is refused: %q", sentences)
	}
	var out strings.Builder
	for _, run := range body.Blocks {
		if run.Type != "run" {
			continue
		}
		values := arguments(t, block(run.Body, "variables"))
		for name, v := range common {
			if _, given := values[name]; !given {
				values[name] = v
			}
		}
		sentences := refusals(t, c.Plan(values))
		if len(sentences) == 0 {
			t.Errorf("%s: nothing is refused", run.Labels[0])
		}
		for _, s := range sentences {
			out.WriteString(run.Labels[0] + "\n  " + s + "\n")
			variable, _, _ := strings.Cut(s, ":")
			variable, _, _ = strings.Cut(variable, ".")
			if c.variables[variable] == nil {
				t.Errorf("%s: the sentence does not begin with the variable: %s", run.Labels[0], s)
			}
			if strings.Contains(s, "hunter2") {
				t.Errorf("%s: the sentence shows the secret: %s", run.Labels[0], s)
			}
		}
	}
	golden(t, "refusals.txt", out.String())
}

func refusals(t *testing.T, p *Plan) (all []string) {
	t.Helper()
	for _, name := range sortedKeys(p.variables) {
		sentences, err := p.Refusals(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		all = append(all, sentences...)
	}
	return all
}

// arguments evaluates a block of literals.
func arguments(t *testing.T, b *hclsyntax.Body) map[string]cty.Value {
	t.Helper()
	values := map[string]cty.Value{}
	for name, a := range b.Attributes {
		v, diags := a.Expr.Value(nil)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		values[name] = v
	}
	return values
}
