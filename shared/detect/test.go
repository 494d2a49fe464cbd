package detect

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/apss-sensor/apss/shared/event"
)

// slot is one field of the event at hand, loaded when first asked for.
type slot struct {
	values
	folded       []string // texts, folded; as long as texts once isFolded
	loaded, fold bool
}

func (s *slot) load(f *field, e *event.Event) {
	if !s.loaded {
		s.loaded = true
		f.load(e, &s.values)
	}
}

// testKind is how a leaf is decided.
type testKind uint8

const (
	testExact testKind = iota
	testPrefix
	testSuffix
	testContains
	testGlob
	testOther // by the leaf's kind
)

// test is a leaf made ready: its literal found, folded and classified.
type test struct {
	*leaf
	kind testKind
	text string  // of the kinds with one literal; folded unless cased
	glob pattern // folded unless cased
}

func newTest(l *leaf) *test {
	t := &test{leaf: l, kind: testOther}
	if l.kind != leafPattern {
		return t
	}
	p := l.pattern
	if !l.cased {
		p = p.fold()
	}
	t.kind, t.glob = testGlob, p
	for _, q := range p {
		if !utf8.ValidString(q.text) {
			return t // found by characters, which bytes would not respect
		}
	}
	is := func(i int, k partKind) bool { return p[i].kind == k }
	switch {
	case len(p) == 1 && is(0, literal):
		t.kind, t.text = testExact, p[0].text
	case len(p) == 2 && is(0, literal) && is(1, anyRun):
		t.kind, t.text = testPrefix, p[0].text
	case len(p) == 2 && is(0, anyRun) && is(1, literal):
		t.kind, t.text = testSuffix, p[1].text
	case len(p) == 3 && is(0, anyRun) && is(1, literal) && is(2, anyRun):
		t.kind, t.text = testContains, p[1].text
	}
	return t
}

// isKey reports whether the index alone decides the test.
func (t *test) isKey() bool { return t.kind < testGlob && !t.cased }

// cost orders the tests of a rule: cheap ones first.
func (t *test) cost() int {
	switch {
	case t.isKey():
		return 0
	case t.leaf.kind == leafRegexp:
		return 20
	case t.kind == testGlob:
		return 4
	default:
		return 2
	}
}

// id is equal for tests that are always equal.
func (t *test) id() string {
	l := t.leaf
	id := fmt.Sprintf("%s\x00%d\x00%t\x00%q\x00%v\x00%v\x00%s\x00%d", l.field.name, l.kind, l.cased, t.glob, l.network, l.compare, l.unit, l.before.UnixNano())
	if l.regexp != nil {
		id += "\x00" + l.regexp.text
	}
	if l.ref != nil {
		id += fmt.Sprintf("\x00%s\x00%d", l.ref.name, l.refAt)
	}
	return id
}

// fits decides every kind but leafRef. The slot is loaded, and folded unless the test is cased.
func (t *test) fits(s *slot) bool {
	switch t.leaf.kind {
	case leafExists:
		return len(s.texts) > 0
	case leafRegexp:
		for _, text := range s.texts {
			if t.regexp.match(text) {
				return true
			}
		}
	case leafNetwork:
		for i := range s.texts {
			if a := s.address(i); a.IsValid() && t.network.Contains(a) {
				return true
			}
		}
	case leafCompare:
		return t.compares(s)
	case leafPattern:
		texts := s.folded
		if t.cased {
			texts = s.texts
		}
		for _, text := range texts {
			if t.fitsText(text) {
				return true
			}
		}
	case leafBefore:
		when, ok := s.timeOf()
		return ok && when.Before(t.before)
	case leafRef:
	}
	return false
}

func (t *test) fitsText(text string) bool {
	switch t.kind {
	case testExact:
		return text == t.text
	case testPrefix:
		return strings.HasPrefix(text, t.text)
	case testSuffix:
		return strings.HasSuffix(text, t.text)
	case testContains:
		return strings.Contains(text, t.text)
	default:
		return t.glob.match(text)
	}
}

func (t *test) compares(s *slot) bool {
	if t.unit != noUnit {
		when, ok := s.timeOf()
		if !ok {
			return false
		}
		var n int
		switch t.unit {
		case "minute":
			n = when.Minute()
		case "hour":
			n = when.Hour()
		case "day":
			n = when.Day()
		case "week":
			_, n = when.ISOWeek()
		case "month":
			n = int(when.Month())
		default:
			n = when.Year()
		}
		return t.compare.holds(number{isInt: true, int: int64(n), float: float64(n)})
	}
	if s.isNumber && len(s.texts) == 1 {
		return t.compare.holds(number{isInt: true, int: s.number, float: float64(s.number)})
	}
	for _, text := range s.texts {
		if n, ok := parseNumber(text); ok && t.compare.holds(n) {
			return true
		}
	}
	return false
}

// fitsRef decides leafRef: whether a value of one field is, starts, ends or holds a value of another.
func (t *test) fitsRef(a, b *slot) bool {
	left, right := a.folded, b.folded
	if t.cased {
		left, right = a.texts, b.texts
	}
	for _, x := range left {
		for _, y := range right {
			var is bool
			switch t.refAt {
			case whole:
				is = x == y
			case atStart:
				is = strings.HasPrefix(x, y)
			case atEnd:
				is = strings.HasSuffix(x, y)
			case anywhere:
				is = strings.Contains(x, y)
			}
			if is {
				return true
			}
		}
	}
	return false
}
