package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
)

// minimal are variables with which everything that a rule looks at is there.
func minimal() map[string]cty.Value {
	return map[string]cty.Value{
		"project": cty.StringVal("acme-security"), "region": cty.StringVal("europe-west1"),
		"functions_source": cty.StringVal("gs://acme/functions/1.zip"), "otlp_endpoint": cty.StringVal("https://collector.example:4317"),
	}
}

// setting is one of a program's own.
type setting struct {
	def      string // its default
	required bool
}

// settings are those of the functions, by their variable.
func (c *Config) settings() (map[string]setting, error) {
	files, err := c.packageFiles(program)
	if err != nil {
		return nil, err
	}
	found := map[string]setting{}
	for _, f := range tagged(files, "env")["settings"] {
		name, options, _ := strings.Cut(f.tag, ",")
		_, def, _ := strings.Cut(options, "default=")
		found[name] = setting{def, strings.TrimSpace(options) == "required"}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no settings", program)
	}
	return found, nil
}

// environment is what each function is started with.
func (p *Plan) environment() (map[string]map[string]string, error) {
	v, err := p.Value("local.environment")
	if err != nil {
		return nil, err
	}
	all := map[string]map[string]string{}
	for function, variables := range v.Elements() {
		own := map[string]string{}
		for name, value := range variables.Elements() {
			own[name.AsString()] = value.AsString()
		}
		all[function.AsString()] = own
	}
	return all, nil
}

// notOurs are variables that are no settings of the program: OpenTelemetry's SDK reads them.
func notOurs() []string { return []string{"OTEL_EXPORTER_OTLP_ENDPOINT"} }

// Settings returns the variables that a function is given and does not know, and the required ones that it is not given.
func Settings(c *Config) (faults []string) {
	known, err1 := c.settings()
	environment, err2 := c.Plan(minimal()).environment()
	if err1 != nil || err2 != nil {
		return []string{fmt.Sprint(err1, err2)}
	}
	for _, function := range sortedKeys(environment) {
		for _, name := range sortedKeys(environment[function]) {
			if _, ok := known[name]; !ok && !slices.Contains(notOurs(), name) {
				faults = append(faults, fmt.Sprintf("%s: %s is no setting of %s", function, name, program))
			}
		}
		for _, name := range sortedKeys(known) {
			if known[name].required && environment[function][name] == "" {
				faults = append(faults, fmt.Sprintf("%s: %s is required", function, name))
			}
		}
	}
	return faults
}

// Deadlines returns the breaks in the chain linger + calls + dead letters < answer < ack deadline, and where the table and the
// program's own defaults differ.
func Deadlines(c *Config) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	known, err1 := c.settings()
	files, err2 := c.packageFiles(program)
	environment, err3 := c.Plan(minimal()).environment()
	if err1 != nil || err2 != nil || err3 != nil {
		return []string{fmt.Sprint(err1, err2, err3)}
	}
	tries, write := number(files, "callTries"), number(files, "answerTime")
	if tries < 1 || write < 1 {
		fault("%s has no callTries or answerTime", program)
	}
	for _, function := range sortedKeys(environment) {
		at := func(name string) time.Duration {
			d, err := time.ParseDuration(environment[function][name])
			if err != nil {
				fault("%s: %s: %v", function, name, err)
			}
			if own, err := time.ParseDuration(known[name].def); err != nil || own != d {
				fault("%s: %s is %v, and the program's own default %s; let them be the same", function, name, d, known[name].def)
			}
			return d
		}
		inside := at("FORWARD_LINGER") + time.Duration(tries)*at("FORWARD_CALL_TIMEOUT") + at("DEAD_LETTERS_TIMEOUT")
		answer, ack := at("FORWARD_TIMEOUT"), at("FORWARD_ACK_DEADLINE")
		if answer <= inside {
			fault("%s: FORWARD_TIMEOUT %v is not more than %v = linger + %d calls + dead letters", function, answer, inside, tries)
		}
		if answer >= ack {
			fault("%s: FORWARD_TIMEOUT %v is not less than the ack deadline %v", function, answer, ack)
		}
		request, err := c.Plan(minimal()).Value("local.deadlines.request")
		if err != nil {
			return append(faults, err.Error())
		}
		if n, _ := request.AsBigFloat().Int64(); time.Duration(n)*time.Second < answer+time.Duration(write)*time.Second {
			fault("%s: Cloud Run cuts off after %d s, before an answer after %v is written", function, n, answer)
		}
	}
	return append(faults, c.deadlinesUsed()...)
}

// deadlinesUsed looks whether the resources take theirs from the table.
func (c *Config) deadlinesUsed() (faults []string) {
	for _, c := range c.all() {
		for _, address := range c.of("google_pubsub_subscription") {
			b := c.resources[address].Body
			if got := c.argument(b, "ack_deadline_seconds"); block(b, "push_config") != nil && got != "var.deadlines.ack" {
				faults = append(faults, fmt.Sprintf("%s: ack_deadline_seconds is %s, want the table's", address, got))
			}
		}
		for _, address := range c.of("google_cloudfunctions2_function") {
			if got := c.argument(block(c.resources[address].Body, "service_config"), "timeout_seconds"); got != "local.deadlines.request" {
				faults = append(faults, fmt.Sprintf("%s: timeout_seconds is %s, want the table's", address, got))
			}
		}
	}
	return faults
}
