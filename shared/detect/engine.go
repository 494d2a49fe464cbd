package detect

import "slices"

// engine is the rules of one type of event, compiled. Rules ask tests; every distinct test exists once, as a key or as a
// lazy. A key is a literal of a field that the index finds in one pass over the field; a lazy is decided when a rule asks
// for it, once per event. Of every rule the engine knows keys of which at least one is found whenever the rule is true,
// and leaves the rule alone when none is; rules without such keys are always evaluated. What filters and exceptions
// exclude is asked last, of rules that match.
type engine struct {
	rules  []*Rule
	groups [][]int // per rule, the slots of its grouping fields
	fields []*field
	lazies []*lazyTest

	keys    int
	indexes []index
	// triggers[triggerAt[k]:triggerAt[k+1]] are the rules that key k makes worth evaluating.
	triggerAt []uint32
	triggers  []uint32
	always    []uint64 // bits of rules

	// A rule's program is a decision: start at entry[rule]; a step's test says where to go on.
	steps []step
	entry []int32
}

type lazyTest struct {
	test      *test
	slot, ref int // ref is the slot of a leafRef's other field
	// implied are keys of which one is found whenever the test is true; nil when none are known.
	implied []int32
}

// index finds the keys of one field.
type index struct {
	slot                     int
	exact                    map[string]int32
	prefix, suffix, contains *automaton
}

// step asks test at (a key, or ^lazy) and goes on at yes or no.
type step struct{ at, yes, no int32 }

// Where a program ends.
const (
	accept int32 = -1
	reject int32 = -2
)

// keyID is what makes a key.
type keyID struct {
	slot int
	kind testKind // testExact, testPrefix, testSuffix, testContains
	text string
}

// builder gathers an engine.
type builder struct {
	e      *engine
	slots  map[string]int
	keys   map[keyID]int32
	order  []keyID
	lazies map[string]int32
	used   []int // per key, how many rules have it in a test or as a candidate for their index
	seen   []int // per key, the last rule counted in used
}

func newEngine(rules []typedRule) *engine {
	b := &builder{e: &engine{}, slots: map[string]int{}, keys: map[keyID]int32{}, lazies: map[string]int32{}}
	e := b.e
	codes := make([]*code, len(rules))
	for i, r := range rules {
		e.rules = append(e.rules, r.rule)
		codes[i] = b.code(r.tree, i)
	}
	accepting := b.exclusions(rules)
	e.always = make([]uint64, words64(len(rules)))
	triggers := make([][]uint32, len(b.order))
	for i, c := range codes {
		start := accepting[i]
		if c != nil {
			start = e.program(c, start, reject)
		}
		e.entry = append(e.entry, start)
		need := b.necessary(c)
		if need == nil {
			e.always[i/64] |= 1 << (i % 64)
			continue
		}
		for _, k := range need.keys {
			triggers[k] = append(triggers[k], uint32(i))
		}
	}
	for _, t := range triggers {
		slices.Sort(t)
		e.triggerAt = append(e.triggerAt, uint32(len(e.triggers)))
		e.triggers = append(e.triggers, slices.Compact(t)...)
	}
	e.triggerAt = append(e.triggerAt, uint32(len(e.triggers)))
	e.keys = len(b.order)
	b.index()
	for _, r := range e.rules {
		var group []int
		for _, name := range r.GroupBy {
			if f, err := r.source.field(0, name); err == nil && f.load != nil {
				group = append(group, b.slot(f))
			} else {
				group = append(group, -1)
			}
		}
		e.groups = append(e.groups, group)
	}
	return e
}

// late stands for a rule in the code of exclusions: they are asked only of rules that match, so the index has nothing of
// them and events that match nothing pay nothing for them.
const late = -1

// exclusions programs what keeps rules from matching and returns, by rule, where to go on when all else holds. Rules with
// the same exclusions share their program.
func (b *builder) exclusions(rules []typedRule) []int32 {
	type chain struct {
		filter *Rule
		next   int32
	}
	made := map[chain]int32{}
	codes := map[*Rule]*code{}
	out := make([]int32, len(rules))
	for i, r := range rules {
		out[i] = accept
		for _, x := range slices.Backward(r.exclusions) {
			link := chain{x.rule, out[i]}
			start, ok := made[link]
			if !ok {
				if codes[x.rule] == nil {
					codes[x.rule] = b.code(x.tree, late)
				}
				start = b.e.program(codes[x.rule], reject, out[i])
				made[link] = start
			}
			out[i] = start
		}
	}
	return out
}

func words64(bits int) int { return (bits + 63) / 64 }

func (b *builder) slot(f *field) int {
	if i, ok := b.slots[f.name]; ok {
		return i
	}
	i := len(b.e.fields)
	b.slots[f.name] = i
	b.e.fields = append(b.e.fields, f)
	return i
}

func (b *builder) key(id keyID, rule int) int32 {
	k, ok := b.keys[id]
	if !ok {
		k = int32(len(b.order))
		b.keys[id] = k
		b.order = append(b.order, id)
		b.used, b.seen = append(b.used, 0), append(b.seen, -1)
	}
	if b.seen[k] != rule {
		b.seen[k] = rule
		b.used[k]++
	}
	return k
}

// code is a rule's tree with its tests numbered; nil stands for true.
type code struct {
	op      op
	kids    []*code
	at      int32   // of a leaf: as in step
	implied []int32 // of a lazy: keys of which one is found whenever it is true; nil when there are none
	cost    int
}

func (b *builder) code(n *node, rule int) *code {
	if n.op == opTrue {
		return nil
	}
	c := &code{op: n.op}
	if n.op != opLeaf {
		for _, k := range n.kids {
			kid := b.code(k, rule)
			c.kids = append(c.kids, kid)
			c.cost += kid.cost
		}
		slices.SortStableFunc(c.kids, func(x, y *code) int { return x.cost - y.cost })
		return c
	}
	t := newTest(n.leaf)
	slot := b.slot(n.leaf.field)
	if t.isKey() && rule != late {
		c.at = b.key(keyID{slot, t.kind, t.text}, rule)
		c.cost = 1
		return c
	}
	id := t.id()
	at, ok := b.lazies[id]
	if !ok {
		at = int32(len(b.e.lazies))
		b.lazies[id] = at
		lazy := &lazyTest{test: t, slot: slot}
		if t.ref != nil {
			lazy.ref = b.slot(t.ref)
		}
		b.e.lazies = append(b.e.lazies, lazy)
	}
	c.at, c.cost = ^at, 1+t.cost()
	if rule == late {
		return c
	}
	for _, l := range impliedLiterals(t) {
		c.implied = append(c.implied, b.key(keyID{slot, l.kind, l.text}, rule))
	}
	b.e.lazies[at].implied = c.implied
	return c
}

// program appends the steps of c that end at yes or no and returns where they start. Steps are appended last first, so
// every place they lead to is known.
func (e *engine) program(c *code, yes, no int32) int32 {
	switch c.op {
	case opNot:
		return e.program(c.kids[0], no, yes)
	case opAnd:
		for _, k := range slices.Backward(c.kids) {
			yes = e.program(k, yes, no)
		}
		return yes
	case opOr:
		for _, k := range slices.Backward(c.kids) {
			no = e.program(k, yes, no)
		}
		return no
	default:
		e.steps = append(e.steps, step{c.at, yes, no})
		return int32(len(e.steps) - 1)
	}
}

// index builds the indexes from the keys.
func (b *builder) index() {
	type lists [testContains + 1][]literalKey
	byField := make([]lists, len(b.e.fields))
	for k, id := range b.order {
		text := id.text
		if id.kind == testSuffix {
			text = backwards(text)
		}
		byField[id.slot][id.kind] = append(byField[id.slot][id.kind], literalKey{text, int32(k)})
	}
	for slot, l := range byField {
		x := index{slot: slot}
		if len(l[testExact]) > 0 {
			x.exact = make(map[string]int32, len(l[testExact]))
			for _, e := range l[testExact] {
				x.exact[e.text] = e.key
			}
		}
		build := func(kind testKind) *automaton {
			if len(l[kind]) == 0 {
				return nil
			}
			return newAutomaton(l[kind], kind == testContains)
		}
		x.prefix, x.suffix, x.contains = build(testPrefix), build(testSuffix), build(testContains)
		if x.exact != nil || x.prefix != nil || x.suffix != nil || x.contains != nil {
			b.e.indexes = append(b.e.indexes, x)
		}
	}
}
