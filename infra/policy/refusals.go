package policy

import (
	"fmt"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// Refusals returns what the validations of a variable say to the value that it is given.
func (p *Plan) Refusals(variable string) (sentences []string, err error) {
	b := p.variables[variable]
	if b == nil {
		return nil, fmt.Errorf("there is no variable %s", variable)
	}
	for _, v := range b.Body.Blocks {
		if v.Type != "validation" {
			continue
		}
		good, err := p.value(v.Body.Attributes["condition"].Expr, nil)
		if err != nil {
			return nil, err
		}
		sentence, err := p.value(v.Body.Attributes["error_message"].Expr, nil)
		if err != nil {
			return nil, err
		}
		if good.Type() != cty.Bool || !good.True() {
			sentences = append(sentences, strings.TrimSpace(sentence.AsString()))
		}
	}
	return sentences, nil
}
