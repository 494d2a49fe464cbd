package integration

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// plainJSON makes text YAML where it is JSON that is not: tabs between tokens become spaces, and characters that are
// written as two escapes (RFC 8259 section 7) are written out. Lines stay where they are.
func plainJSON(text []byte) []byte {
	if !jsontext.Value(text).IsValid() {
		return text
	}
	text = bytes.ReplaceAll(text, []byte("\t"), []byte(" ")) // valid JSON has none inside strings
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		if text[i] != '\\' {
			out = append(out, text[i])
			i++
			continue
		}
		const pair = len(`\ud83d\ude00`)
		if i+pair <= len(text) && text[i+1] == 'u' && text[i+6] == '\\' {
			escapes := append(append([]byte{'"'}, text[i:i+pair]...), '"')
			if plain, err := jsontext.AppendUnquote(nil, escapes); err == nil && len(plain) == 4 { // one character beyond 16 bits
				out = append(out, plain...)
				i += pair
				continue
			}
		}
		out = append(out, text[i], text[i+1]) // a backslash is never the last byte of valid JSON
		i += 2
	}
	return out
}
