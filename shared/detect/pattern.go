package detect

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// partKind tells the pieces of a pattern apart.
type partKind uint8

const (
	literal partKind = iota // text as it stands
	anyRun                  // *: any characters, also none
	anyOne                  // ?: exactly one character
)

type part struct {
	kind partKind
	text string
}

// pattern is a Sigma string value: literals and wildcards in order. Adjacent literals are one part, and so are adjacent
// stars. An empty pattern is the empty string.
type pattern []part

// parsePattern reads a Sigma string. A backslash makes a wildcard or a backslash that follows it plain; before anything
// else it stands for itself (rules specification, "Escape Character").
func parsePattern(s string) pattern {
	var p pattern
	var text strings.Builder
	flush := func() {
		p = p.add(part{literal, text.String()})
		text.Reset()
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '?' || s[i+1] == '\\'):
			i++
			text.WriteByte(s[i])
		case c == '*':
			flush()
			p = p.add(part{kind: anyRun})
		case c == '?':
			flush()
			p = p.add(part{kind: anyOne})
		default:
			text.WriteByte(c)
		}
	}
	flush()
	return p
}

// plain is the pattern of a text without wildcards.
func plain(s string) pattern { return pattern(nil).add(part{literal, s}) }

// add appends q, keeping the promises of the type. It may reuse p's memory.
func (p pattern) add(q part) pattern {
	if q.kind == literal && q.text == "" {
		return p
	}
	if n := len(p); n > 0 && p[n-1].kind == q.kind {
		switch q.kind {
		case anyRun:
			return p
		case literal:
			p = slices.Clone(p)
			p[n-1].text += q.text
			return p
		case anyOne:
		}
	}
	return append(p[:len(p):len(p)], q)
}

func (p pattern) join(q pattern) pattern {
	for _, part := range q {
		p = p.add(part)
	}
	return p
}

// text returns the pattern's text when it has no wildcards.
func (p pattern) text() (string, bool) {
	switch {
	case len(p) == 0:
		return "", true
	case len(p) == 1 && p[0].kind == literal:
		return p[0].text, true
	}
	return "", false
}

// String writes the pattern as Sigma does.
func (p pattern) String() string {
	var b strings.Builder
	for _, part := range p {
		switch part.kind {
		case anyRun:
			b.WriteByte('*')
		case anyOne:
			b.WriteByte('?')
		case literal:
			b.WriteString(strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(part.text))
		}
	}
	return b.String()
}

// fold returns the pattern with folded literals.
func (p pattern) fold() pattern {
	q := slices.Clone(p)
	for i := range q {
		q[i].text = foldString(q[i].text)
	}
	return q
}

// match reports whether the whole of s fits p. It takes at most len(p)*len(s) steps.
func (p pattern) match(s string) bool {
	i, j := 0, 0         // in s, in p
	star, retry := -1, 0 // where to go on when nothing fits: after p[star], at s[retry:]
	for i < len(s) || j < len(p) {
		if j < len(p) {
			switch q := p[j]; q.kind {
			case anyRun:
				if j == len(p)-1 {
					return true
				}
				star, retry = j, i
				j++
				continue
			case anyOne:
				if i < len(s) {
					i += charWidth(s[i:])
					j++
					continue
				}
			case literal:
				if strings.HasPrefix(s[i:], q.text) {
					i += len(q.text)
					j++
					continue
				}
			}
		}
		if star < 0 || retry >= len(s) {
			return false
		}
		retry += charWidth(s[retry:])
		if next := p[star+1]; next.kind == literal && utf8.ValidString(next.text) {
			skip := strings.Index(s[retry:], next.text)
			if skip < 0 {
				return false
			}
			retry += skip
		}
		i, j = retry, star+1
	}
	return true
}

// maxExpansion bounds what one value of a rule may become through windash, base64offset and placeholders together.
const maxExpansion = 1000

// expand replaces every %name% by each of its values; a percent sign after a backslash is plain.
func (p pattern) expand(values func(name string) ([]string, bool)) ([]pattern, error) {
	out := []pattern{nil}
	each := func(choices ...pattern) error {
		if len(out)*len(choices) > maxExpansion {
			return fmt.Errorf("placeholders make more than %d values of one", maxExpansion)
		}
		var next []pattern
		for _, head := range out {
			for _, tail := range choices {
				next = append(next, head.join(tail))
			}
		}
		out = next
		return nil
	}
	for _, q := range p {
		if q.kind != literal {
			if err := each(pattern{q}); err != nil {
				return nil, err
			}
			continue
		}
		for rest := q.text; rest != ""; {
			at := strings.IndexByte(rest, '%')
			if at > 0 && rest[at-1] == '\\' {
				if err := each(plain(rest[:at-1] + "%")); err != nil {
					return nil, err
				}
				rest = rest[at+1:]
				continue
			}
			end := -1
			if at >= 0 {
				end = strings.IndexByte(rest[at+1:], '%')
			}
			if end <= 0 {
				if err := each(plain(rest)); err != nil {
					return nil, err
				}
				break
			}
			name := rest[at+1 : at+1+end]
			found, ok := values(name)
			if !ok {
				return nil, fmt.Errorf("placeholder %%%s%% has no values", name)
			}
			choices := make([]pattern, len(found))
			for i, v := range found {
				choices[i] = plain(rest[:at]).join(parsePattern(v))
			}
			if err := each(choices...); err != nil {
				return nil, err
			}
			rest = rest[at+end+2:]
		}
	}
	return out, nil
}
