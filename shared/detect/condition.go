package detect

import (
	"slices"
	"strconv"
	"strings"
)

// Limits of a condition. No rule in the public collections comes near them.
const (
	maxConditionDepth = 64
	maxChoose         = 12 // identifiers that "N of" with 1 < N < all may choose from
)

// condition parses Sigma's condition language over the tree of each search identifier. From least to most binding: or,
// and, not, "x of", parentheses.
type condition struct {
	line   int
	tokens []string
	names  []string                        // the search identifiers, in the rule's order
	tree   func(name string) (*node, bool) // of an identifier
	depth  int
}

func parseCondition(line int, text string, names []string, tree func(string) (*node, bool)) (*node, error) {
	if strings.Contains(text, "|") {
		return nil, faultf(line, "write a correlation rule (event_count, value_count, temporal) that refers to this rule",
			"condition %q aggregates with a pipe, which Sigma has given up", text)
	}
	c := &condition{line: line, names: names, tree: tree}
	spaced := strings.ReplaceAll(strings.ReplaceAll(text, "(", " ( "), ")", " ) ")
	c.tokens = strings.Fields(spaced)
	if len(c.tokens) == 0 {
		return nil, faultf(line, "name the search identifiers that make a match", "the condition is empty")
	}
	n, err := c.or()
	if err != nil {
		return nil, err
	}
	if len(c.tokens) > 0 {
		return nil, faultf(line, "join with and, or", "condition %q goes on with %q where it should end", text, c.tokens[0])
	}
	return n, nil
}

// word reports whether the next token is the keyword, and takes it.
func (c *condition) word(keyword string) bool {
	if len(c.tokens) > 0 && strings.EqualFold(c.tokens[0], keyword) {
		c.tokens = c.tokens[1:]
		return true
	}
	return false
}

func (c *condition) or() (*node, error) {
	c.depth++
	defer func() { c.depth-- }()
	if c.depth > maxConditionDepth {
		return nil, faultf(c.line, "", "the condition is nested deeper than %d", maxConditionDepth)
	}
	return c.joined("or", opOr, func() (*node, error) { return c.joined("and", opAnd, c.not) })
}

func (c *condition) joined(keyword string, op op, operand func() (*node, error)) (*node, error) {
	n, err := operand()
	if err != nil {
		return nil, err
	}
	kids := []*node{n}
	for c.word(keyword) {
		if n, err = operand(); err != nil {
			return nil, err
		}
		kids = append(kids, n)
	}
	return join(op, kids), nil
}

func (c *condition) not() (*node, error) {
	negated := false
	for c.word("not") {
		negated = !negated
	}
	n, err := c.operand()
	if err != nil || !negated {
		return n, err
	}
	return negate(n), nil
}

func (c *condition) operand() (*node, error) {
	if len(c.tokens) == 0 {
		return nil, faultf(c.line, "", "the condition ends where a search identifier should stand")
	}
	if c.word("(") {
		n, err := c.or()
		if err != nil {
			return nil, err
		}
		if !c.word(")") {
			return nil, faultf(c.line, "", "the condition lacks a closing parenthesis")
		}
		return n, nil
	}
	name := c.tokens[0]
	c.tokens = c.tokens[1:]
	if len(c.tokens) > 0 && strings.EqualFold(c.tokens[0], "of") {
		if many, err := strconv.Atoi(name); err == nil || strings.EqualFold(name, "all") || strings.EqualFold(name, "any") {
			c.tokens = c.tokens[1:]
			switch {
			case strings.EqualFold(name, "all"):
				many = -1
			case strings.EqualFold(name, "any"):
				many = 1
			}
			return c.of(many)
		}
	}
	n, ok := c.tree(name)
	if !ok {
		return nil, faultf(c.line, "the rule has "+strings.Join(c.names, ", "), "the condition names %q, which the rule does not have", name)
	}
	return n, nil
}

// of is "many of them" or "many of pattern"; -1 is all.
func (c *condition) of(many int) (*node, error) {
	if len(c.tokens) == 0 {
		return nil, faultf(c.line, "write them, or a pattern such as selection_*", "the condition ends after \"of\"")
	}
	what := c.tokens[0]
	c.tokens = c.tokens[1:]
	var kids []*node
	for _, name := range c.names {
		if strings.EqualFold(what, "them") {
			if strings.HasPrefix(name, "_") {
				continue
			}
		} else if !parsePattern(what).match(name) {
			continue
		}
		n, _ := c.tree(name)
		kids = append(kids, n)
	}
	switch {
	case len(kids) == 0:
		return nil, faultf(c.line, "the rule has "+strings.Join(c.names, ", "), "no search identifier is like %q", what)
	case many == -1 || many == len(kids):
		return join(opAnd, kids), nil
	case many == 1:
		return join(opOr, kids), nil
	case many < 1 || many > len(kids):
		return nil, faultf(c.line, "", "\"%d of %s\" can never be: there are %d", many, what, len(kids))
	case len(kids) > maxChoose:
		return nil, faultf(c.line, "spell the combinations out, or use 1 of or all of", "\"%d of %s\" chooses among %d; the most is %d", many, what, len(kids), maxChoose)
	}
	return choose(many, kids), nil
}

// choose is true when at least many of kids are.
func choose(many int, kids []*node) *node {
	if many == len(kids) {
		return join(opAnd, slices.Clone(kids))
	}
	if many == 1 {
		return join(opOr, slices.Clone(kids))
	}
	return join(opOr, []*node{
		join(opAnd, []*node{kids[0], choose(many-1, kids[1:])}),
		choose(many, kids[1:]),
	})
}
