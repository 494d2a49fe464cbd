package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/apss-sensor/apss/shared/secret"
	"github.com/apss-sensor/apss/shared/setting"
)

// Limits of a document. An environment variable holds 128 KiB (MAX_ARG_STRLEN, execve(2)).
const (
	maxDocument = 256 << 10
	maxNodes    = 20_000
	maxDepth    = 12
)

// Document reads the settings document: a list of instances in YAML or JSON.
//
//   - Unknown keys, keys that stand twice, kinds that do not exist, values of the wrong type: each is a fault, and all
//     are reported at once, with the line, the instance and the key.
//   - A value may be a reference to a secret. Those of type [Secret] are read when they are needed, others at once.
//   - Anchors, aliases, merge keys and tags are refused: a document says what it says.
//
// No fault shows the value of a secret.
type Document struct {
	Name    string // where it is, for faults
	Kinds   []Kind
	Schemes secret.Schemes // of references, beside file:// and env://
	Local   bool           // plain secrets are allowed
}

// Shortcut is an instance that environment variables describe.
type Shortcut struct {
	Kind string // of it, and its name
	// Variables by the keys that they stand for. What is not in Values is not set.
	Variables map[string]string
	Values    map[string]secret.Value
}

// Text returns the document that value is: itself when it is a list, else what is in the file that it names, as a path or
// as file://.
func Text(value string) ([]byte, error) {
	value = strings.TrimSpace(value)
	if value == "" || strings.ContainsAny(value, "\n[{#") || strings.HasPrefix(value, "- ") {
		return []byte(value), nil
	}
	path := strings.TrimPrefix(value, "file://")
	if scheme, _, found := strings.Cut(path, "://"); found {
		return nil, fmt.Errorf("the document is written out or in a file; %.20q is neither", scheme+"://")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the document: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("reading the document: %w", err)
	}
	return text, nil
}

// Read returns the instances of the document text, then those of shortcuts. The error joins every fault.
func (d Document) Read(ctx context.Context, text []byte, shortcuts ...Shortcut) ([]Instance, error) {
	r := reader{Document: d, ctx: ctx, names: map[string]string{}}
	list := r.list(text)
	instances := make([]Instance, 0, len(list)+len(shortcuts))
	for i, n := range list {
		instances = append(instances, r.instance(n, fmt.Sprintf("number %d", i+1)))
	}
	for _, s := range shortcuts {
		instances = append(instances, r.shortcut(s))
	}
	slices.SortStableFunc(r.faults, func(a, b fault) int { return a.line - b.line })
	errs := make([]error, len(r.faults))
	for i := range r.faults {
		errs[i] = &r.faults[i]
	}
	return instances, errors.Join(errs...)
}

// fault is one thing wrong with the document.
type fault struct {
	document string
	line     int
	instance string
	key      string // path of keys
	problem  string
}

func (f *fault) Error() string {
	var parts []string
	line := ""
	if f.line > 0 {
		line = fmt.Sprintf("line %d", f.line)
	}
	for _, p := range []string{f.document, line, f.instance, f.key, f.problem} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}

// reader is one reading of a document.
type reader struct {
	Document
	//nolint:containedctx // a reader lives as long as one call of Read
	ctx    context.Context
	faults []fault
	names  map[string]string // of instances, and where each stands

	// Of the instance being read.
	label     string
	live      bool              // it is enabled: references are resolved
	variables map[string]string // of a shortcut, by key
}

func (r *reader) fault(n *yaml.Node, key, format string, args ...any) {
	f := fault{document: r.Name, line: n.Line, instance: r.label, key: key, problem: fmt.Sprintf(format, args...)}
	if v := r.variables[key]; v != "" {
		f.document, f.instance, f.key = "", "", v
	}
	r.faults = append(r.faults, f)
}

// quoted is what a YAML error quotes of the document: it may be a secret.
var quoted = regexp.MustCompile("'[^']*'|\"[^\"]*\"|`[^`]*`")

// list returns the document's instances.
func (r *reader) list(text []byte) []*yaml.Node {
	if len(text) > maxDocument {
		r.fault(&yaml.Node{}, "", "the document has more than %d bytes", maxDocument)
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(plainJSON(text)), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		r.fault(&yaml.Node{}, "", "reading the document: %v", err)
		return nil
	}
	var root, more yaml.Node
	switch err := loader.Load(&root); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		r.unreadable(err)
		return nil
	}
	if err := loader.Load(&more); err == nil {
		r.fault(&more, "", "there is a second document; write one list")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.unreadable(err)
		return nil
	}
	if nodes := 0; !r.plain(&root, &nodes) || len(root.Content) == 0 {
		return nil
	}
	list := root.Content[0]
	if list.Kind != yaml.SequenceNode {
		if !isNull(list) {
			r.fault(list, "", `the document is not a list of integrations; start each with "- name: ..."`)
		}
		return nil
	}
	return list.Content
}

// unreadable reports a syntax error without what it quotes.
func (r *reader) unreadable(err error) {
	n, message := &yaml.Node{}, err.Error()
	var at *yaml.LoadError
	if errors.As(err, &at) {
		n.Line, message = at.Mark.Line, at.Message
	}
	r.fault(n, "", "the document is neither YAML nor JSON: %s", quoted.ReplaceAllString(message, "..."))
}

// plain reports whether n and what is below are mappings, lists and scalars and nothing else.
func (r *reader) plain(n *yaml.Node, nodes *int) bool {
	*nodes++
	switch {
	case *nodes > maxNodes:
		r.fault(n, "", "the document has more than %d values", maxNodes)
		return false
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.fault(n, "", "anchors and aliases are not read; write the value out")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		r.fault(n, "", "tags are not read; put a text that starts with ! in quotes")
		return false
	}
	for _, c := range n.Content {
		if !r.plain(c, nodes) {
			return false
		}
	}
	return true
}

// namePattern is a label of RFC 1123, which is a path segment and may be part of a subscription's id.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// instance reads one entry of the list.
func (r *reader) instance(n *yaml.Node, label string) Instance {
	r.label, r.live, r.variables = label, false, nil
	if n.Kind != yaml.MappingNode {
		r.fault(n, "", "is not a set of keys and values")
		return Instance{}
	}
	for _, key := range []string{"name", "kind"} {
		if v := get(n, key); v != nil && v.Kind == yaml.ScalarNode && !isNull(v) {
			r.label = word(v.Value)
			break
		}
	}
	return r.fill(n)
}

// shortcut reads what environment variables describe.
func (r *reader) shortcut(s Shortcut) Instance {
	n := &yaml.Node{Kind: yaml.MappingNode}
	add := func(key, tag, value string) {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key},
			&yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value})
	}
	add("kind", "!!str", s.Kind)
	add("enabled", "!!bool", "true")
	for _, key := range slices.Sorted(maps.Keys(s.Values)) {
		add(key, "!!str", s.Values[key].Reveal())
	}
	r.label, r.variables = s.Kind, s.Variables
	local := r.Local
	r.Local = true // the environment is not the document: it may hold a secret
	defer func() { r.Local = local }()
	return r.fill(n)
}

// fill decodes an instance.
func (r *reader) fill(n *yaml.Node) Instance {
	in := Instance{Group: DefaultGroup()}
	common := fields(&in)
	before := len(r.faults)
	for _, key := range []string{"name", "kind", "enabled"} { // what the others depend on
		if v := get(n, key); v != nil {
			r.value(v, common[key], key)
		}
	}
	r.live = in.Enabled
	kind, known := r.kind(n, in.Kind)
	in.Rate = kind.Rate
	var own map[string]target
	if known {
		in.Settings = kind.Settings()
		own = fields(in.Settings)
	}
	lines := map[string]int{}
	for key, v := range r.members(n, "") {
		lines[key.Value] = v.Line
		switch field, isCommon := common[key.Value]; {
		case slices.Contains([]string{"name", "kind", "enabled"}, key.Value):
		case isCommon:
			r.value(v, field, key.Value)
		case known:
			if field, ok := own[key.Value]; ok {
				r.value(v, field, key.Value)
			} else {
				r.unknown(key, "", "an integration of kind "+kind.Name, common, own)
			}
		}
	}
	r.finish(n, &in, lines, r.faults[before:])
	return in
}

// kind finds the kind of an instance.
func (r *reader) kind(n *yaml.Node, kind string) (Kind, bool) {
	known := make([]string, len(r.Kinds))
	for i, k := range r.Kinds {
		if k.Name == kind {
			return k, true
		}
		known[i] = k.Name
	}
	v := get(n, "kind")
	switch near := setting.Nearest(kind, known); {
	case kind == "" && (v == nil || isNull(v)):
		r.fault(n, "kind", "is required: one of %s", strings.Join(known, ", "))
	case kind == "": // no text, said already
	case near != "":
		r.fault(v, "kind", "%s is none; did you mean %s?", excerpt(kind), near)
	default:
		r.fault(v, "kind", "%s is none; there are %s", excerpt(kind), strings.Join(known, ", "))
	}
	return Kind{}, false
}

// finish checks what was decoded: the name, the common settings, and the kind's own when the instance is enabled. What
// they say about a key that is at fault already is left out.
func (r *reader) finish(n *yaml.Node, in *Instance, lines map[string]int, faults []fault) {
	wrong := map[string]bool{}
	for _, f := range faults {
		key, _, _ := strings.Cut(f.key, ".")
		key, _, _ = strings.Cut(key, "[")
		wrong[key] = true
		for k, v := range r.variables {
			wrong[k] = wrong[k] || v == f.key
		}
	}
	at := func(key string) *yaml.Node {
		if line := lines[key]; line > 0 {
			return &yaml.Node{Line: line}
		}
		return n
	}
	if in.Name == "" {
		in.Name = in.Kind
	}
	if !wrong["name"] && in.Name != "" {
		if !namePattern.MatchString(in.Name) {
			r.fault(at("name"), "name", "%s is no name; write small letters, digits and dashes, at most 63", excerpt(in.Name))
		} else if where, taken := r.names[in.Name]; taken {
			r.fault(at("name"), "name", "%s is taken by the one %s", in.Name, where)
		}
		where := fmt.Sprintf("in line %d", n.Line)
		if n.Line == 0 {
			where = "that the environment sets"
		}
		r.names[in.Name] = where
	}
	for _, part := range []struct {
		key string
		err error
	}{{"route", in.Route.validate()}, {"rate", in.Rate.validate()}, {"group", in.Group.validate()}} {
		for _, err := range flatten(part.err) {
			if !wrong[part.key] {
				r.fault(at(part.key), part.key, "%v", err)
			}
		}
	}
	if in.Settings == nil || !in.Enabled {
		return
	}
	for _, err := range flatten(in.Settings.Validate()) {
		key := r.mentioned(err.Error(), lines)
		if !wrong[key] || key == "" {
			problem, _ := strings.CutPrefix(err.Error(), key+": ")
			if problem == err.Error() && r.variables[key] == "" {
				key = ""
			}
			r.fault(at(r.mentioned(err.Error(), lines)), key, "%s", problem)
		}
	}
}

// mentioned returns the first word of text that is a key of the instance.
func (r *reader) mentioned(text string, lines map[string]int) string {
	for word := range strings.FieldsFuncSeq(text, func(c rune) bool { return c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') }) {
		if _, ok := lines[word]; ok || r.variables[word] != "" {
			return word
		}
	}
	return ""
}

// flatten lists the errors that err joins.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, err := range joined.Unwrap() {
		all = append(all, flatten(err)...)
	}
	return all
}
