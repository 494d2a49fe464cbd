package stamp

import "unicode/utf8"

// maxDepth bounds how deep objects and arrays may be nested; events have four levels.
const maxDepth = 100

// scanner walks the members of one object and checks all of it by the grammar of RFC 8259, besides that its text is
// UTF-8, surrogates in escapes included (RFC 7493 section 2.1). Names that stand twice it does not look for.
type scanner struct {
	b  []byte
	at int // where it stands: behind the last member, at the end on the closing brace

	// The member that next found: offsets of its name with quotes, and of its value.
	name, nameEnd, value, end int
	plain                     bool // the name has no escape
	first, bad                bool
}

// open enters the object.
func (s *scanner) open() bool {
	s.space()
	if s.peek() != '{' || !utf8.Valid(s.b) {
		return false
	}
	s.at++
	s.first = true
	return true
}

// next finds the next member. It returns false at the end, and with bad set where there is something else than the object's
// and the text's end.
func (s *scanner) next() bool {
	s.space()
	if s.peek() == '}' {
		brace := s.at
		s.at++
		s.space()
		s.bad = s.at != len(s.b)
		s.at = brace
		return false
	}
	if !s.first {
		if s.peek() != ',' {
			return s.fail()
		}
		s.at++
		s.space()
	}
	s.first = false
	s.name = s.at
	if !s.text() {
		return s.fail()
	}
	s.nameEnd = s.at
	plain := s.plain
	if !s.colon() {
		return s.fail()
	}
	s.value = s.at
	if !s.skip(1) {
		return s.fail()
	}
	s.end = s.at
	s.plain = plain
	return true
}

func (s *scanner) fail() bool {
	s.bad = true
	return false
}

// peek returns the byte at which s stands, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.b) {
		return s.b[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// colon goes over the colon between a name and its value.
func (s *scanner) colon() bool {
	s.space()
	if s.peek() != ':' {
		return false
	}
	s.at++
	s.space()
	return true
}

// special marks the bytes that do not stand for themselves in a string.
var special = func() (t [256]bool) {
	for c := range ' ' {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// text goes over a string.
func (s *scanner) text() bool {
	if s.peek() != '"' {
		return false
	}
	s.plain = true
	b := s.b
	for i := s.at + 1; i < len(b); i++ {
		if !special[b[i]] {
			continue
		}
		switch b[i] {
		case '"':
			s.at = i + 1
			return true
		case '\\':
			s.plain = false
			n := escape(b[i:])
			if n == 0 {
				return false
			}
			i += n - 1
		default:
			return false
		}
	}
	return false
}

// escape returns the length of the escape, or pair of them, that b begins with; 0 where it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	}
	const high, low, size = 0xd800, 0xdc00, 0x400 // the surrogates
	r, ok := hex(b)
	switch {
	case !ok || r >= low && r < low+size:
		return 0
	case r < high || r >= low:
		return 6
	}
	if r, ok = hex(b[6:]); ok && r >= low && r < low+size {
		return 12
	}
	return 0
}

// hex reads \uXXXX.
func hex(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// skip goes over a value at this depth.
func (s *scanner) skip(depth int) bool {
	switch s.peek() {
	case '"':
		return s.text()
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.at < len(w) || string(s.b[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// number goes over [ - ] int [ frac ] [ exp ] (RFC 8259 section 6).
func (s *scanner) number() bool {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if s.peek()|0x20 == 'e' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	from := s.at
	for s.peek() >= '0' && s.peek() <= '9' {
		s.at++
	}
	return s.at > from
}

func (s *scanner) object(depth int) bool {
	if depth > maxDepth {
		return false
	}
	s.at++
	s.space()
	if s.peek() == '}' {
		s.at++
		return true
	}
	for {
		if !s.text() || !s.colon() || !s.skip(depth) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
			s.space()
		case '}':
			s.at++
			return true
		default:
			return false
		}
	}
}

func (s *scanner) array(depth int) bool {
	if depth > maxDepth {
		return false
	}
	s.at++
	s.space()
	if s.peek() == ']' {
		s.at++
		return true
	}
	for {
		if !s.skip(depth) {
			return false
		}
		s.space()
		switch s.peek() {
		case ',':
			s.at++
			s.space()
		case ']':
			s.at++
			return true
		default:
			return false
		}
	}
}
