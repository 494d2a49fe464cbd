package detect

import (
	"regexp"
	"regexp/syntax"
	"sync"
)

// expression is a regular expression. It is compiled when a value is first held against it: of a pack most never are,
// because a literal that they imply is in no value, and compiled they are a hundred times their text.
type expression struct {
	text     string
	compiled func() *regexp.Regexp
}

// newExpression checks text as regexp.Compile does.
func newExpression(text string) (*expression, error) {
	if _, err := syntax.Parse(text, syntax.Perl); err != nil {
		return nil, err
	}
	return &expression{text, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}, nil
}

func (e *expression) match(s string) bool { return e.compiled().MatchString(s) }
