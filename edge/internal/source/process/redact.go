package process

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"strings"
)

// redacted stands where a credential stood, here and in shared/secret.
const redacted = "[redacted]"

// redactor takes credentials out. With a key it puts a hash of each in its place, so that a person can tell whether two
// programs were given the same one. The hash is keyed with what only this agent knows, because a password that people
// choose is found from a plain hash by hashing guesses; so hashes of two agents, or of two runs, cannot be compared.
type redactor struct{ key []byte }

// mark returns what stands in the place of a credential.
func (r redactor) mark(value string) string {
	if r.key == nil {
		return redacted
	}
	h := hmac.New(sha256.New, r.key)
	_, _ = io.WriteString(h, value) // a hash takes everything
	return hashMark + hex.EncodeToString(h.Sum(nil))[:hashDigits] + "]"
}

// hashMark is how a mark with a hash begins, hashDigits how many follow and a bracket.
const (
	hashMark   = "[redacted:sha256:"
	hashDigits = 12
)

// markLen returns the length of the mark that s begins with, 0 when it begins with none.
func markLen(s string) int {
	const whole = len(hashMark) + hashDigits + 1
	switch {
	case strings.HasPrefix(s, redacted):
		return len(redacted)
	case strings.HasPrefix(s, hashMark) && strings.IndexByte(s, ']') == whole-1:
		return whole
	}
	return 0
}

// redact returns args without what looks like a credential, and how many it replaced. It changes nothing else and
// returns args itself when there is none. Because rules see only what it leaves, a value ends at what ends a word in
// a shell script: "TOKEN=x; curl evil | sh" keeps its second half.
func (r redactor) redact(args []string) ([]string, int) {
	total := 0
	out := args
	for i, arg := range args {
		spans := secrets(args, i)
		if len(spans) == 0 {
			continue
		}
		clean, n := r.replace(arg, spans)
		if n == 0 {
			continue
		}
		if total == 0 {
			out = slices.Clone(args)
		}
		out[i] = clean
		total += n
	}
	return out, total
}

// part is a half-open range of bytes of an argument.
type part struct{ from, to int }

// secrets returns the parts of args[i] that are credentials.
func secrets(args []string, i int) []part {
	arg := args[i]
	if p, ok := byProgram(args, i); ok {
		return []part{p}
	}
	var script bool
	if i > 0 {
		before := args[i-1]
		if wantsSecret(before) && !strings.HasPrefix(arg, "-") {
			return []part{{0, len(arg)}}
		}
		// The argument after -c, also -lc or -ec, is a script: bash(1).
		script = len(before) <= 5 && strings.HasPrefix(before, "-") && strings.HasSuffix(before, "c")
	}
	if !script && strings.HasPrefix(arg, "-") {
		if key, value, found := strings.Cut(arg, "="); found && sensitive(key) {
			return []part{{len(arg) - len(value), len(arg)}}
		}
	}
	script = script || strings.ContainsAny(arg, " \t\n")
	var spans []part
	spans = appendPairs(spans, arg, script)
	spans = appendUserInfo(spans, arg)
	spans = appendTokens(spans, arg)
	return spans
}

// replace writes the mark over each part, merging those that overlap. What is marked already does not count.
func (r redactor) replace(arg string, parts []part) (string, int) {
	slices.SortFunc(parts, func(a, b part) int { return a.from - b.from })
	var b strings.Builder
	n, at := 0, 0
	for i := 0; i < len(parts); i++ {
		p := parts[i]
		for i+1 < len(parts) && parts[i+1].from < p.to {
			i++
			p.to = max(p.to, parts[i].to)
		}
		if p.from >= p.to || p.to <= p.from+markLen(arg[p.from:]) {
			continue
		}
		b.WriteString(arg[at:p.from])
		b.WriteString(r.mark(arg[p.from:p.to]))
		at = p.to
		n++
	}
	b.WriteString(arg[at:])
	return b.String(), n
}

// wantsSecret reports whether flag is a long flag whose value, a credential, is the next argument.
func wantsSecret(flag string) bool {
	return len(flag) > 2 && flag[0] == '-' && !strings.ContainsAny(flag, "= :") && sensitive(flag)
}

func isKeyByte(c byte) bool {
	return isWordByte(c) || c == '-' || c == '.'
}

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

const (
	wordEnds  = " \t\r\n;&|)}]'\"`<>\\"
	queryEnds = " \t\r\n&#'\"`<>"
	lineEnds  = "\r\n'\"`|&"
)

// appendPairs finds key=value, "key": "value" and header: value whose key names a credential.
func appendPairs(spans []part, s string, script bool) []part {
	for i := 0; i < len(s); i++ {
		if s[i] != '=' && s[i] != ':' {
			continue
		}
		end := i
		for end > 0 && strings.IndexByte("\"'\\", s[end-1]) >= 0 {
			end--
		}
		start := end
		for start > 0 && isKeyByte(s[start-1]) {
			start--
		}
		key, value := s[start:end], i+1
		if s[i] == ':' {
			if end == i && (value == len(s) || s[value] != ' ') {
				continue // a port, an image's tag, a time
			}
			for value < len(s) && s[value] == ' ' {
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
		case start == 0 && end == i && s[i] == '=' && !script:
			to = len(s)
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

// appendUserInfo finds the password of a URL, RFC 3986 section 3.2.1, and a long user name alone, which is a token.
func appendUserInfo(spans []part, s string) []part {
	for at := 0; ; {
		n := strings.Index(s[at:], "://")
		if n < 0 {
			return spans
		}
		at += n + len("://")
		end := until(s, at, "/?# \t\r\n\"'<>`")
		host := strings.LastIndexByte(s[at:end], '@')
		if host < 0 || markLen(s[at:]) == host {
			continue
		}
		const longName = 20
		if _, password, found := strings.Cut(s[at:at+host], ":"); found {
			spans = append(spans, part{at + host - len(password), at + host})
		} else if host >= longName {
			spans = append(spans, part{at, at + host})
		}
	}
}
