package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// services are the APIs that serve resources, by how their types begin; the longest beginning counts.
func services() map[string]string {
	return map[string]string{
		"google_artifact_registry_": "artifactregistry", "google_bigquery_": "bigquery", "google_billing_budget": "billingbudgets",
		"google_cloud_run_v2_": "run", "google_cloud_scheduler_": "cloudscheduler", "google_cloudbuild_": "cloudbuild",
		"google_cloudfunctions2_": "cloudfunctions", "google_firestore_": "firestore", "google_logging_": "logging",
		"google_monitoring_": "monitoring", "google_project": "cloudresourcemanager", "google_project_service": "serviceusage",
		"google_pubsub_": "pubsub", "google_secret_manager_": "secretmanager", "google_service_account": "iam", "google_storage_": "storage",
	}
}

// Services returns the resources whose API is not switched on before them. Service Usage, which switches on the others, is
// on from the start.
func Services(c *Config) (faults []string) {
	on := map[string]bool{"serviceusage.googleapis.com": true}
	variables := minimal()
	variables["archive"] = cty.ObjectVal(map[string]cty.Value{"alerts": cty.True})
	variables["budget"] = cty.ObjectVal(map[string]cty.Value{"billing_account": cty.StringVal("012345-6789AB-CDEF01"), "amount": cty.NumberIntVal(1)})
	p := c.Plan(variables)
	for _, list := range []string{"local.apis", "local.optional_apis"} {
		v, err := p.Value(list)
		if err != nil {
			return []string{err.Error()}
		}
		for _, name := range stringsOf(v) {
			on[name] = true
		}
	}
	for _, address := range c.of("google_project_service") {
		if name, ok := text(c.resources[address].Body, "service"); ok {
			on[name] = true
		}
	}
	known := services()
	prefixes := slices.SortedFunc(maps.Keys(known), func(a, b string) int { return len(b) - len(a) })
	for _, c := range c.all() {
		for _, address := range sortedKeys(c.resources) {
			kind, _, _ := strings.Cut(strings.TrimPrefix(address, "data."), ".")
			n := slices.IndexFunc(prefixes, func(p string) bool { return strings.HasPrefix(kind, p) })
			if n < 0 {
				faults = append(faults, fmt.Sprintf("which service has %s is not known here", kind))
				continue
			}
			if api := known[prefixes[n]] + ".googleapis.com"; !on[api] {
				faults = append(faults, fmt.Sprintf("%s needs %s, which nothing switches on", address, api))
			}
		}
	}
	return faults
}

// edges are where the settings are of the programs that publish from the clusters.
func edges() map[string]string {
	return map[string]string{"agent": "edge/cmd/apss-agent", "relay": "edge/cmd/apss-relay", "webhook": "webhook/cmd/apss-webhook"}
}

// Publishers returns the programs that may publish to more or fewer topics than they have settings for, and names that are
// not those of the chart's service accounts.
func Publishers(c *Config) (faults []string) {
	p := c.Plan(minimal())
	v, err1 := p.Value("local.publishes")
	names, err2 := p.Value("var.edge")
	helpers, err3 := c.read("infra/helm/apss/templates/_helpers.tpl")
	if err1 != nil || err2 != nil || err3 != nil {
		return []string{fmt.Sprint(err1, err2, err3)}
	}
	if !strings.Contains(helpers, `serviceAccountName: {{ include "apss.name" .root }}-{{ .component }}`+"\n") {
		faults = append(faults, "the chart names its service accounts otherwise than apss-<program>")
	}
	for _, program := range sortedKeys(edges()) {
		if got := names.GetAttr(program).AsString(); got != "apss-"+program {
			faults = append(faults, fmt.Sprintf("edge.%s is %s by default, and the chart's service account apss-%s", program, got, program))
		}
		files, err := c.packageFiles(edges()[program])
		if err != nil {
			faults = append(faults, err.Error())
			continue
		}
		var has []string
		for _, f := range fieldsOfAll(tagged(files, "env")) {
			name, _, _ := strings.Cut(f.tag, ",")
			if topic, ok := strings.CutSuffix(name, "_TOPIC"); ok {
				has = append(has, strings.ToLower(topic))
			}
		}
		may := stringsOf(v.GetAttr(program))
		slices.Sort(has)
		slices.Sort(may)
		if !slices.Equal(may, has) {
			faults = append(faults, fmt.Sprintf("%s may publish %v, and its settings have %v", program, may, has))
		}
	}
	return faults
}
