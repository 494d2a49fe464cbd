package integration

import (
	"bytes"
	"iter"

	"github.com/go-json-experiment/json/jsontext"
)

// scanner reads the members of a JSON object in their order, without looking into their values. It trusts that the
// object is valid and checks nothing; of what is not valid it reads something, and ends.
type scanner struct {
	data        []byte
	at          int
	name, value []byte // the member just read; the value as it stands there
}

// next reads the next member and reports whether there was one.
func (s *scanner) next() bool {
	if s.at == 0 {
		if s.space(); s.at >= len(s.data) || s.data[s.at] != '{' {
			return false
		}
		s.at++
	}
	s.space()
	if s.at < len(s.data) && s.data[s.at] == ',' {
		s.at++
		s.space()
	}
	if s.at >= len(s.data) || s.data[s.at] != '"' {
		return false
	}
	begin := s.at
	s.at = skip(s.data, s.at)
	s.name = text(s.data[begin:s.at])
	s.space()
	if s.at >= len(s.data) || s.data[s.at] != ':' {
		return false
	}
	s.at++
	s.space()
	begin = s.at
	s.at = skip(s.data, s.at)
	s.value = s.data[begin:s.at]
	return true
}

func (s *scanner) space() {
	for s.at < len(s.data) && isSpace(s.data[s.at]) {
		s.at++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// skip returns where the value that begins at i ends.
func skip(data []byte, i int) int {
	if i >= len(data) {
		return i
	}
	switch data[i] {
	case '"':
		return skipString(data, i+1)
	case '{', '[':
		for depth := 0; i < len(data); {
			switch data[i] {
			case '"':
				i = skipString(data, i+1)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return i
	default:
		for i < len(data) && data[i] != ',' && data[i] != '}' && data[i] != ']' && !isSpace(data[i]) {
			i++
		}
		return i
	}
}

// skipString returns where the string ends whose text begins at i.
func skipString(data []byte, i int) int {
	for begin := i; ; {
		end := bytes.IndexByte(data[i:], '"')
		if end < 0 {
			return len(data)
		}
		i += end
		escapes := 0 // right before the quote: an odd number of them escapes it
		for i-escapes > begin && data[i-escapes-1] == '\\' {
			escapes++
		}
		if i++; escapes%2 == 0 {
			return i
		}
	}
}

// text is what a JSON string says, and nothing for any other value.
func text(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1]
	}
	plain, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return nil
	}
	return plain
}

// elements are those of a JSON array; of any other value there are none.
func elements(value []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if len(value) == 0 || value[0] != '[' {
			return
		}
		for i := 1; i < len(value); i++ {
			if c := value[i]; c == ',' || c == ']' || isSpace(c) {
				continue
			}
			end := skip(value, i)
			if end == i { // not JSON
				return
			}
			if !yield(value[i:end]) {
				return
			}
			i = end - 1
		}
	}
}
