package dispatch

import (
	"errors"
	"fmt"
	"strings"
)

// Source of the syntax and of the limit: https://docs.cloud.google.com/pubsub/docs/subscription-message-filter
const maxFilterBytes = 256

// Filter decides by a message's attributes whether a subscription takes it. The zero value takes every message.
type Filter struct {
	match func(attributes map[string]string) bool
}

// Match reports whether a message with attributes passes.
func (f Filter) Match(attributes map[string]string) bool {
	return f.match == nil || f.match(attributes)
}

// ParseFilter reads an expression: attributes:KEY, attributes.KEY = "V", attributes.KEY != "V",
// hasPrefix(attributes.KEY, "V"), joined by AND or OR, negated by NOT or -, grouped by parentheses. AND and OR side by
// side without parentheses are refused, as the service does. != also takes messages that lack the key.
func ParseFilter(expression string) (Filter, error) {
	if len(expression) > maxFilterBytes {
		return Filter{}, fmt.Errorf("filter of %d bytes: must be %d at most", len(expression), maxFilterBytes)
	}
	if strings.TrimSpace(expression) == "" {
		return Filter{}, nil
	}
	p := filterParser{rest: expression}
	match, err := p.expression()
	if err == nil && p.next() != "" {
		err = fmt.Errorf("unexpected %q", p.rest)
	}
	if err != nil {
		return Filter{}, fmt.Errorf("filter %q: at byte %d: %w", expression, len(expression)-len(p.rest), err)
	}
	return Filter{match}, nil
}

type predicate = func(attributes map[string]string) bool

// filterParser is a recursive descent over at most maxFilterBytes, which bounds its depth.
type filterParser struct{ rest string }

func (p *filterParser) expression() (predicate, error) {
	left, err := p.unary()
	if err != nil {
		return nil, err
	}
	joined := ""
	for {
		op := p.next()
		if op != "AND" && op != "OR" {
			return left, nil
		}
		if joined != "" && op != joined {
			return nil, errors.New("AND and OR together need parentheses")
		}
		joined = op
		p.take(op)
		right, err := p.unary()
		if err != nil {
			return nil, err
		}
		first := left
		if op == "AND" {
			left = func(a map[string]string) bool { return first(a) && right(a) }
		} else {
			left = func(a map[string]string) bool { return first(a) || right(a) }
		}
	}
}

func (p *filterParser) unary() (predicate, error) {
	switch word := p.next(); word {
	case "NOT", "-":
		p.take(word)
		inner, err := p.unary()
		if err != nil {
			return nil, err
		}
		return func(a map[string]string) bool { return !inner(a) }, nil
	case "(":
		p.take(word)
		inner, err := p.expression()
		if err != nil {
			return nil, err
		}
		return inner, p.expect(")")
	case "hasPrefix":
		p.take(word)
		return p.hasPrefix()
	case "attributes":
		p.take(word)
		return p.attribute()
	case "":
		return nil, errors.New("an expression is missing")
	default:
		return nil, fmt.Errorf("unexpected %q: only attributes can be filtered", word)
	}
}

// attribute reads what follows the word attributes.
func (p *filterParser) attribute() (predicate, error) {
	if p.next() == ":" {
		p.take(":")
		key, err := p.key()
		if err != nil {
			return nil, err
		}
		return func(a map[string]string) bool { _, ok := a[key]; return ok }, nil
	}
	key, err := p.dottedKey()
	if err != nil {
		return nil, err
	}
	op := p.next()
	if op != "=" && op != "!=" {
		return nil, errors.New("= or != must follow the key")
	}
	p.take(op)
	value, err := p.quoted()
	if err != nil {
		return nil, err
	}
	if op == "=" {
		return func(a map[string]string) bool { v, ok := a[key]; return ok && v == value }, nil
	}
	return func(a map[string]string) bool { v, ok := a[key]; return !ok || v != value }, nil
}

func (p *filterParser) hasPrefix() (predicate, error) {
	for _, token := range []string{"(", "attributes"} {
		if err := p.expect(token); err != nil {
			return nil, err
		}
	}
	key, err := p.dottedKey()
	if err != nil {
		return nil, err
	}
	if err := p.expect(","); err != nil {
		return nil, err
	}
	prefix, err := p.quoted()
	if err != nil {
		return nil, err
	}
	has := func(a map[string]string) bool { v, ok := a[key]; return ok && strings.HasPrefix(v, prefix) }
	return has, p.expect(")")
}

func (p *filterParser) dottedKey() (string, error) {
	if err := p.expect("."); err != nil {
		return "", err
	}
	return p.key()
}

// key reads an attribute's key: a bare word, or anything within quotes.
func (p *filterParser) key() (string, error) {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	if strings.HasPrefix(p.rest, `"`) {
		return p.quoted()
	}
	n := 0
	for n < len(p.rest) && (wordByte(p.rest[n]) || n > 0 && (p.rest[n] == '-' || p.rest[n] == '.')) {
		n++
	}
	if n == 0 {
		return "", errors.New("a key is missing")
	}
	key := p.rest[:n]
	p.rest = p.rest[n:]
	return key, nil
}

// quoted reads a string in double quotes; a backslash takes the next byte as it is.
func (p *filterParser) quoted() (string, error) {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	if !strings.HasPrefix(p.rest, `"`) {
		return "", errors.New("a string in double quotes is missing")
	}
	var value strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return value.String(), nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			value.WriteByte(p.rest[i])
		default:
			value.WriteByte(c)
		}
	}
	return "", errors.New("the string has no closing quote")
}

// next returns the token ahead without taking it: a word, an operator or a single byte; "" at the end.
func (p *filterParser) next() string {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	if p.rest == "" {
		return ""
	}
	if strings.HasPrefix(p.rest, "!=") {
		return "!="
	}
	n := 0
	for n < len(p.rest) && wordByte(p.rest[n]) {
		n++
	}
	return p.rest[:max(n, 1)]
}

func (p *filterParser) take(token string) { p.rest = p.rest[len(token):] }

func (p *filterParser) expect(token string) error {
	if got := p.next(); got != token {
		return fmt.Errorf("%q must follow, not %q", token, got)
	}
	p.take(token)
	return nil
}

func wordByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
