package detect

import (
	"errors"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/shared/event"
)

// exclude resolves what filters and exceptions are for.
func (c *compiler) exclude() {
	// Those for every rule come last, so that rules can share what they have in common.
	filters := slices.DeleteFunc(slices.Clone(c.rules), func(r *Rule) bool { return r.Kind != Filter || c.trees[r] == nil })
	slices.SortStableFunc(filters, func(a, b *Rule) int { return anyLast(a) - anyLast(b) })
	for _, f := range filters {
		tree := c.trees[f]
		delete(c.trees, f)
		if !f.exception {
			tree = exclusion(tree)
		}
		targets, err := c.targets(f)
		if err != nil {
			c.fault(f, err)
		}
		c.excluded[f] = tree
		for _, r := range targets {
			c.filters[r] = append(c.filters[r], f)
		}
	}
}

func anyLast(f *Rule) int {
	if f.targets == nil {
		return 1
	}
	return 0
}

// targets are the detection rules that a filter is for.
func (c *compiler) targets(f *Rule) ([]*Rule, error) {
	var out []*Rule
	var errs []error
	if f.targets == nil {
		for _, r := range c.rules {
			if r.Kind == Detection && f.source.covers(r.source) {
				out = append(out, r)
			}
		}
		return out, nil
	}
	for _, name := range f.targets {
		some, err := c.target(f, name)
		errs = append(errs, err)
		for _, r := range some {
			switch {
			case f.source.covers(r.source):
				out = append(out, r)
			case f.exception:
				errs = append(errs, faultf(f.Line, "leave paths to rules about files, addresses to rules about connections",
					"rule %q is about %s, which never is where the exception holds", name, typeNames(r.source.types)))
			default:
				errs = append(errs, faultf(f.Line, "give the filter the rule's logsource", "the filter's logsource has no event that rule %q is about", name))
			}
		}
	}
	return out, errors.Join(errs...)
}

// target is the rule of that name; of a correlation, the rules that make no alerts but feed it.
func (c *compiler) target(f *Rule, name string) ([]*Rule, error) {
	r, ok := c.named[name]
	switch {
	case !ok:
		instead := "use the rule's id or name"
		if near := c.nearest(name); near != "" {
			instead = "did you mean " + near + "?"
		}
		return nil, faultf(f.Line, instead, "the filter names rule %q, which is not there", name)
	case r.Kind == Detection:
		return []*Rule{r}, nil
	case r.Kind == Filter:
		return nil, faultf(f.Line, "name the rules it is for", "the filter names %q, which is a filter", name)
	}
	var parts []*Rule
	for _, part := range r.correlation.rules {
		p, ok := c.named[part]
		shared := slices.ContainsFunc(c.rules, func(other *Rule) bool {
			return other != r && other.Kind == Correlation && slices.ContainsFunc(other.correlation.rules, func(n string) bool { return c.named[n] == p })
		})
		if !ok || p.Kind != Detection || p.File != r.File || r.correlation.generate || shared {
			return nil, faultf(f.Line, "filter the rules it refers to: "+strings.Join(r.correlation.rules, ", "),
				"the filter names %q, a correlation of rules that are more than its parts", name)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func typeNames(types []event.Type) string {
	names := make([]string, 0, len(types))
	for _, t := range types {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// nearest is the id or name that name was probably meant to be, or empty.
func (c *compiler) nearest(name string) string {
	best, least := "", min(3, len(name)/2+1)
	for _, r := range c.rules {
		if strings.EqualFold(r.Title, name) {
			return r.ID
		}
		for _, known := range []string{r.ID, r.Name} {
			if n := distance(strings.ToLower(known), strings.ToLower(name)); r.Kind != Filter && known != "" && n < least {
				best, least = known, n
			}
		}
	}
	return best
}

// distance is Levenshtein's: how many bytes must be put in, taken out or replaced.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// exclusion is what a filter excludes. The specification's filters state it ("condition: selection"), the reference
// implementation's state what is kept ("condition: not selection"). They are told apart by form: a condition made only of
// negations states what is kept, for nobody writes a filter to exclude all but a few.
func exclusion(tree *node) *node {
	kept := []*node{tree}
	if tree.op == opAnd {
		kept = tree.kids
	}
	if slices.ContainsFunc(kept, func(n *node) bool { return n.op != opNot }) {
		return tree
	}
	return negate(tree)
}

// exclusionsOf are what keeps r from matching events of that type; off is true when it always is.
func (c *compiler) exclusionsOf(r *Rule, t event.Type) (out []typedRule, off bool) {
	for _, f := range c.filters[r] {
		switch tree := c.excluded[f].simplify(fixedBy(t)); {
		case !slices.Contains(f.source.types, t) || tree.op == opFalse:
		case tree.op == opTrue:
			return nil, true
		default:
			out = append(out, typedRule{rule: f, tree: tree})
		}
	}
	return out, false
}
