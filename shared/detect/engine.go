package detect

import (
	"math"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

// engine is the rules of one type of event, compiled. Rules ask tests; every distinct test exists once, as a key or as a
// lazy. A key is a literal of a field that the index finds in one pass over the field; a lazy is decided when a rule asks
// for it, once per event. Of every rule the engine knows keys of which at least one is found whenever the rule is true,
// and leaves the rule alone when none is; rules without such keys are always evaluated.
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
	e.always = make([]uint64, words64(len(rules)))
	triggers := make([][]uint32, len(b.order))
	for i, c := range codes {
		start := accept
		if c != nil {
			start = e.program(c, accept, reject)
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
	if t.isKey() {
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
	for _, l := range impliedLiterals(t) {
		c.implied = append(c.implied, b.key(keyID{slot, l.kind, l.text}, rule))
	}
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

// need is a set of keys of which one is found whenever something is true, and what it costs to look when one is.
type need struct {
	keys []int32
	cost float64
}

// necessary returns what c needs, or nil when it may be true without any key.
func (b *builder) necessary(c *code) *need {
	if c == nil {
		return nil
	}
	return b.needs(c, true)
}

// needs is necessary for c being as positive says.
func (b *builder) needs(c *code, positive bool) *need {
	op := c.op
	if !positive {
		switch op {
		case opAnd:
			op = opOr
		case opOr:
			op = opAnd
		default:
		}
	}
	switch op {
	case opNot:
		return b.needs(c.kids[0], !positive)
	case opAnd:
		var best *need
		for _, k := range c.kids {
			if n := b.needs(k, positive); n != nil && (best == nil || n.cost < best.cost) {
				best = n
			}
		}
		return best
	case opOr:
		all := &need{}
		for _, k := range c.kids {
			n := b.needs(k, positive)
			if n == nil {
				return nil
			}
			all.keys = append(all.keys, n.keys...)
			all.cost += n.cost
		}
		return all
	default:
		if !positive {
			return nil
		}
		keys := c.implied
		if c.at >= 0 {
			keys = []int32{c.at}
		}
		if len(keys) == 0 {
			return nil
		}
		n := &need{keys: keys}
		for _, k := range keys {
			n.cost += b.rarity(k)
		}
		return n
	}
}

// rarity guesses how often a key is found in ordinary events. Short literals are found often, starts of paths are shared
// by many, and what many rules ask for is what many programs do.
func (b *builder) rarity(k int32) float64 {
	id := b.order[k]
	guess := 40 * math.Exp2(-float64(min(len(id.text), 12))/2)
	switch id.kind {
	case testExact:
		guess = 0.2
	case testPrefix:
		guess += 4
	case testSuffix:
		guess /= 2
	default:
	}
	return guess + 0.5*float64(b.used[k])
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

// impliedLiterals returns literals of which one is found in the folded value whenever the lazy test is true.
func impliedLiterals(t *test) []keyID {
	switch t.leaf.kind {
	case leafPattern:
		var best keyID
		p := t.pattern.fold()
		for i, q := range p {
			if q.kind != literal || len(q.text) <= len(best.text) || !utf8.ValidString(q.text) {
				continue
			}
			best = keyID{kind: testContains, text: q.text}
			switch {
			case len(p) == 1:
				best.kind = testExact
			case i == 0:
				best.kind = testPrefix
			case i == len(p)-1:
				best.kind = testSuffix
			}
		}
		if best.text != "" {
			return []keyID{best}
		}
	case leafRegexp:
		re, err := syntax.Parse(t.regexp.String(), syntax.Perl)
		if err != nil {
			return nil
		}
		var ids []keyID
		for _, text := range required(re) {
			ids = append(ids, keyID{kind: testContains, text: foldString(text)})
		}
		return ids
	default:
	}
	return nil
}

// maxRequired bounds the literals that stand for one regular expression in the index.
const maxRequired = 32

// required returns literals of which one is in every text that re matches; nil when none is known.
func required(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		if slices.Contains(re.Rune, utf8.RuneError) {
			return nil // it also stands for bytes that are not UTF-8
		}
		return []string{string(re.Rune)}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		var best []string
		shortest := 0
		for _, sub := range re.Sub {
			found := required(sub)
			if least := leastLen(found); least > shortest {
				best, shortest = found, least
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			found := required(sub)
			if found == nil || len(all)+len(found) > maxRequired {
				return nil
			}
			all = append(all, found...)
		}
		return all
	default:
	}
	return nil
}

func leastLen(texts []string) int {
	if len(texts) == 0 {
		return 0
	}
	least := len(texts[0])
	for _, t := range texts {
		least = min(least, len(t))
	}
	return least
}
