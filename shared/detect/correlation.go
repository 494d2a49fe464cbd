package detect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Limits of a correlation rule: what an agent keeps per group is bounded by them.
const (
	maxTimespan       = 7 * 24 * time.Hour
	maxThreshold      = 1000
	maxCorrelatedRule = 16 // rules of a temporal correlation
)

// correlation is a correlation section.
type correlation struct {
	line     int
	kind     string // event_count, value_count, temporal, temporal_ordered
	rules    []string
	groupBy  []string
	timespan time.Duration
	aliases  map[string]map[string]string // alias, rule, field
	bounds   []bound
	fields   []string // whose values value_count counts
	generate bool
}

// bound is one criterion of a correlation's condition.
type bound struct {
	op string
	n  int
}

// holds reports whether count meets every bound.
func (c *correlation) holds(count int) bool {
	for _, b := range c.bounds {
		ok := false
		switch b.op {
		case "gt":
			ok = count > b.n
		case "gte":
			ok = count >= b.n
		case "lt":
			ok = count < b.n
		case "lte":
			ok = count <= b.n
		case "eq":
			ok = count == b.n
		case "neq":
			ok = count != b.n
		}
		if !ok {
			return false
		}
	}
	return true
}

// enough is the count above which more changes nothing: one more than the largest bound.
func (c *correlation) enough() int {
	most := 0
	for _, b := range c.bounds {
		most = max(most, b.n)
	}
	return most + 1
}

func parseCorrelation(m *yaml.Node) (*correlation, error) {
	if m.Kind != yaml.MappingNode {
		return nil, faultf(m.Line, "it has type, rules, group-by, timespan and condition", "correlation is not a mapping")
	}
	in := reader{root: m, errs: []error{onlyKeys(m, "correlation", "type", "rules", "group-by", "timespan", "condition", "aliases", "generate")}}
	c := &correlation{line: m.Line, kind: in.word("type"), rules: in.words("rules"), groupBy: in.words("group-by")}
	switch c.kind {
	case "event_count", "value_count", "temporal", "temporal_ordered":
	case "value_sum", "value_avg", "value_percentile":
		in.errs = append(in.errs, faultf(m.Line, "use event_count or value_count here and the metric where the events are stored", "correlation type %q is not evaluated by the agent", c.kind))
	default:
		in.errs = append(in.errs, faultf(m.Line, "the types are event_count, value_count, temporal, temporal_ordered", "correlation type %q is unknown", c.kind))
	}
	if len(c.rules) == 0 {
		in.errs = append(in.errs, faultf(m.Line, "list ids or names below rules", "the correlation names no rules"))
	}
	if len(c.rules) > maxCorrelatedRule {
		in.errs = append(in.errs, faultf(m.Line, "", "the correlation names %d rules; the most is %d", len(c.rules), maxCorrelatedRule))
	}
	for i, name := range c.rules {
		if slices.Contains(c.rules[:i], name) {
			in.errs = append(in.errs, faultf(m.Line, "to count one rule use event_count", "the correlation names rule %q twice", name))
		}
	}
	span := in.word("timespan")
	var err error
	if c.timespan, err = parseTimespan(span); err != nil {
		in.errs = append(in.errs, faultf(m.Line, "write 30s, 5m, 1h or 1d, at most 7d", "timespan %q: %v", span, err))
	}
	switch g := in.word("generate"); g {
	case "", "false":
	case "true":
		c.generate = true
	default:
		in.errs = append(in.errs, faultf(m.Line, "write true or false", "generate is %q", g))
	}
	in.errs = append(in.errs, c.parseAliases(get(m, "aliases")), c.parseCondition(get(m, "condition")))
	return c, errors.Join(in.errs...)
}

// parseTimespan reads a number and s, m, h or d.
func parseTimespan(s string) (time.Duration, error) {
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	if s == "" {
		return 0, errors.New("it is missing")
	}
	unit, ok := units[s[len(s)-1:]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if !ok || err != nil || n == 0 {
		return 0, errors.New("it is not a number and a unit")
	}
	span := time.Duration(n) * unit
	if span > maxTimespan {
		return 0, fmt.Errorf("an agent keeps no more than %v", maxTimespan)
	}
	return span, nil
}

func (c *correlation) parseAliases(m *yaml.Node) error {
	if m == nil {
		return nil
	}
	if m.Kind != yaml.MappingNode {
		return faultf(m.Line, "write alias: {rule: field}", "aliases is not a mapping")
	}
	c.aliases = map[string]map[string]string{}
	var errs []error
	for i := 0; i < len(m.Content); i += 2 {
		alias, rules := m.Content[i].Value, m.Content[i+1]
		if rules.Kind != yaml.MappingNode {
			errs = append(errs, faultf(rules.Line, "write "+alias+": {rule: field}", "alias %q is not a mapping", alias))
			continue
		}
		c.aliases[alias] = map[string]string{}
		for j := 0; j < len(rules.Content); j += 2 {
			rule, field := rules.Content[j], rules.Content[j+1]
			if !slices.Contains(c.rules, rule.Value) {
				errs = append(errs, faultf(rule.Line, "use the word that rules has: "+strings.Join(c.rules, ", "), "alias %q names %q, which the correlation does not", alias, rule.Value))
			}
			c.aliases[alias][rule.Value] = field.Value
		}
	}
	return errors.Join(errs...)
}

func (c *correlation) parseCondition(m *yaml.Node) error {
	counts := c.kind == "event_count" || c.kind == "value_count"
	if m == nil {
		if counts {
			return faultf(c.line, "write gte: 10, for instance", "a %s has no condition", c.kind)
		}
		c.bounds = []bound{{"gte", len(c.rules)}}
		return nil
	}
	if m.Kind != yaml.MappingNode {
		return faultf(m.Line, "write a mapping such as gte: 10", "the condition of a correlation is not a mapping")
	}
	if c.kind == "temporal_ordered" {
		return faultf(m.Line, "leave it out: all rules must match, in their order", "a temporal_ordered has a condition")
	}
	errs := []error{onlyKeys(m, "condition", "gt", "gte", "lt", "lte", "eq", "neq", "field")}
	for i := 0; i < len(m.Content); i += 2 {
		key, value := m.Content[i].Value, m.Content[i+1]
		if key == "field" {
			continue
		}
		n, err := strconv.Atoi(value.Value)
		if err != nil || n < 0 || n > maxThreshold {
			errs = append(errs, faultf(value.Line, fmt.Sprintf("write a number up to %d", maxThreshold), "%s is %q", key, value.Value))
		}
		c.bounds = append(c.bounds, bound{key, n})
	}
	if len(c.bounds) == 0 {
		errs = append(errs, faultf(m.Line, "write gte: 10, for instance", "the condition compares with nothing"))
	}
	var err error
	if c.fields, err = words(m, "field"); err != nil {
		errs = append(errs, err)
	}
	if (c.kind == "value_count") != (len(c.fields) > 0) {
		errs = append(errs, faultf(m.Line, "value_count needs it, the others have none", "the condition of a %s has %d fields", c.kind, len(c.fields)))
	}
	return errors.Join(errs...)
}
