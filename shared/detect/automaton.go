package detect

import "slices"

// automaton holds literals and finds which of them start a text, end it, or stand in it, in one pass whose length does
// not depend on how many they are. Searching is Aho and Corasick's ("Efficient string matching", 1975) over a trie laid
// out as a double array (Aoe, 1989): a state is an index, its successor by a byte of class c is base+c when that cell's
// check names it. Compact tables matter more here than the fewest steps: a thousand rules' literals fit a core's cache.
type automaton struct {
	class [256]uint16 // of a byte; 0 for bytes in no literal
	cells []cell      // cells[0] is the root; padded, so that base+class is never out of range
}

type cell struct {
	base, check int32
	fail        int32 // the state of the longest proper suffix
	key         int32 // of the literal that ends here, or -1
	emit        int32 // the first state of this one's suffixes, itself included, where a literal ends; 0 for none
	more        int32 // the next such state after this one
}

// literalKey is a literal and what it is known by.
type literalKey struct {
	text string
	key  int32
}

// newAutomaton builds the automaton of different, non-empty literals. Only one that is searched with scan needs the
// links of Aho and Corasick.
func newAutomaton(literals []literalKey, searching bool) *automaton {
	type edge struct {
		b  byte
		to int32
	}
	type trieNode struct {
		edges []edge
		key   int32
	}
	trie := []trieNode{{key: -1}}
	a := &automaton{}
	classes := uint16(0)
	for _, l := range literals {
		at := int32(0)
		for i := range len(l.text) {
			b := l.text[i]
			if a.class[b] == 0 {
				classes++
				a.class[b] = classes
			}
			j := slices.IndexFunc(trie[at].edges, func(e edge) bool { return e.b == b })
			if j < 0 {
				trie = append(trie, trieNode{key: -1})
				trie[at].edges = append(trie[at].edges, edge{b, int32(len(trie) - 1)})
				j = len(trie[at].edges) - 1
			}
			at = trie[at].edges[j].to
		}
		trie[at].key = l.key
	}

	grow := func(n int) {
		for len(a.cells) < n {
			a.cells = append(a.cells, cell{check: -1, key: -1})
		}
	}
	grow(1)
	type placed struct{ node, state int32 }
	queue := []placed{{0, 0}}
	used := func(i int32) bool { return i == 0 || int(i) < len(a.cells) && a.cells[i].check >= 0 }
	free := int32(1)
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		edges := trie[at.node].edges
		if len(edges) == 0 {
			continue
		}
		for used(free) {
			free++
		}
		lead := int32(a.class[edges[0].b])
		base := max(free-lead, 0)
		for slices.ContainsFunc(edges, func(e edge) bool { return used(base + int32(a.class[e.b])) }) {
			base++
		}
		a.cells[at.state].base = base
		for _, e := range edges {
			to := base + int32(a.class[e.b])
			grow(int(to) + 1)
			c := &a.cells[to]
			c.check, c.key = at.state, trie[e.to].key
			if searching && at.state != 0 {
				c.fail = a.fallback(a.cells[at.state].fail, a.class[e.b])
			}
			c.more = a.cells[c.fail].emit
			c.emit = c.more
			if c.key >= 0 {
				c.emit = to
			}
			queue = append(queue, placed{e.to, to})
		}
	}
	grow(len(a.cells) + int(classes) + 1)
	a.cells = slices.Clip(a.cells)
	return a
}

// fallback is the state reached by class c from state s or from the first of its suffixes that has one; 0 for none. It is
// only asked of states whose successors are in place.
func (a *automaton) fallback(s int32, c uint16) int32 {
	for {
		if to := int(a.cells[s].base) + int(c); to < len(a.cells) && a.cells[to].check == s && to != 0 {
			return int32(to)
		}
		if s == 0 {
			return 0
		}
		s = a.cells[s].fail
	}
}

// scan hits every literal that stands anywhere in text.
func (a *automaton) scan(text string, m *Matcher) {
	s := int32(0)
	cells := a.cells
	for i := range len(text) {
		c := int32(a.class[text[i]])
		if c == 0 {
			s = 0
			continue
		}
		for {
			if to := cells[s].base + c; cells[to].check == s {
				s = to
				break
			}
			if s == 0 {
				break
			}
			s = cells[s].fail
		}
		for o := cells[s].emit; o != 0; o = cells[o].more {
			m.hit(cells[o].key)
		}
	}
}

// starts hits every literal that text starts with.
func (a *automaton) starts(text string, m *Matcher) {
	s := int32(0)
	for i := range len(text) {
		if s = a.step(s, text[i]); s == 0 {
			return
		}
		if key := a.cells[s].key; key >= 0 {
			m.hit(key)
		}
	}
}

// ends hits every literal that text ends with; the automaton was built of the literals backwards.
func (a *automaton) ends(text string, m *Matcher) {
	s := int32(0)
	for i := len(text) - 1; i >= 0; i-- {
		if s = a.step(s, text[i]); s == 0 {
			return
		}
		if key := a.cells[s].key; key >= 0 {
			m.hit(key)
		}
	}
}

func (a *automaton) step(s int32, b byte) int32 {
	if to := a.cells[s].base + int32(a.class[b]); a.class[b] != 0 && a.cells[to].check == s {
		return to
	}
	return 0
}

// backwards returns the bytes of s in reverse order.
func backwards(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}
