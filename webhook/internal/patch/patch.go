// Package patch writes JSON Patches (RFC 6902) that only add. What is in the patched object stays as it is, byte for
// byte as far as its owner is concerned: nothing is decoded into types that may not know a field and written again.
package patch

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Patch is a list of operations. The zero value is the empty one.
type Patch struct{ b []byte }

// Add adds value, which is JSON, at path, a JSON Pointer: to an object as a member, to an array before the element of
// that index or, with "-", at its end.
func (p *Patch) Add(path string, value []byte) {
	if p.b == nil {
		p.b = make([]byte, 0, 4<<10)
		p.b = append(p.b, '[')
	} else {
		p.b[len(p.b)-1] = ','
	}
	p.b = append(p.b, `{"op":"add","path":`...)
	p.b, _ = jsontext.AppendQuote(p.b, path) // paths are ours: valid UTF-8
	p.b = append(p.b, `,"value":`...)
	p.b = append(p.b, value...)
	p.b = append(p.b, "}]"...)
}

// Bytes returns the patch as JSON, nil when it is empty.
func (p *Patch) Bytes() []byte { return p.b }

// Escape makes s one reference token of a JSON Pointer, RFC 6901 section 3.
func Escape(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }
