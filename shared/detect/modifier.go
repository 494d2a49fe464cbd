package detect

import (
	"math/big"
	"net/netip"
	"slices"
	"strings"
)

// maxRegexp is the longest regular expression of a rule, in bytes.
const maxRegexp = 4096

// comparison is lt, lte, gt, gte, or equality for parts of times.
type comparison struct {
	op    string
	bound number
}

func (c comparison) holds(n number) bool {
	d := n.cmp(c.bound)
	switch c.op {
	case "lt":
		return d < 0
	case "lte":
		return d <= 0
	case "gt":
		return d > 0
	case "gte":
		return d >= 0
	default:
		return d == 0
	}
}

// timeUnit is a part of a time.
type timeUnit string

const noUnit timeUnit = ""

// modifiers is what a chain of modifiers comes to. The kinds exclude each other.
type modifiers struct {
	kind            leafKind
	kindWord        string // the modifier that chose the kind
	all, neq, cased bool
	flags           string // of re
	compare         string
	unit            timeUnit
	refAt           anchor
}

// parseModifiers reads the modifiers that say how to compare, and returns those that change values, in order.
func (it *item) parseModifiers() (m modifiers, transforms []string, err error) {
	m.kind = leafPattern
	choose := func(k leafKind, word string) {
		if m.kindWord != "" && (k != leafCompare || m.kind != leafCompare) && err == nil {
			err = faultf(it.line, "use one of them, or two search identifiers", "modifiers %s and %s exclude each other", m.kindWord, word)
		}
		m.kind, m.kindWord = k, word
	}
	for _, word := range it.modifiers {
		switch word {
		case "all":
			m.all = true
		case "neq":
			m.neq = true
		case "cased":
			m.cased = true
		case "re":
			choose(leafRegexp, word)
		case "i", "m", "s":
			if m.kind != leafRegexp {
				return m, nil, faultf(it.line, "write |re|"+word, "modifier %s stands without re before it", word)
			}
			m.flags += word
		case "cidr":
			choose(leafNetwork, word)
		case "exists":
			choose(leafExists, word)
		case "lt", "lte", "gt", "gte":
			choose(leafCompare, word)
			if m.compare != "" && err == nil {
				err = faultf(it.line, "use two search identifiers", "modifiers %s and %s exclude each other", m.compare, word)
			}
			m.compare = word
		case "minute", "hour", "day", "week", "month", "year":
			choose(leafCompare, word)
			m.unit = timeUnit(word)
		case "fieldref":
			choose(leafRef, word)
		case "contains", "startswith", "endswith", "base64", "base64offset", "wide", "utf16le", "utf16be", "utf16", "windash", "expand":
			transforms = append(transforms, word)
		default:
			return m, nil, faultf(it.line, "the modifiers are all, base64, base64offset, cased, cidr, contains, endswith, exists, expand, fieldref, gt, gte, lt, lte, neq, "+
				"re (i, m, s), startswith, utf16, utf16be, utf16le, wide, windash, and minute, hour, day, week, month, year", "modifier %q is unknown", word)
		}
	}
	if err != nil {
		return m, nil, err
	}
	if m.kind == leafRef {
		for _, word := range transforms {
			switch word {
			case "startswith":
				m.refAt = atStart
			case "endswith":
				m.refAt = atEnd
			case "contains":
				m.refAt = anywhere
			default:
				return m, nil, faultf(it.line, "fieldref takes startswith, endswith, contains, cased, neq", "modifiers fieldref and %s exclude each other", word)
			}
		}
		return m, nil, nil
	}
	if m.kind != leafPattern {
		for _, word := range transforms {
			if word != "expand" || m.kind == leafExists || m.kind == leafCompare {
				instead := "use two search identifiers"
				if m.kind == leafRegexp {
					instead = "a regular expression is found anywhere in the value; anchor it with ^ or $"
				}
				return m, nil, faultf(it.line, instead, "modifiers %s and %s exclude each other", m.kindWord, word)
			}
		}
	}
	if m.all && !it.list {
		return m, nil, faultf(it.line, "leave all out, or give a list", "modifier all stands with a single value")
	}
	return m, transforms, nil
}

// lower makes the item's tree.
func (it *item) lower(source *logsource, placeholders func(string) ([]string, bool)) (*node, error) {
	m, transforms, err := it.parseModifiers()
	if err != nil {
		return nil, err
	}
	f, err := it.resolve(source, &m)
	if err != nil {
		return nil, err
	}
	kids := make([]*node, 0, len(it.values))
	for _, v := range it.values {
		n, err := it.value(v, f, source, m, transforms, placeholders)
		if err != nil {
			return nil, err
		}
		kids = append(kids, n)
	}
	op := opOr
	if m.all {
		op = opAnd
	}
	n := join(op, kids)
	if m.neq {
		n = negate(n)
	}
	return n, nil
}

func (it *item) resolve(source *logsource, m *modifiers) (*field, error) {
	if it.field != "" {
		f, err := source.field(it.line, it.field)
		if err == nil && m.unit != noUnit && !f.timed() {
			return nil, faultf(it.line, "ask timestamp, process.start_time or metadata", "field %q is not a time, which modifier %s needs", it.field, m.unit)
		}
		return f, err
	}
	if m.kind != leafPattern && m.kind != leafRegexp {
		return nil, faultf(it.line, "name a field", "keywords do not take modifier %s", m.kindWord)
	}
	return source.keywordField(), nil
}

// value makes the tree of one value.
func (it *item) value(v scalar, f *field, source *logsource, m modifiers, transforms []string, placeholders func(string) ([]string, bool)) (*node, error) {
	if err := v.check(it); err != nil {
		return nil, err
	}
	l := leaf{field: f, kind: m.kind, cased: m.cased, unit: m.unit, refAt: m.refAt}
	texts := []pattern{plain(v.text)}
	if m.kind == leafPattern && v.tag == "!!str" {
		texts[0] = parsePattern(v.text)
	}
	if v.tag == "!!null" {
		if it.field == "" || len(it.modifiers) > 0 && !slices.Equal(it.modifiers, []string{"neq"}) {
			return nil, faultf(v.line, "write an empty text as ''", "null does not go with keywords or modifiers")
		}
		l.kind = leafExists
		return negate(leafNode(&l)), nil
	}
	if v.tag == "!!bool" {
		texts[0] = plain(strings.ToLower(v.text))
	}
	for _, word := range transforms {
		var err error
		if texts, err = transform(v.line, word, texts, placeholders); err != nil {
			return nil, err
		}
	}
	kids := make([]*node, 0, len(texts))
	for _, p := range texts {
		n, err := it.leaf(l, v, p, source, m)
		if err != nil {
			return nil, err
		}
		kids = append(kids, n)
	}
	return join(opOr, kids), nil
}

// check refuses values whose meaning would surprise.
func (v scalar) check(it *item) error {
	switch v.tag {
	case "!!str", "!!bool", "!!float", "!!timestamp":
	case "!!int":
		digits := strings.TrimLeft(v.text, "+-")
		if _, ok := new(big.Int).SetString(v.text, 10); !ok || len(digits) > 1 && digits[0] == '0' || v.text[0] == '+' {
			return faultf(v.line, "put it in quotes to compare it as text, or write it in decimal", "the number %s can be read in more than one way", v.text)
		}
	case "!!null":
		if it.list {
			return faultf(v.line, "give null a search identifier of its own", "null stands in a list of values, where Sigma has no place for it")
		}
	default:
		return faultf(v.line, "put it in quotes", "the value has the type %s", v.tag)
	}
	return nil
}

// leaf completes l with the value p.
func (it *item) leaf(l leaf, v scalar, p pattern, source *logsource, m modifiers) (*node, error) {
	text, isText := p.text()
	switch m.kind {
	case leafPattern:
		if it.field == "" && l.kind == leafPattern {
			p = surround(p, true, true)
		}
		switch {
		case len(p) == 0:
			l.kind = leafExists
			return negate(leafNode(&l)), nil
		case len(p) == 1 && p[0].kind == anyRun:
			l.kind = leafExists
			return leafNode(&l), nil
		}
		l.pattern = p
	case leafExists:
		if v.tag != "!!bool" {
			return nil, faultf(v.line, "write true or false", "exists takes %q", v.text)
		}
		if text != "true" {
			return negate(leafNode(&l)), nil
		}
	case leafRegexp:
		if !isText {
			return nil, faultf(v.line, "use placeholder values without wildcards", "a placeholder puts a wildcard into a regular expression")
		}
		re, err := compileRegexp(v.line, text, m.flags)
		if err != nil {
			return nil, err
		}
		l.regexp = re
	case leafNetwork:
		network, err := netip.ParsePrefix(text)
		if !isText || err != nil {
			return nil, faultf(v.line, "write 10.0.0.0/8 or fc00::/7, for instance", "%q is not a network", text)
		}
		l.network = unmapped(network)
	case leafCompare:
		bound, ok := parseNumber(text)
		if !ok || v.tag == "!!str" && m.unit == noUnit && strings.TrimSpace(v.text) != v.text {
			return nil, faultf(v.line, "write a decimal number", "%s takes %q, which is not a number", m.kindWord, v.text)
		}
		l.compare = comparison{op: m.compare, bound: bound}
	case leafBefore: // no modifier makes it
	case leafRef:
		ref, err := source.field(v.line, v.text)
		if err != nil {
			return nil, err
		}
		l.ref = ref
	}
	return leafNode(&l), nil
}

// compileRegexp compiles with RE2's syntax (regexp/syntax), which has all that Sigma's modifiers appendix allows.
func compileRegexp(line int, text, flags string) (*expression, error) {
	if len(text) > maxRegexp {
		return nil, faultf(line, "", "the regular expression has %d bytes; the most is %d", len(text), maxRegexp)
	}
	if flags != "" {
		text = "(?" + flags + ")" + text
	}
	re, err := newExpression(text)
	if err != nil {
		return nil, faultf(line, "regular expressions are RE2: write lookaround, backreferences and possessive or atomic groups as search identifiers joined with and, not",
			"%v", err)
	}
	return re, nil
}
