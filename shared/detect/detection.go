package detect

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/apss-sensor/apss/shared/event"
)

// Limits of one rule.
const (
	maxValues     = 20_000 // values of all search identifiers
	maxMapNesting = 8      // maps in lists in maps
)

// detection is a detection section (or a filter's), read but for its placeholders.
type detection struct {
	names      []string           // of the search identifiers, in order
	searches   map[string]*search // nil when the tree is final
	conditions []scalar

	source       *logsource
	placeholders bool  // some value has the modifier expand
	tree         *node // with every placeholder standing for "x" when there are any
}

// search is a search identifier, or a map or list below one.
type search struct {
	op   op // opAnd of a map, opOr of a list; opLeaf of an item
	kids []*search
	item *item
}

// item is one "field|modifiers: values".
type item struct {
	line      int
	field     string // empty for keywords
	modifiers []string
	values    []scalar
	list      bool // the values stood in a list
}

// scalar is a YAML scalar: tag is !!str, !!int, !!float, !!bool, !!null or !!timestamp.
type scalar struct {
	line      int
	tag, text string
}

func scalarOf(n *yaml.Node) scalar { return scalar{line: n.Line, tag: n.Tag, text: n.Value} }

func parseDetection(m *yaml.Node, source *logsource) (*detection, error) {
	if m.Kind != yaml.MappingNode {
		return nil, faultf(m.Line, "write search identifiers and a condition", "the detection is not a mapping")
	}
	d := &detection{searches: map[string]*search{}, source: source}
	left := maxValues
	var errs []error
	for i := 0; i < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		switch key.Value {
		case "condition":
			list := []*yaml.Node{value}
			if value.Kind == yaml.SequenceNode {
				list = value.Content
			}
			for _, c := range list {
				if c.Kind != yaml.ScalarNode || c.Tag != "!!str" {
					errs = append(errs, faultf(c.Line, "write a text, such as selection and not filter", "the condition is not a text"))
					continue
				}
				d.conditions = append(d.conditions, scalarOf(c))
			}
		case "timeframe":
			errs = append(errs, faultf(key.Line, "write a correlation rule with a timespan", "timeframe is of Sigma's old aggregations"))
		default:
			s, err := d.search(key.Value, value, &left, 0)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			d.names = append(d.names, key.Value)
			d.searches[key.Value] = s
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(d.conditions) == 0 {
		return nil, faultf(m.Line, "write condition: selection, for instance", "the detection has no condition")
	}
	var err error
	d.tree, err = d.lower(func(string) ([]string, bool) { return []string{"x"}, true })
	if !d.placeholders {
		d.searches = nil // the tree is final
	}
	return d, err
}

// search reads a map (all must hold), a list of maps (one must hold) or a list of keywords.
func (d *detection) search(name string, n *yaml.Node, left *int, depth int) (*search, error) {
	if depth > maxMapNesting {
		return nil, faultf(n.Line, "", "search identifier %q is nested deeper than %d", name, maxMapNesting)
	}
	switch n.Kind {
	case yaml.MappingNode:
		s := &search{op: opAnd}
		for i := 0; i < len(n.Content); i += 2 {
			it, err := newItem(n.Content[i], n.Content[i+1], left)
			if err != nil {
				return nil, err
			}
			d.placeholders = d.placeholders || slices.Contains(it.modifiers, "expand")
			s.kids = append(s.kids, &search{op: opLeaf, item: it})
		}
		if len(s.kids) == 0 {
			return nil, faultf(n.Line, "", "search identifier %q is empty", name)
		}
		return s, nil
	case yaml.SequenceNode:
		s := &search{op: opOr}
		words := &item{line: n.Line, list: true}
		for _, k := range n.Content {
			if k.Kind == yaml.ScalarNode {
				if *left--; *left < 0 {
					return nil, faultf(k.Line, "", "the rule has more than %d values", maxValues)
				}
				words.values = append(words.values, scalarOf(k))
				continue
			}
			kid, err := d.search(name, k, left, depth+1)
			if err != nil {
				return nil, err
			}
			s.kids = append(s.kids, kid)
		}
		if len(words.values) > 0 {
			s.kids = append(s.kids, &search{op: opLeaf, item: words})
		}
		if len(s.kids) == 0 {
			return nil, faultf(n.Line, "", "search identifier %q is empty", name)
		}
		return s, nil
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return nil, faultf(n.Line, "", "search identifier %q is empty", name)
		}
		return &search{op: opLeaf, item: &item{line: n.Line, values: []scalar{scalarOf(n)}}}, nil
	default:
		return nil, faultf(n.Line, "", "search identifier %q is neither a map nor a list", name)
	}
}

func newItem(key, value *yaml.Node, left *int) (*item, error) {
	parts := strings.Split(key.Value, "|")
	it := &item{line: key.Line, field: strings.TrimSpace(parts[0]), modifiers: parts[1:], list: value.Kind == yaml.SequenceNode}
	list := []*yaml.Node{value}
	if it.list {
		list = value.Content
	}
	for _, n := range list {
		if n.Kind != yaml.ScalarNode {
			return nil, faultf(n.Line, "a field takes a value or a list of values", "the value of %q is a structure", key.Value)
		}
		if *left--; *left < 0 {
			return nil, faultf(n.Line, "", "the rule has more than %d values", maxValues)
		}
		it.values = append(it.values, scalarOf(n))
	}
	if len(it.values) == 0 {
		return nil, faultf(key.Line, "", "%q has an empty list", key.Value)
	}
	return it, nil
}

// lower makes the tree of the whole detection with the given values of placeholders.
func (d *detection) lower(placeholders func(string) ([]string, bool)) (*node, error) {
	trees := map[string]*node{}
	var errs []error
	for _, name := range d.names {
		n, err := d.searches[name].lower(d.source, placeholders)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		trees[name] = n
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	kids := make([]*node, 0, len(d.conditions))
	for _, c := range d.conditions {
		n, err := parseCondition(c.line, c.text, d.names, func(name string) (*node, bool) { n, ok := trees[name]; return n, ok })
		if err != nil {
			errs = append(errs, err)
			continue
		}
		kids = append(kids, n)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return join(opOr, kids), nil
}

func (s *search) lower(source *logsource, placeholders func(string) ([]string, bool)) (*node, error) {
	if s.item != nil {
		return s.item.lower(source, placeholders)
	}
	kids := make([]*node, 0, len(s.kids))
	var errs []error
	for _, k := range s.kids {
		n, err := k.lower(source, placeholders)
		errs = append(errs, err)
		kids = append(kids, n)
	}
	return join(s.op, kids), errors.Join(errs...)
}

// partly reports whether some part of the detection can be true of no event of its source, whatever its fields hold.
func (d *detection) partly() bool {
	dead := false
	d.tree.leaves(func(l *leaf) {
		if l.field.fixed == nil {
			return
		}
		dead = dead || !slices.ContainsFunc(d.source.types, func(t event.Type) bool {
			truth, known := fixedBy(t)(l)
			return truth || !known
		})
	})
	return dead
}

// fixedBy decides the leaves that the event's type alone decides: those of fields with fixed values, and those of fields
// that no sensor fills.
func fixedBy(t event.Type) func(*leaf) (truth, known bool) {
	return func(l *leaf) (bool, bool) {
		if l.field.load == nil || l.ref != nil && l.ref.load == nil {
			return false, true
		}
		if l.field.fixed == nil || l.kind == leafRef {
			return false, false
		}
		test := newTest(l)
		var s slot
		for _, text := range l.field.fixed(t) {
			s.text(text)
			s.folded = append(s.folded, foldString(text))
		}
		return test.fits(&s), true
	}
}

// number is a rule's number: an integer where it is one, so that large ones keep their last digit.
type number struct {
	isInt bool
	int   int64
	float float64
}

func parseNumber(s string) (number, bool) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return number{isInt: true, int: i, float: float64(i)}, true
	}
	f, err := strconv.ParseFloat(s, 64)
	return number{float: f}, err == nil && f == f
}

// cmp returns -1, 0 or 1.
func (a number) cmp(b number) int {
	switch {
	case a.isInt && b.isInt:
		if a.int < b.int {
			return -1
		}
		if a.int > b.int {
			return 1
		}
		return 0
	case a.float < b.float:
		return -1
	case a.float > b.float:
		return 1
	}
	return 0
}
