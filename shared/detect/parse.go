package detect

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

// MaxFile is the largest file that [Parse] reads. The public collections' largest is a fiftieth of it.
const MaxFile = 1 << 20

// document is one YAML document on its way to becoming a rule.
type document struct {
	file, title string
	line        int
	root        *yaml.Node
}

// Parse reads all documents of one file: rules, correlation rules, filters, exceptions, and the collections of
// Sigma 1 (action: global, reset, repeat). A document with faults is left out and every fault of it reported; the others are
// returned. What is returned may still meet faults in [Compile]: references to rules that are not there, and
// placeholders without values.
func Parse(name string, data []byte) ([]*Rule, []*Error) {
	if len(data) > MaxFile {
		return nil, []*Error{{File: name, Problem: fmt.Sprintf("the file has more than %d bytes", MaxFile), Instead: "split it"}}
	}
	var rules []*Rule
	var errs []*Error
	var global, last *yaml.Node
	for c := range roots(split(data)) {
		doc, root := &document{file: name, line: c.line}, c.root
		if c.err != nil {
			errs = append(errs, doc.faults(c.err)...)
			continue
		}
		if root == nil || root.Tag == "!!null" {
			continue
		}
		doc.line = root.Line
		if root.Kind != yaml.MappingNode {
			errs = append(errs, doc.faults(faultf(root.Line, "write title, logsource and detection", "the document is not a mapping"))...)
			continue
		}
		action, _ := word(root, "action")
		body := without(root, "action")
		switch action {
		case "global":
			global, last = body, nil
			continue
		case "reset":
			global, last = nil, nil
			if get(body, "detection") == nil {
				continue
			}
		case "repeat":
			if last == nil {
				errs = append(errs, doc.faults(faultf(root.Line, "", "action repeat has no document before it to repeat"))...)
				continue
			}
			body = merge(last, body)
		case "":
			body = merge(global, body)
		default:
			errs = append(errs, doc.faults(faultf(get(root, "action").Line, "the actions are global, reset and repeat", "action %q is unknown", action))...)
			continue
		}
		last = body
		doc.root = body
		doc.title, _ = word(body, "title")
		if get(body, "exceptions") != nil {
			some, faults := doc.exceptions()
			rules, errs, doc.root = append(rules, some...), append(errs, faults...), nil
			continue
		}
		rule, err := doc.rule()
		doc.root = nil // the rule keeps its document for later errors
		if err != nil {
			errs = append(errs, doc.faults(err)...)
			continue
		}
		rules = append(rules, rule)
	}
	return rules, errs
}

// reader gathers faults, so that a document's are reported all at once.
type reader struct {
	root *yaml.Node
	errs []error
}

func (r *reader) word(key string) string {
	s, err := word(r.root, key)
	r.errs = append(r.errs, err)
	return s
}

func (r *reader) words(key string) []string {
	s, err := words(r.root, key)
	r.errs = append(r.errs, err)
	return s
}

// rule makes the document's rule.
func (d *document) rule() (*Rule, error) {
	in := reader{root: d.root}
	r := &Rule{
		Title: in.word("title"), ID: in.word("id"), Name: in.word("name"), Description: in.word("description"),
		Author: in.word("author"), Status: in.word("status"), File: d.file, Line: d.line,
		Tags: in.words("tags"), FalsePositives: in.words("falsepositives"), References: in.words("references"),
		Fields: in.words("fields"), doc: d,
	}
	if r.Title == "" {
		in.errs = append(in.errs, faultf(d.line, "", "the document has no title"))
	}
	for _, s := range []string{r.Name, r.Title} {
		if r.ID == "" {
			r.ID = s
		}
	}
	level := in.word("level")
	severity, ok := levels[level]
	if !ok {
		in.errs = append(in.errs, faultf(get(d.root, "level").Line, "the levels are informational, low, medium, high, critical", "level %q is unknown", level))
	}
	r.Severity = severity
	r.Techniques, r.Tactics = attack(r.Tags)
	in.errs = append(in.errs, d.ours(r), d.body(r))
	if r.source != nil {
		for _, name := range r.GroupBy {
			if _, err := r.source.field(get(d.root, "apss").Line, name); err != nil {
				in.errs = append(in.errs, err)
			}
		}
	}
	return r, errors.Join(in.errs...)
}

// ours reads the key apss.
func (d *document) ours(r *Rule) error {
	m := get(d.root, "apss")
	if m == nil {
		return nil
	}
	if m.Kind != yaml.MappingNode {
		return faultf(m.Line, "it has actions and group-by", "apss is not a mapping")
	}
	in := reader{root: m, errs: []error{onlyKeys(m, "apss", "actions", "group-by")}}
	r.Actions, r.GroupBy = in.words("actions"), in.words("group-by")
	return errors.Join(in.errs...)
}

// body reads what makes the document a rule, a correlation or a filter.
func (d *document) body(r *Rule) error {
	detection, correlation, filter := get(d.root, "detection"), get(d.root, "correlation"), get(d.root, "filter")
	many := 0
	for _, n := range []*yaml.Node{detection, correlation, filter} {
		if n != nil {
			many++
		}
	}
	if many != 1 {
		return faultf(d.line, "give it one", "the document has %d of detection, correlation and filter", many)
	}
	if correlation != nil {
		r.Kind = Correlation
		var err error
		r.correlation, err = parseCorrelation(correlation)
		return err
	}
	var err error
	if r.source, err = d.logsource(); err != nil {
		return err
	}
	if filter != nil {
		r.Kind = Filter
		if r.targets, err = filterTargets(filter); err != nil {
			return err
		}
		r.detection, err = parseDetection(without(filter, "rules"), r.source)
		return err
	}
	r.detection, err = parseDetection(detection, r.source)
	return err
}

func (d *document) logsource() (*logsource, error) {
	m := get(d.root, "logsource")
	if m == nil || m.Kind != yaml.MappingNode {
		return nil, faultf(d.line, "write category: process_creation, for instance", "the document has no logsource")
	}
	in := reader{root: m}
	category, product, service := in.word("category"), in.word("product"), in.word("service")
	if err := errors.Join(in.errs...); err != nil {
		return nil, err
	}
	return newLogsource(m.Line, category, product, service)
}

// filterTargets reads the rules that a filter names; nil is every rule.
func filterTargets(filter *yaml.Node) ([]string, error) {
	if filter.Kind != yaml.MappingNode {
		return nil, faultf(filter.Line, "it has rules, search identifiers and a condition", "filter is not a mapping")
	}
	targets, err := words(filter, "rules")
	if err != nil {
		return nil, err
	}
	if len(targets) == 0 {
		return nil, faultf(filter.Line, "list ids or names below rules, or write rules: any", "the filter names no rules")
	}
	line := get(filter, "rules").Line
	for i, name := range targets {
		switch {
		case name == "any" && len(targets) > 1:
			return nil, faultf(line, "write rules: any, or name rules", "the filter is for any rule and for rules by name")
		case slices.Contains(targets[:i], name):
			return nil, faultf(line, "name it once", "the filter names rule %q twice", name)
		case name == "any":
			return nil, nil
		}
	}
	return targets, nil
}
