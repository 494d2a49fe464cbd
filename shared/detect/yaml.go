package detect

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.yaml.in/yaml/v4"
)

// maxNodes bounds the YAML nodes of one document after aliases are followed, and so what a document full of aliases to
// aliases may cost.
const maxNodes = 100_000

// chunk is one document of a file before it is parsed.
type chunk struct {
	line  int // of its first line, from 1
	data  []byte
	nodes int // how many more settle will take
}

// split cuts a file at its document markers, so that a syntax error in one document is not the end of the next. A line
// that starts with "---" is a marker wherever it stands (YAML 1.2.2, 9.1.2).
func split(data []byte) []chunk {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var chunks []chunk
	start, startLine, line := 0, 1, 1
	cut := func(end int) {
		if start < end {
			chunks = append(chunks, chunk{line: startLine, data: data[start:end]})
		}
		start, startLine = end, line
	}
	for at := 0; at < len(data); line++ {
		rest := data[at:]
		if bytes.HasPrefix(rest, []byte("---")) && (len(rest) == 3 || strings.IndexByte(" \t\r\n", rest[3]) >= 0) {
			cut(at)
		}
		next := bytes.IndexByte(rest, '\n')
		if next < 0 {
			break
		}
		at += next + 1
	}
	cut(len(data))
	return chunks
}

// root parses the chunk and returns its one value with lines as in the file and aliases replaced; nil when it is empty.
func (c *chunk) root() (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(c.data, &doc); err != nil {
		line, message := c.line, err.Error()
		var at *yaml.LoadError
		if errors.As(err, &at) && at.Mark.Line > 0 {
			line, message = c.line+at.Mark.Line-1, at.Message
		}
		return nil, faultf(line, "", "the YAML cannot be read: %s", message)
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	c.nodes = maxNodes
	return c.settle(doc.Content[0], hasAlias(doc.Content[0]))
}

// read is a chunk parsed.
type read struct {
	line int
	root *yaml.Node
	err  error
}

// ahead is how many chunks are parsed before the first of them is used: enough for every processor to have work, and few
// enough not to hold a large file's YAML in memory.
const ahead = 64

// roots parses chunks on all processors, for YAML is most of what loading costs, and yields them in their order.
func roots(chunks []chunk) iter.Seq[read] {
	return func(yield func(read) bool) {
		for batch := range slices.Chunk(chunks, ahead) {
			parsed := make([]read, len(batch))
			var next atomic.Int64
			var workers sync.WaitGroup
			for range min(runtime.GOMAXPROCS(0), len(batch)) {
				workers.Go(func() {
					for i := next.Add(1) - 1; int(i) < len(batch); i = next.Add(1) - 1 {
						root, err := batch[i].root()
						parsed[i] = read{batch[i].line, root, err}
					}
				})
			}
			workers.Wait()
			for _, r := range parsed {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// hasAlias reports whether there is an alias at n or below.
func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// settle gives n and what is below its tags and its lines in the file, and refuses mappings that are not Sigma's. With
// fresh it does so to a copy, in which aliases are copies of what they name.
func (c *chunk) settle(n *yaml.Node, fresh bool) (*yaml.Node, error) {
	line := c.line - 1 + n.Line
	if c.nodes--; c.nodes < 0 {
		return nil, faultf(line, "", "the document has more than %d values", maxNodes)
	}
	if n.Kind == yaml.AliasNode {
		return c.settle(n.Alias, fresh)
	}
	m := n
	if fresh {
		m = &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value, Content: slices.Clone(n.Content)}
	}
	m.Tag, m.Line = n.ShortTag(), line
	for i, k := range m.Content {
		var err error
		if m.Content[i], err = c.settle(k, fresh); err != nil {
			return nil, err
		}
	}
	if m.Kind != yaml.MappingNode {
		return m, nil
	}
	seen := make(map[string]bool, len(m.Content)/2)
	for i := 0; i < len(m.Content); i += 2 {
		switch key := m.Content[i]; {
		case key.Kind != yaml.ScalarNode:
			return nil, faultf(key.Line, "", "a key is not a word")
		case key.Tag == "!!merge":
			return nil, faultf(key.Line, "write the keys out", "YAML merge keys are not part of Sigma")
		case seen[key.Value]:
			return nil, faultf(key.Line, "join their values in one list, or move one to a search identifier of its own", "key %q stands twice", key.Value)
		default:
			seen[key.Value] = true
		}
	}
	return m, nil
}

// get returns the value of key in a mapping, or nil.
func get(m *yaml.Node, key string) *yaml.Node {
	if m == nil || m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// merge lays over on base: mappings are joined, anything else is replaced.
func merge(base, over *yaml.Node) *yaml.Node {
	if base == nil || over == nil || base.Kind != yaml.MappingNode || over.Kind != yaml.MappingNode {
		if over == nil {
			return base
		}
		return over
	}
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: over.Tag, Line: over.Line}
	for i := 0; i < len(base.Content); i += 2 {
		key := base.Content[i]
		out.Content = append(out.Content, key, merge(base.Content[i+1], get(over, key.Value)))
	}
	for i := 0; i < len(over.Content); i += 2 {
		if get(base, over.Content[i].Value) == nil {
			out.Content = append(out.Content, over.Content[i], over.Content[i+1])
		}
	}
	return out
}

// without returns the mapping m without key.
func without(m *yaml.Node, key string) *yaml.Node {
	out := *m
	out.Content = nil
	for i := 0; i < len(m.Content); i += 2 {
		if m.Content[i].Value != key {
			out.Content = append(out.Content, m.Content[i], m.Content[i+1])
		}
	}
	return &out
}

// word reads an optional scalar of m.
func word(m *yaml.Node, key string) (string, error) {
	n := get(m, key)
	if n == nil || n.Tag == "!!null" {
		return "", nil
	}
	if n.Kind != yaml.ScalarNode {
		return "", faultf(n.Line, "write one word or text", "%s is not a text", key)
	}
	return strings.TrimSpace(n.Value), nil
}

// words reads an optional list of scalars of m; one scalar is a list of one.
func words(m *yaml.Node, key string) ([]string, error) {
	n := get(m, key)
	if n == nil || n.Tag == "!!null" {
		return nil, nil
	}
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, faultf(n.Line, "write a list of texts", "%s is not a list", key)
	}
	out := make([]string, 0, len(n.Content))
	for _, k := range n.Content {
		if k.Kind != yaml.ScalarNode {
			return nil, faultf(k.Line, "put it in quotes", "an entry of %s is not a text", key)
		}
		out = append(out, k.Value)
	}
	return out, nil
}

// onlyKeys reports every key of m that is none of allowed.
func onlyKeys(m *yaml.Node, what string, allowed ...string) error {
	var errs []error
	for i := 0; i < len(m.Content); i += 2 {
		known := false
		for _, a := range allowed {
			known = known || a == m.Content[i].Value
		}
		if !known {
			errs = append(errs, faultf(m.Content[i].Line, fmt.Sprintf("%s has %s", what, strings.Join(allowed, ", ")),
				"%s has no key %q", what, m.Content[i].Value))
		}
	}
	return errors.Join(errs...)
}
