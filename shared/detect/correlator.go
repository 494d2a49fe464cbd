package detect

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/event"
)

// Correlated is a correlation rule that matched.
type Correlated struct {
	Rule *Rule
	// Group are the values of the rule's group-by, in its order.
	Group []string
	// Count is what the rule's condition was met by: events, distinct values, or rules.
	Count int
	// EventIDs are the events that made the match, oldest first: at most the last [maxEventIDs].
	EventIDs    []string
	First, Last time.Time
	// Silent is as in [Match].
	Silent bool
}

const (
	maxEventIDs = 100
	maxValue    = 256 // bytes of a value that a group keeps as it is; a longer one is kept as its hash
)

// CorrelatorOptions bound a correlator's memory. Zero means the default.
type CorrelatorOptions struct {
	MaxGroups  int // default 10,000
	MaxEntries int // of all groups together, about 100 bytes each; default 100,000
}

// CorrelatorStats count what a correlator holds and what it could not.
type CorrelatorStats struct {
	Groups, Entries int
	// Evicted are groups that were forgotten inside their timespan to make room, the least recently touched first. Their
	// matches may have been lost.
	Evicted uint64
	// Ungrouped are events that lacked a group-by field or the counted value, and so belonged to no group.
	Ungrouped uint64
}

// Correlator evaluates the correlation rules of a set over the matches of its [Matcher]. One goroutine at a time may use
// it.
//
// Windows slide: a rule is decided at every event of a group, over the events of the timespan before it. A match uses its
// events up; the group starts again from nothing, so a thousand logins with gte: 100 are ten matches and not nine hundred.
// Events are taken in the order in which they come; one that is older than its group's newest counts as being as new.
type Correlator struct {
	set     *Set
	options CorrelatorOptions
	groups  map[groupKey]*group
	lru     group // ring; lru.next is the most recently touched
	entries int
	stats   CorrelatorStats
	fired   []*Rule // of the event at hand
	load    slot
}

type groupKey struct {
	rule   int
	values string
}

// group is the state of one correlation rule for one combination of values.
type group struct {
	key        groupKey
	values     []string
	entries    []entry
	last       time.Time
	prev, next *group
}

// entry is one event (event_count), one value's latest event (value_count), one rule's latest event (temporal), or the
// latest start of a run of rules in order (temporal_ordered, with the run's events in ids).
type entry struct {
	at    time.Time
	rule  int
	value string
	id    string
	ids   []string
}

// correlator is a correlation rule with what it names resolved.
type correlator struct {
	rule    *Rule
	targets []*Rule
	group   [][]*field // by target
	values  [][]*field // by target; of value_count
}

func newCorrelator(r *Rule, named map[string]*Rule) (*correlator, error) {
	k := r.correlation
	c := &correlator{rule: r}
	for _, name := range k.rules {
		target, ok := named[name]
		if !ok {
			return nil, nil // reported by the caller
		}
		if target.Kind == Filter {
			return nil, faultf(k.line, "", "the correlation names %q, which is a filter", name)
		}
		c.targets = append(c.targets, target)
		source := sourceOf(target, named)
		if source == nil {
			return nil, nil
		}
		resolve := func(names []string) ([]*field, error) {
			var out []*field
			for _, n := range names {
				if alias, ok := k.aliases[n]; ok {
					if n, ok = alias[name]; !ok {
						return nil, faultf(k.line, "give the alias a field for every rule", "an alias has no field for rule %q", name)
					}
				}
				f, err := source.field(k.line, n)
				if err != nil {
					return nil, err
				}
				if f.load == nil {
					return nil, faultf(k.line, "group by a field that the events have", "no sensor fills field %q", n)
				}
				out = append(out, f)
			}
			return out, nil
		}
		group, err := resolve(k.groupBy)
		if err != nil {
			return nil, err
		}
		values, err := resolve(k.fields)
		if err != nil {
			return nil, err
		}
		c.group, c.values = append(c.group, group), append(c.values, values)
	}
	return c, nil
}

// sourceOf is the logsource whose names a rule's events are called by: of a correlation, its first rule's.
func sourceOf(r *Rule, named map[string]*Rule) *logsource {
	for range maxConditionDepth {
		if r == nil || r.Kind != Correlation {
			break
		}
		r = named[r.correlation.rules[0]]
	}
	if r == nil {
		return nil
	}
	return r.source
}

// NewCorrelator returns a correlator for one goroutine, or nil when the set has no correlation rules; a nil Correlator
// does nothing.
func (s *Set) NewCorrelator(o CorrelatorOptions) *Correlator {
	if len(s.correlations) == 0 {
		return nil
	}
	if o.MaxGroups <= 0 {
		o.MaxGroups = 10_000
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 100_000
	}
	c := &Correlator{set: s, options: o, groups: map[groupKey]*group{}}
	c.lru.prev, c.lru.next = &c.lru, &c.lru
	return c
}

// Stats returns what the correlator holds now and has dropped so far.
func (c *Correlator) Stats() CorrelatorStats {
	if c == nil {
		return CorrelatorStats{}
	}
	s := c.stats
	s.Groups, s.Entries = len(c.groups), c.entries
	return s
}

// Add takes the matches of one event, which happened at, and appends the correlation rules that match by it to dst.
func (c *Correlator) Add(at time.Time, e *event.Event, matches []Match, dst []Correlated) []Correlated {
	if c == nil || len(matches) == 0 {
		return dst
	}
	c.fired = c.fired[:0]
	for _, m := range matches {
		c.fired = append(c.fired, m.Rule)
	}
	for i, rule := range c.set.correlations {
		n := len(dst)
		dst = c.feed(i, rule, at, e, dst)
		if len(dst) > n {
			c.fired = append(c.fired, rule.rule)
		}
	}
	return dst
}

// feed gives the event to one correlation rule.
func (c *Correlator) feed(index int, rule *correlator, at time.Time, e *event.Event, dst []Correlated) []Correlated {
	// Backwards, so that one event is never two steps of an order.
	for i, target := range slices.Backward(rule.targets) {
		if !slices.Contains(c.fired, target) {
			continue
		}
		values, complete := c.read(rule.group[i], e)
		var value []string
		if complete {
			value, complete = c.read(rule.values[i], e)
		}
		if !complete {
			c.stats.Ungrouped++
			continue
		}
		g := c.touch(groupKey{index, joinValues(values)}, values, at)
		before := len(g.entries)
		count, ids, first := rule.rule.correlation.add(g, entry{at: g.last, rule: i, value: joinValues(value), id: strings.Clone(e.ID)})
		c.entries += len(g.entries) - before
		if ids != nil {
			dst = append(dst, Correlated{
				Rule: rule.rule, Group: g.values, Count: count, EventIDs: ids[max(0, len(ids)-maxEventIDs):],
				First: first, Last: g.last, Silent: c.set.silent[rule.rule],
			})
			c.forget(g)
		}
		c.shrink()
		if ids != nil || !rule.rule.correlation.byRule() {
			break // an event counts once
		}
	}
	return dst
}

// byRule reports whether the correlation tells its rules apart.
func (k *correlation) byRule() bool { return k.kind == "temporal" || k.kind == "temporal_ordered" }

// add puts x into g. When the condition is met it returns the events that met it and the time of the first.
func (k *correlation) add(g *group, x entry) (count int, ids []string, first time.Time) {
	g.entries = slices.DeleteFunc(g.entries, func(old entry) bool {
		return x.at.Sub(old.at) > k.timespan ||
			k.kind == "value_count" && old.value == x.value || k.kind == "temporal" && old.rule == x.rule
	})
	if k.kind == "temporal_ordered" {
		return k.addOrdered(g, x)
	}
	g.entries = append(g.entries, x)
	if enough := k.enough(); len(g.entries) > enough {
		g.entries = slices.Delete(g.entries, 0, len(g.entries)-enough)
	}
	if count = len(g.entries); !k.holds(count) {
		return count, nil, first
	}
	for _, y := range g.entries {
		ids = append(ids, y.id)
	}
	return count, ids, g.entries[0].at
}

// addOrdered keeps, for every rule, the run of rules up to it that started last: no other run can end earlier inside the
// timespan.
func (k *correlation) addOrdered(g *group, x entry) (count int, ids []string, first time.Time) {
	run := entry{at: x.at, rule: x.rule, ids: []string{x.id}}
	if x.rule > 0 {
		i := slices.IndexFunc(g.entries, func(y entry) bool { return y.rule == x.rule-1 })
		if i < 0 {
			return 0, nil, first
		}
		run.at = g.entries[i].at
		run.ids = append(slices.Clone(g.entries[i].ids), x.id)
	}
	if x.rule == len(k.rules)-1 {
		return len(k.rules), run.ids, run.at
	}
	g.entries = slices.DeleteFunc(g.entries, func(y entry) bool { return y.rule == x.rule })
	g.entries = append(g.entries, run)
	return 0, nil, first
}

// read returns the first value of each field, and whether each has one.
func (c *Correlator) read(fields []*field, e *event.Event) ([]string, bool) {
	var out []string
	for _, f := range fields {
		c.load.reset()
		f.load(e, &c.load.values)
		if len(c.load.texts) == 0 {
			return nil, false
		}
		text := c.load.texts[0]
		if len(text) > maxValue {
			sum := sha256.Sum256([]byte(text))
			text = hex.EncodeToString(sum[:])
		}
		out = append(out, strings.Clone(text))
	}
	return out, true
}

// joinValues keeps ("a", "bc") apart from ("ab", "c").
func joinValues(values []string) string {
	var b []byte
	for _, v := range values {
		b = binary.AppendUvarint(b, uint64(len(v)))
		b = append(b, v...)
	}
	return string(b)
}

// touch returns the group, made where there is none, as the most recent one.
func (c *Correlator) touch(key groupKey, values []string, at time.Time) *group {
	g := c.groups[key]
	if g == nil {
		g = &group{key: key, values: values, last: at}
		c.groups[key] = g
	} else {
		g.prev.next, g.next.prev = g.next, g.prev
	}
	g.prev, g.next = &c.lru, c.lru.next
	g.prev.next, g.next.prev = g, g
	if at.After(g.last) {
		g.last = at
	}
	// Groups that nothing can match any more make room without being counted as lost.
	for old := c.lru.prev; old != g && g.last.Sub(old.last) > c.set.correlations[old.key.rule].rule.correlation.timespan; old = c.lru.prev {
		c.forget(old)
	}
	return g
}

func (c *Correlator) forget(g *group) {
	g.prev.next, g.next.prev = g.next, g.prev
	delete(c.groups, g.key)
	c.entries -= len(g.entries)
}

// shrink keeps the bounds.
func (c *Correlator) shrink() {
	for len(c.groups) > c.options.MaxGroups || c.entries > c.options.MaxEntries {
		c.forget(c.lru.prev)
		c.stats.Evicted++
	}
}
