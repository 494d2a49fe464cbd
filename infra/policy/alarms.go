package policy

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// alarms are the policies that must be there.
func alarms() []string {
	return []string{
		"waiting", "dead_letters", "secret_expiry", "unreadable_secrets",
		"refused", "progress", // delivery fails, and is absent
		"failing", "late_canaries", "silent_agents", "ticks",
	}
}

// googleMetrics are those of Google's that the configuration looks at, with their labels
// (cloud.google.com/monitoring/api/metrics_gcp).
func googleMetrics() map[string][]string {
	return map[string][]string{
		"pubsub.googleapis.com/subscription/oldest_unacked_message_age": nil,
		"pubsub.googleapis.com/subscription/num_undelivered_messages":   nil,
		"pubsub.googleapis.com/subscription/push_request_count":         {"response_class", "response_code", "delivery_type"},
		"pubsub.googleapis.com/topic/send_message_operation_count":      {"response_class", "response_code"},
		"run.googleapis.com/request_count":                              {"response_code", "response_code_class", "route"},
		"run.googleapis.com/request_latencies":                          {"response_code", "response_code_class", "route"},
		"run.googleapis.com/container/instance_count":                   {"state"},
	}
}

var (
	metricType  = regexp.MustCompile(`metric\.type="([^"]+)"`)
	metricLabel = regexp.MustCompile(`metric\.labels?\.([a-z_]+)`)
	ourName     = regexp.MustCompile(`resource\.labels\.(?:subscription_id|topic_id|service_name)="([^"]+)"`)
	ourNames    = regexp.MustCompile(`full_match\("([^"]+)"\)`)
	apssctlUse  = regexp.MustCompile("`apssctl ([a-z]+(?: [a-z]+)?)")
)

// Alarms returns the policies that are missing, and what policies and dashboards name that is not there: metrics and their
// labels, subscriptions, topics and services of ours, uses of apssctl.
func Alarms(c *Config) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	variables := minimal()
	variables["secrets"] = cty.MapVal(map[string]cty.Value{"key": cty.ObjectVal(map[string]cty.Value{"expires": cty.StringVal("2027-06-01T00:00:00Z")})})
	p := c.Plan(variables)
	values := map[string]cty.Value{}
	for _, name := range []string{"policies", "thresholds", "absences", "tiles"} {
		v, err := p.Value("local." + name)
		if err != nil {
			return []string{err.Error()}
		}
		values[name] = v
	}
	usage, err := c.read("functions/cmd/apssctl/main.go")
	if err != nil {
		return []string{err.Error()}
	}
	names, err := p.names()
	if err != nil {
		return []string{err.Error()}
	}
	policies := values["policies"].AsValueMap()
	for _, name := range alarms() {
		if _, ok := policies[name]; !ok {
			fault("there is no policy %s", name)
		}
	}
	for _, key := range sortedKeys(policies) {
		for _, m := range apssctlUse.FindAllStringSubmatch(policies[key].GetAttr("doc").AsString(), -1) {
			if !strings.Contains(usage, "apssctl "+m[1]) {
				fault("%s: there is no use %q of apssctl", key, m[1])
			}
		}
	}
	for _, kind := range []string{"thresholds", "absences"} {
		for key, v := range values[kind].AsValueMap() {
			for _, why := range strange(v.GetAttr("filter").AsString(), stringsOf(v.GetAttr("by")), names) {
				fault("%s: %s", key, why)
			}
		}
	}
	for _, v := range values["tiles"].Elements() {
		filter := fmt.Sprintf("metric.type=%q AND %s", v.GetAttr("metric").AsString(), v.GetAttr("on").AsString())
		for _, why := range strange(filter, stringsOf(v.GetAttr("by")), names) {
			fault("dashboard: %s", why)
		}
	}
	slices.Sort(faults)
	return faults
}

// strange returns what a filter of metrics, grouped by some labels, names that is not there.
func strange(filter string, by, names []string) (faults []string) {
	labels := []string{}
	for _, metric := range found(metricType, filter) {
		own, ok := googleMetrics()[metric]
		if log, is := strings.CutPrefix(metric, "logging.googleapis.com/user/"); is {
			ok, own = slices.Contains(names, log), []string{"integration", "agent", "secret"} // Words looks at which
		}
		if !ok {
			faults = append(faults, "there is no metric "+metric)
			continue
		}
		labels = append(labels, own...)
	}
	for _, label := range found(metricLabel, filter+" "+strings.Join(by, " ")) {
		if len(faults) == 0 && !slices.Contains(labels, label) {
			faults = append(faults, "the metric has no label "+label)
		}
	}
	for _, name := range found(ourName, filter) {
		if !slices.Contains(names, name) {
			faults = append(faults, "there is no "+name)
		}
	}
	for _, pattern := range found(ourNames, filter) {
		whole, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil || !slices.ContainsFunc(names, whole.MatchString) {
			faults = append(faults, "nothing is called "+pattern)
		}
	}
	return faults
}

// names returns those of all topics, subscriptions, functions and log-based metrics.
func (p *Plan) names() (all []string, err error) {
	plans := []*Plan{p}
	for _, name := range sortedKeys(p.modules) {
		inner, err := p.Module(name)
		if err != nil {
			return nil, err
		}
		plans = append(plans, inner)
	}
	for _, p := range plans {
		for _, address := range p.of("google_pubsub_topic", "google_pubsub_subscription", "google_cloudfunctions2_function", "google_logging_metric") {
			v, err := p.resource(address)
			if err != nil {
				return nil, err
			}
			if v.Type().IsObjectType() && v.Type().HasAttribute("name") {
				v = cty.TupleVal([]cty.Value{v})
			}
			for _, one := range v.Elements() {
				all = append(all, one.GetAttr("name").AsString())
			}
		}
	}
	return all, nil
}

// read returns a file of the repository.
func (c *Config) read(name string) (string, error) {
	text, err := fs.ReadFile(c.files, name)
	return string(text), err
}
