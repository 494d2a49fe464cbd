package detect

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/apss-sensor/apss/shared/event"
)

// Options are what rules need beside themselves.
type Options struct {
	// Placeholders are the values of %name% for the modifier expand.
	Placeholders map[string][]string
}

// Set is rules, compiled. It is never changed and may be used by any number of goroutines, each with its own [Matcher].
type Set struct {
	rules        []*Rule
	blind        []*Rule
	engines      map[event.Type]*engine
	correlations []*correlator // in the order they feed each other
	silent       map[*Rule]bool
	filters      map[*Rule][]*Rule // by the detection that they are for
	parts        map[*Rule][]*Rule // what correlations refer to
	size         sizes
}

// sizes are the most that any engine needs of a matcher.
type sizes struct{ slots, keys, lazies, rules int }

// Compile makes a set of rules. A rule with faults is left out and every fault of it reported; the rest is compiled.
// Two rules with one id are a fault of the later one; see [Override] for meaning it.
func Compile(rules []*Rule, o Options) (*Set, []*Error) {
	c := &compiler{
		placeholders: func(name string) ([]string, bool) { v, ok := o.Placeholders[name]; return v, ok },
		named:        map[string]*Rule{},
		trees:        map[*Rule]*node{},
		excluded:     map[*Rule]*node{},
		filters:      map[*Rule][]*Rule{},
	}
	c.register(rules)
	c.lower()
	c.exclude()
	s := &Set{engines: map[event.Type]*engine{}, filters: c.filters, parts: map[*Rule][]*Rule{}}
	for _, r := range c.rules {
		if r.Kind == Detection && c.trees[r] != nil {
			s.rules = append(s.rules, r)
		}
	}
	c.buildEngines(s)
	c.correlate(s)
	return s, c.errs
}

// Override returns base with the rules of over in it: a rule of over takes the place of base's rule with its id, the
// others follow in their order.
func Override(base, over []*Rule) []*Rule {
	places := map[string]int{}
	out := slices.Clone(base)
	for i, r := range out {
		places[r.ID] = i
	}
	for _, r := range over {
		if i, ok := places[r.ID]; ok && i < len(base) {
			out[i] = r
			delete(places, r.ID) // a second one in over is a fault that Compile reports
			continue
		}
		out = append(out, r)
	}
	return out
}

// Rules returns the rules that can match, detections first, then correlations.
func (s *Set) Rules() []*Rule {
	out := slices.Clone(s.rules)
	for _, c := range s.correlations {
		out = append(out, c.rule)
	}
	return out
}

// Exceptions returns the filters and exceptions that keep the rule from matching, also those that have expired: of a
// correlation, those of the rules it refers to.
func (s *Set) Exceptions(r *Rule) []*Rule {
	if r.Kind != Correlation {
		return slices.Clone(s.filters[r])
	}
	var out []*Rule
	for _, part := range s.parts[r] {
		for _, f := range s.Exceptions(part) {
			if !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	return out
}

// Blind returns the detection rules that compiled but ask for what no sensor here can fill, so can never match.
func (s *Set) Blind() []*Rule { return slices.Clone(s.blind) }

// Silent reports whether r makes no alerts of its own because it only feeds a correlation rule of its file.
func (s *Set) Silent(r *Rule) bool { return s.silent[r] }

type compiler struct {
	placeholders func(string) ([]string, bool)
	rules        []*Rule
	named        map[string]*Rule  // by id and by name
	trees        map[*Rule]*node   // of detections
	excluded     map[*Rule]*node   // what filters exclude
	filters      map[*Rule][]*Rule // by the detection that they are for
	errs         []*Error
}

func (c *compiler) fault(r *Rule, err error) { c.errs = append(c.errs, r.doc.faults(err)...) }

// register gathers the rules under their ids and names.
func (c *compiler) register(rules []*Rule) {
	for _, r := range rules {
		if other, taken := c.named[r.ID]; taken {
			c.fault(r, faultf(r.Line, "give it another", "id %q is taken by the rule at %s:%d", r.ID, other.File, other.Line))
			continue
		}
		if other, taken := c.named[r.Name]; taken && r.Name != "" {
			c.fault(r, faultf(r.Line, "give it another", "name %q is taken by the rule at %s:%d", r.Name, other.File, other.Line))
			continue
		}
		c.named[r.ID] = r
		if r.Name != "" {
			c.named[r.Name] = r
		}
		c.rules = append(c.rules, r)
	}
}

// lower makes the trees that Parse could not, for want of placeholders' values.
func (c *compiler) lower() {
	for _, r := range c.rules {
		if r.detection == nil {
			continue
		}
		tree := r.detection.tree
		if r.detection.placeholders {
			var err error
			if tree, err = r.detection.lower(c.placeholders); err != nil {
				c.fault(r, err)
				continue
			}
		}
		c.trees[r] = tree
	}
}

// buildEngines compiles, for every type of event, the rules that can match it.
func (c *compiler) buildEngines(s *Set) {
	byType := map[event.Type][]typedRule{}
	live := s.rules[:0]
	for _, r := range s.rules {
		able, alive := false, false
		for _, t := range r.source.types {
			tree := c.trees[r].simplify(fixedBy(t))
			if tree.op == opFalse {
				continue
			}
			able = true
			if exclusions, off := c.exclusionsOf(r, t); !off {
				alive = true
				byType[t] = append(byType[t], typedRule{r, tree, exclusions})
			}
		}
		if alive {
			live = append(live, r)
		} else if !able {
			s.blind = append(s.blind, r)
		}
	}
	s.rules = live
	for _, t := range slices.Sorted(maps.Keys(byType)) {
		e := newEngine(byType[t])
		s.engines[t] = e
		s.size.slots = max(s.size.slots, len(e.fields))
		s.size.keys = max(s.size.keys, e.keys)
		s.size.lazies = max(s.size.lazies, len(e.lazies))
		s.size.rules = max(s.size.rules, len(e.rules))
	}
}

type typedRule struct {
	rule       *Rule
	tree       *node
	exclusions []typedRule // filters
}

// correlate orders the correlation rules so that each comes after those it refers to, and resolves what they name.
func (c *compiler) correlate(s *Set) {
	const (
		fresh = iota
		open
		done
		broken
	)
	state := map[*Rule]int{}
	var visit func(r *Rule) error
	visit = func(r *Rule) error {
		switch state[r] {
		case done:
			return nil
		case broken:
			return fmt.Errorf("rule %q has faults of its own", r.ID)
		case open:
			return faultf(r.correlation.line, "", "the correlation refers to itself by way of %q", r.ID)
		}
		state[r] = open
		var errs []error
		for _, name := range r.correlation.rules {
			target, ok := c.named[name]
			if !ok {
				errs = append(errs, faultf(r.correlation.line, "use the rule's id or name", "the correlation names rule %q, which is not there", name))
				continue
			}
			if target.Kind == Correlation {
				if err := visit(target); err != nil {
					errs = append(errs, faultf(r.correlation.line, "", "the correlation names %q: %v", name, err))
				}
			}
		}
		built, err := newCorrelator(r, c.named)
		errs = append(errs, err)
		if err := errors.Join(errs...); err != nil {
			state[r] = broken
			return err
		}
		state[r] = done
		s.parts[r] = built.targets
		s.correlations = append(s.correlations, built)
		return nil
	}
	for _, r := range c.rules {
		if r.Kind != Correlation || state[r] != fresh {
			continue
		}
		if err := visit(r); err != nil {
			c.fault(r, err)
		}
	}
	s.silence(c.named)
}

// silence finds the rules that exist only to be correlated: those of a correlation's own file, unless it says generate.
// A rule of another file keeps its alerts, since its author did not know of the correlation.
func (s *Set) silence(named map[string]*Rule) {
	s.silent = map[*Rule]bool{}
	loud := map[*Rule]bool{}
	for _, c := range s.correlations {
		for _, name := range c.rule.correlation.rules {
			r := named[name]
			loud[r] = loud[r] || c.rule.correlation.generate
			if r.File == c.rule.File {
				s.silent[r] = true
			}
		}
	}
	maps.DeleteFunc(s.silent, func(r *Rule, _ bool) bool { return loud[r] })
}
