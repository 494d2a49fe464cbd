package detect

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/apss-sensor/apss/shared/event"
)

// place is one key of an exception: a field that must have one of the values.
type place struct {
	key, field string
	family     string             // of the event types that have the field; empty is all
	check      func(string) error // of a value; nil takes any
}

// places are what an exception may be narrowed by. It is never changed.
var places = []place{
	{"namespaces", "pod_namespace", "", nil},
	{"workloads", "workload", "", checkWorkload},
	{"images", "container.image", "", checkImage},
	{"exes", "process.exe", "", checkPath},
	{"paths", "file.path", "file_", checkPath},
	{"addresses", "network.dst_ip", "network_", nil},
}

// exceptions reads a document that is a list of exceptions. Each becomes a filter of its own, with its place as its id.
func (d *document) exceptions() ([]*Rule, []*Error) {
	list := get(d.root, "exceptions")
	if err := onlyKeys(d.root, "a file of exceptions", "exceptions", "title", "description"); err != nil {
		return nil, d.faults(err)
	}
	if list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		return nil, d.faults(faultf(list.Line, "list entries with rules, reason and where they hold", "exceptions is not a list of exceptions"))
	}
	var rules []*Rule
	var errs []*Error
	for _, n := range list.Content {
		one := &document{file: d.file, line: n.Line, root: n}
		one.title, _ = word(n, "reason")
		r, err := one.exception()
		one.root = nil
		if err != nil {
			errs = append(errs, one.faults(err)...)
			continue
		}
		rules = append(rules, r)
	}
	return rules, errs
}

func (d *document) exception() (*Rule, error) {
	if d.root.Kind != yaml.MappingNode {
		return nil, faultf(d.line, "write rules: [APSS-018], reason: ..., and where it holds", "the exception is not a mapping")
	}
	keys := []string{"rules", "reason", "expires", "everywhere"}
	for _, p := range places {
		keys = append(keys, p.key)
	}
	in := reader{root: d.root, errs: []error{onlyKeys(d.root, "an exception", keys...)}}
	r := &Rule{
		Kind: Filter, ID: fmt.Sprintf("%s:%d", d.file, d.line), Title: d.title, File: d.file, Line: d.line, doc: d,
		source: &logsource{names: sysmonNames, keywords: keywordFields}, exception: true,
	}
	if r.Title == "" {
		in.errs = append(in.errs, faultf(d.line, "say for whoever reads it next year why this is no alert", "the exception has no reason"))
	}
	if day := in.word("expires"); day != "" {
		last, err := time.Parse(time.DateOnly, day)
		if err != nil {
			in.errs = append(in.errs, faultf(get(d.root, "expires").Line, "write the last day that it holds, such as 2027-06-30", "expires is %q", day))
		}
		r.Expires = last.AddDate(0, 0, 1)
	}
	targets, err := filterTargets(d.root)
	r.targets = targets
	tree, where := r.where(&in)
	in.errs = append(in.errs, err, where)
	r.detection = &detection{source: r.source, tree: tree}
	return r, errors.Join(in.errs...)
}

// where reads the places that the exception names, of which all must fit, and the events that have them all.
func (r *Rule) where(in *reader) (*node, error) {
	var all []*node
	var errs []error
	r.source.types = event.Types()
	for _, p := range places {
		values := in.words(p.key)
		at := get(in.root, p.key)
		if at == nil {
			continue
		}
		if len(values) == 0 {
			errs = append(errs, faultf(at.Line, "leave it out, or name what it is about", "%s is empty", p.key))
		}
		var some []*node
		for _, value := range values {
			l, err := p.leaf(value)
			if err != nil {
				errs = append(errs, faultf(at.Line, err.Error(), "%s has %q", p.key, value))
				continue
			}
			some = append(some, leafNode(l))
		}
		all = append(all, join(opOr, some))
		var types []event.Type
		for _, t := range r.source.types {
			if strings.HasPrefix(string(t), p.family) {
				types = append(types, t)
			}
		}
		r.source.types = types
	}
	everywhere, line := in.word("everywhere"), in.root.Line
	switch {
	case everywhere != "" && everywhere != "true":
		errs = append(errs, faultf(line, "write true or leave it out", "everywhere is %q", everywhere))
	case everywhere == "" && len(all) == 0:
		errs = append(errs, faultf(line, "name namespaces, workloads, images, exes, paths or addresses; everywhere: true switches the rules off", "the exception does not say where it holds"))
	case everywhere != "" && len(all) > 0:
		errs = append(errs, faultf(line, "write one of the two", "the exception holds everywhere and in places"))
	case everywhere != "" && r.targets == nil:
		errs = append(errs, faultf(line, "name the rules", "the exception switches every rule off"))
	case len(r.source.types) == 0:
		errs = append(errs, faultf(line, "write an exception for each", "no event has both a path and an address"))
	}
	if everywhere != "" {
		all = append(all, constant(true))
	}
	if !r.Expires.IsZero() {
		f, _ := fieldNamed("timestamp")
		all = append(all, leafNode(&leaf{field: f, kind: leafBefore, before: r.Expires}))
	}
	return join(opAnd, all), errors.Join(errs...)
}

// leaf makes the test of one value. The error says what to write instead.
func (p place) leaf(value string) (*leaf, error) {
	f, _ := fieldNamed(p.field)
	if p.key == "addresses" {
		network, err := netip.ParsePrefix(value)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(value); err != nil || addr.Zone() != "" {
				return nil, errors.New("write an address or a network, such as 203.0.113.7 or 203.0.113.0/24")
			}
			network = netip.PrefixFrom(addr, addr.BitLen())
		}
		return &leaf{field: f, kind: leafNetwork, network: unmapped(network)}, nil
	}
	if value == "" {
		return nil, errors.New("write a text in quotes")
	}
	if p.check != nil {
		if err := p.check(value); err != nil {
			return nil, err
		}
	}
	return glob(f, value)
}

func checkWorkload(value string) error {
	if kind, name, ok := strings.Cut(value, "/"); !ok || kind == "" || name == "" || strings.Contains(name, "/") {
		return errors.New("write kind and name, such as Deployment/shop or CronJob/backup-*")
	}
	return nil
}

// checkImage refuses a name without a tag, which would fit no image that has one.
func checkImage(value string) error {
	if name := path.Base(value); !strings.ContainsAny(name, ":@*") {
		return fmt.Errorf("write %s:* for all of its tags, %s@* for all of its digests", value, value)
	}
	return nil
}

func checkPath(value string) error {
	if !strings.HasPrefix(value, "/") {
		return errors.New("write a whole path, such as /opt/backup/bin/run or /opt/**")
	}
	if clean := path.Clean(value); clean != value {
		return errors.New("write " + clean)
	}
	return nil
}

// glob makes the test of a name or path, which minds case: * stands for any characters but a slash, ** for any, ? for one
// but a slash; a backslash makes the next character plain.
func glob(f *field, text string) (*leaf, error) {
	var expr, literally strings.Builder
	wild := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			literally.WriteByte(text[i])
			expr.WriteString(regexp.QuoteMeta(text[i : i+1]))
		case c == '*' && strings.HasPrefix(text[i:], "**"):
			i++
			wild = true
			expr.WriteString(".*")
		case c == '*':
			wild = true
			expr.WriteString("[^/]*")
		case c == '?':
			wild = true
			expr.WriteString("[^/]")
		default:
			literally.WriteByte(c)
			expr.WriteString(regexp.QuoteMeta(text[i : i+1]))
		}
	}
	if !wild {
		return &leaf{field: f, kind: leafPattern, cased: true, pattern: plain(literally.String())}, nil
	}
	re, err := newExpression(`(?s)\A` + expr.String() + `\z`)
	if err != nil {
		return nil, errors.New("write a text of UTF-8")
	}
	return &leaf{field: f, kind: leafRegexp, regexp: re}, nil
}
