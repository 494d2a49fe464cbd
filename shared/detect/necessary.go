package detect

import (
	"math"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

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
		re, err := syntax.Parse(t.regexp.text, syntax.Perl)
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
