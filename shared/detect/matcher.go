package detect

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/shared/event"
)

// Match is a rule that matched an event.
type Match struct {
	Rule *Rule
	// Group are the values of the rule's grouping fields, in their order; empty where the event has none. Of a field with
	// several values it is the first.
	Group []string
	// Silent is true for a rule that only feeds a correlation rule of its file: it makes no alert of its own.
	Silent bool
}

// Matcher evaluates a set. It has memory of its own, which it uses again for every event: one goroutine at a time may
// use it.
type Matcher struct {
	set   *Set
	e     *engine
	slots []slot

	hits         []uint64 // keys found
	asked, truth []uint64 // lazies decided, and how
	candidates   []uint64 // rules worth evaluating
	buf          []byte   // of folded texts
}

// keepBuffer is the most memory for folded texts that a matcher keeps between events; a longer event is rare.
const keepBuffer = 256 << 10

// NewMatcher returns a matcher for one goroutine.
func (s *Set) NewMatcher() *Matcher {
	return &Matcher{
		set: s, slots: make([]slot, s.size.slots), hits: make([]uint64, words64(s.size.keys)),
		asked: make([]uint64, words64(s.size.lazies)), truth: make([]uint64, words64(s.size.lazies)),
		candidates: make([]uint64, words64(s.size.rules)),
	}
}

// Match appends the rules that e matches to dst, in the order in which they were compiled, and returns it. It allocates
// nothing when none does.
func (m *Matcher) Match(e *event.Event, dst []Match) []Match {
	eng := m.set.engines[e.Type]
	if eng == nil {
		return dst
	}
	m.begin(eng)
	for i := range eng.indexes {
		m.find(&eng.indexes[i], e)
	}
	for w := range eng.always {
		for set := m.candidates[w] | eng.always[w]; set != 0; set &= set - 1 {
			rule := w*64 + bits.TrailingZeros64(set)
			if m.run(eng.entry[rule], e) {
				dst = append(dst, m.match(rule, e))
			}
		}
	}
	return dst
}

func (m *Matcher) begin(eng *engine) {
	m.e = eng
	for i := range eng.fields {
		s := &m.slots[i]
		s.reset()
		s.folded = s.folded[:0]
		s.loaded, s.fold = false, false
	}
	clear(m.hits[:words64(eng.keys)])
	clear(m.asked[:words64(len(eng.lazies))])
	clear(m.candidates[:len(eng.always)])
	if cap(m.buf) > keepBuffer {
		m.buf = nil
	}
	m.buf = m.buf[:0]
}

// find finds the keys of one field.
func (m *Matcher) find(x *index, e *event.Event) {
	for _, text := range m.folded(x.slot, e) {
		if x.exact != nil {
			if key, ok := x.exact[text]; ok {
				m.hit(key)
			}
		}
		if x.prefix != nil {
			x.prefix.starts(text, m)
		}
		if x.suffix != nil {
			x.suffix.ends(text, m)
		}
		if x.contains != nil {
			x.contains.scan(text, m)
		}
	}
}

// hit notes that a key was found, and the rules that are worth evaluating for it.
func (m *Matcher) hit(key int32) {
	word, bit := &m.hits[key>>6], uint64(1)<<(key&63)
	if *word&bit != 0 {
		return
	}
	*word |= bit
	for _, r := range m.e.triggers[m.e.triggerAt[key]:m.e.triggerAt[key+1]] {
		m.candidates[r>>6] |= 1 << (r & 63)
	}
}

// found reports whether a key was.
func (m *Matcher) found(key int32) bool { return m.hits[key>>6]>>(key&63)&1 != 0 }

// loaded returns the slot with its texts.
func (m *Matcher) loaded(i int, e *event.Event) *slot {
	s := &m.slots[i]
	s.load(m.e.fields[i], e)
	return s
}

// folded returns the texts of a slot, folded.
func (m *Matcher) folded(i int, e *event.Event) []string {
	s := m.loaded(i, e)
	if !s.fold {
		s.fold = true
		for _, text := range s.texts {
			if !isFolded(text) {
				start := len(m.buf)
				m.buf = appendFold(m.buf, text)
				text = stringOf(m.buf[start:])
			}
			s.folded = append(s.folded, text)
		}
	}
	return s.folded
}

// run evaluates a program.
func (m *Matcher) run(at int32, e *event.Event) bool {
	steps := m.e.steps
	for at >= 0 {
		s := &steps[at]
		var truth bool
		if s.at >= 0 {
			truth = m.found(s.at)
		} else {
			truth = m.lazy(int(^s.at), e)
		}
		at = s.no
		if truth {
			at = s.yes
		}
	}
	return at == accept
}

// lazy decides a test that the index does not, once per event.
func (m *Matcher) lazy(i int, e *event.Event) bool {
	word, bit := i>>6, uint64(1)<<(i&63)
	if m.asked[word]&bit != 0 {
		return m.truth[word]&bit != 0
	}
	m.asked[word] |= bit
	m.truth[word] &^= bit
	l := m.e.lazies[i]
	if l.implied != nil && !slices.ContainsFunc(l.implied, m.found) {
		return false
	}
	s := m.loaded(l.slot, e)
	var truth bool
	if l.test.leaf.kind == leafPattern && !l.test.cased || l.test.leaf.kind == leafRef {
		m.folded(l.slot, e)
	}
	if l.test.leaf.kind == leafRef {
		m.folded(l.ref, e)
		truth = l.test.fitsRef(s, &m.slots[l.ref])
	} else {
		truth = l.test.fits(s)
	}
	if truth {
		m.truth[word] |= bit
	}
	return truth
}

func (m *Matcher) match(rule int, e *event.Event) Match {
	out := Match{Rule: m.e.rules[rule], Silent: m.set.silent[m.e.rules[rule]]}
	for _, slot := range m.e.groups[rule] {
		value := ""
		if slot >= 0 {
			if s := m.loaded(slot, e); len(s.texts) > 0 {
				value = strings.Clone(s.texts[0]) // the text may live in the matcher's memory
			}
		}
		out.Group = append(out.Group, value)
	}
	return out
}
