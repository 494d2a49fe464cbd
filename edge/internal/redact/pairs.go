package redact

import "strings"

const (
	wordEnds  = " \t\r\n;&|)}]'\"`<>\\"
	queryEnds = " \t\r\n&#'\"`<>"
	lineEnds  = "\r\n'\"`|&"
)

// style is what a string is, by which it is known where a value in it ends.
type style int

const (
	argument style = iota // one argument of a program
	shell                 // one that is a script, or may be
	line                  // a line of a file, of whatever kind
)

// appendPairs finds key=value, "key": "value" and header: value whose key names a credential.
func appendPairs(spans []part, s string, as style) []part {
	for i := 0; i < len(s); i++ {
		if s[i] != '=' && s[i] != ':' {
			continue
		}
		end := i
		for as == line && end > 0 && isBlank(s[end-1]) {
			end--
		}
		spaced := end < i
		for end > 0 && strings.IndexByte("\"'\\", s[end-1]) >= 0 {
			end--
		}
		start := end
		for start > 0 && isKeyByte(s[start-1]) {
			start--
		}
		key, value := s[start:end], i+1
		if s[i] == ':' {
			if end == i && (value == len(s) || !isBlank(s[value])) {
				continue // a port, an image's tag, a time
			}
			for value < len(s) && isBlank(s[value]) {
				value++
			}
		}
		if as == line {
			for value < len(s) && (isBlank(s[value]) || s[value] == '=' || s[value] == '>') { // := and =>
				spaced = spaced || isBlank(s[value])
				value++
			}
		}
		if value == len(s) || key == "" {
			continue
		}
		query := start > 0 && (s[start-1] == '?' || s[start-1] == '&')
		lower := strings.ToLower(key)
		var to int
		switch {
		case query && (sensitive(key) || lower == "sig" || strings.HasSuffix(lower, "signature")):
			to = until(s, value, queryEnds)
		case lower == "cookie" || lower == "set-cookie":
			to = until(s, value, lineEnds)
		case !sensitive(key):
			continue
		case strings.HasSuffix(lower, "authorization"):
			value = skipScheme(s, value)
			to = until(s, value, wordEnds)
		case start == 0 && end == i && s[i] == '=' && as == argument:
			if to = len(s); quotesMark(s[value:]) { // of what had blanks
				to = value
			}
		case as == line:
			value, to = lineValue(s, key, value, spaced || s[i] == ':', isLineStart(s[:start]))
		default:
			value, to = literal(s, value)
		}
		if value < to {
			spans = append(spans, part{value, to})
			i = to - 1
		}
	}
	return spans
}

// quotesMark reports whether value is a mark behind a quote and nothing else but the quote's end.
func quotesMark(value string) bool {
	if value[0] != '"' && value[0] != '\'' {
		return false
	}
	n := markLen(value[1:])
	return n > 0 && (value[1+n:] == "" || value[1+n:] == value[:1])
}

// until returns where s ends or one of ends stands first, from at on.
func until(s string, at int, ends string) int {
	if n := strings.IndexAny(s[at:], ends); n >= 0 {
		return at + n
	}
	return len(s)
}

// skipScheme skips the scheme of an Authorization header, RFC 9110 section 11.4.
func skipScheme(s string, at int) int {
	end := at
	for end < len(s) && (isWordByte(s[end]) || s[end] == '-') {
		end++
	}
	if end > at && end+1 < len(s) && s[end] == ' ' {
		return end + 1
	}
	return at
}

// literal returns the value that starts at: a quoted one without its quotes, or a word. A reference to a variable or a
// command substitution is code, not a credential.
func literal(s string, at int) (from, to int) {
	if s[at] == '\\' && at+1 < len(s) { // \"value\" in a quoted script
		at++
	}
	if q := s[at]; q == '"' || q == '\'' {
		at++
		n := strings.IndexByte(s[at:], q)
		if n < 0 {
			n = len(s) - at
		}
		if value := s[at : at+n]; strings.HasPrefix(value, "$") || strings.Contains(value, "$(") || strings.Contains(value, "`") {
			return at, at
		}
		return at, at + len(strings.TrimSuffix(s[at:at+n], `\`))
	}
	if s[at] == '$' {
		return at, at
	}
	return at, until(s, at, wordEnds)
}

func isKeyByte(c byte) bool {
	return isWordByte(c) || c == '-' || c == '.'
}

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
