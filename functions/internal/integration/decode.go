package integration

import (
	"encoding"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/apss-sensor/apss/shared/secret"
	"github.com/apss-sensor/apss/shared/setting"
)

// target is where a key's value goes.
type target = reflect.Value

// fields are those of the struct that p points to, by the names of their yaml tags. Embedded structs tagged ",inline"
// count as part of it.
func fields(p any) map[string]target {
	out := map[string]target{}
	v := reflect.ValueOf(p)
	if v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		structFields(v.Elem(), out)
	}
	return out
}

func structFields(v reflect.Value, out map[string]target) {
	for f, field := range v.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case f.Anonymous && options == "inline" && field.Kind() == reflect.Struct:
			structFields(field, out)
		case !f.IsExported() || key == "-":
		case key != "":
			out[key] = field
		}
	}
}

// get returns the value of key in the mapping n, or nil.
func get(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// members are the keys and values of the mapping n. It reports keys that are no words or stand twice.
func (r *reader) members(n *yaml.Node, path string) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			switch line, twice := seen[key.Value]; {
			case key.Kind != yaml.ScalarNode:
				r.fault(key, path, "a key is not a word")
			case key.ShortTag() == "!!merge":
				r.fault(key, path, "merge keys are not read; write the keys out")
			case twice:
				r.fault(key, join(path, word(key.Value)), "stands twice, first in line %d", line)
			default:
				seen[key.Value] = key.Line
				if !yield(key, n.Content[i+1]) {
					return
				}
			}
		}
	}
}

// unknown reports a key that there is not.
func (r *reader) unknown(key *yaml.Node, path, what string, known ...map[string]target) {
	var names []string
	for _, m := range known {
		names = slices.AppendSeq(names, maps.Keys(m))
	}
	slices.Sort(names)
	if near := setting.Nearest(key.Value, names); near != "" {
		r.fault(key, join(path, word(key.Value)), "%s has no such key; did you mean %s?", what, near)
		return
	}
	r.fault(key, join(path, word(key.Value)), "%s has no such key; it has %s", what, strings.Join(names, ", "))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// value decodes n into t, or reports why not. A null leaves t as it is.
func (r *reader) value(n *yaml.Node, t target, path string) {
	if isNull(n) {
		return
	}
	if s, ok := t.Addr().Interface().(*Secret); ok {
		r.secret(n, s, path)
		return
	}
	if u, ok := t.Addr().Interface().(encoding.TextUnmarshaler); ok {
		r.decoder(n, u, path)
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t.IsNil() {
			t.Set(reflect.New(t.Type().Elem()))
		}
		r.value(n, t.Elem(), path)
	case reflect.Struct:
		r.structure(n, t, path)
	case reflect.Map:
		r.mapping(n, t, path)
	case reflect.Slice:
		r.sequence(n, t, path)
	default:
		r.scalar(n, t, path)
	}
}

// decoder decodes n into what decodes itself.
func (r *reader) decoder(n *yaml.Node, t encoding.TextUnmarshaler, path string) {
	text, hidden, ok := r.text(n, path)
	if !ok || r.unresolved(text) {
		return
	}
	switch err := t.UnmarshalText([]byte(text)); {
	case err == nil:
	case hidden:
		r.fault(n, path, "what it refers to is not accepted")
	default:
		r.fault(n, path, "%v", err)
	}
}

func (r *reader) structure(n *yaml.Node, t target, path string) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "is not a set of keys and values")
		return
	}
	known := fields(t.Addr().Interface())
	for key, v := range r.members(n, path) {
		if field, ok := known[key.Value]; ok {
			r.value(v, field, join(path, key.Value))
		} else {
			r.unknown(key, path, path, known)
		}
	}
}

func (r *reader) mapping(n *yaml.Node, t target, path string) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "is not a set of keys and values")
		return
	}
	t.Set(reflect.MakeMap(t.Type()))
	for key, v := range r.members(n, path) {
		element := reflect.New(t.Type().Elem()).Elem()
		r.value(v, element, join(path, word(key.Value)))
		t.SetMapIndex(reflect.ValueOf(key.Value).Convert(t.Type().Key()), element)
	}
}

// sequence decodes a list. One value is a list of one.
func (r *reader) sequence(n *yaml.Node, t target, path string) {
	items := n.Content
	if n.Kind != yaml.SequenceNode {
		items = []*yaml.Node{n}
	}
	t.Set(reflect.MakeSlice(t.Type(), len(items), len(items)))
	for i, item := range items {
		if isNull(item) {
			r.fault(item, fmt.Sprintf("%s[%d]", path, i), "is empty")
			continue
		}
		r.value(item, t.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (r *reader) scalar(n *yaml.Node, t target, path string) {
	text, hidden, ok := r.text(n, path)
	if !ok {
		return
	}
	var err error
	var want string
	switch t.Interface().(type) {
	case time.Duration:
		var d time.Duration
		if d, err = time.ParseDuration(text); err == nil {
			t.SetInt(int64(d))
		}
		want = `a duration; write it like "5m"`
	default:
		want, err = setScalar(t, text)
	}
	switch {
	case err == nil:
	case r.unresolved(text):
	case hidden:
		r.fault(n, path, "what it refers to is not %s", want)
	default:
		r.fault(n, path, "%s is not %s", excerpt(text), want)
	}
}

// setScalar sets t to what text says, or returns what a t must be.
func setScalar(t target, text string) (want string, err error) {
	switch t.Kind() {
	case reflect.String:
		t.SetString(text)
		return "", nil
	case reflect.Bool:
		if text != "true" && text != "false" {
			return `"true" or "false"`, strconv.ErrSyntax
		}
		t.SetBool(text == "true")
		return "", nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v, err := strconv.ParseInt(text, 10, t.Type().Bits())
		if err == nil {
			t.SetInt(v)
		}
		return fmt.Sprintf("a whole number of at most %d bits", t.Type().Bits()), err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v, err := strconv.ParseUint(text, 10, t.Type().Bits())
		if err == nil {
			t.SetUint(v)
		}
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Type().Bits())), err
	case reflect.Float32, reflect.Float64:
		v, err := strconv.ParseFloat(text, t.Type().Bits())
		if err == nil {
			t.SetFloat(v)
		}
		return "a number", err
	default:
		return fmt.Sprintf("readable: the program's setting is a %s", t.Type()), strconv.ErrSyntax
	}
}

// text is what a scalar says; of a reference in an enabled instance what it refers to, which is hidden: not to be quoted.
func (r *reader) text(n *yaml.Node, path string) (text string, hidden, ok bool) {
	if n.Kind != yaml.ScalarNode {
		r.fault(n, path, "is not one value")
		return "", false, false
	}
	if !r.live || !r.isReference(n.Value) {
		return n.Value, false, true
	}
	source, err := r.Schemes.Parse(n.Value)
	if err != nil {
		r.fault(n, path, "%v", err)
		return "", true, false
	}
	v, err := source.Get(r.ctx)
	if err != nil {
		r.fault(n, path, "%v", err)
		return "", true, false
	}
	return v.Reveal(), true, true
}

// unresolved reports whether s is a reference in an instance that is not enabled.
func (r *reader) unresolved(s string) bool { return !r.live && r.isReference(s) }

// isReference reports whether s has the form of a reference that can be resolved here.
func (r *reader) isReference(s string) bool {
	scheme, _, ok := strings.Cut(strings.TrimSpace(s), "://")
	scheme = strings.ToLower(scheme)
	return ok && (scheme == "file" || scheme == "env" || r.Schemes[scheme] != nil)
}

// secret reads a reference, and a plain value in local runs.
func (r *reader) secret(n *yaml.Node, s *Secret, path string) {
	if n.Kind != yaml.ScalarNode {
		r.fault(n, path, "is not one value")
		return
	}
	ref := strings.TrimSpace(n.Value)
	if ref == "" {
		return
	}
	source, err := r.Schemes.Parse(ref)
	_, plain := source.(secret.Plain)
	switch {
	case err != nil:
		r.fault(n, path, "%v", err)
	case plain && !r.Local:
		r.fault(n, path, "a secret is written here; keep it in Secret Manager and write secret://projects/<project>/secrets/<secret>/versions/latest "+
			"(file:///<path> and env://<NAME> work, too)")
	case plain:
		*s = Secret{Source: source}
	default:
		*s = Secret{Source: source, Ref: ref}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// word is s as it stands where it looks like a key or a name, else quoted.
func word(s string) string {
	for _, c := range []byte(s) {
		if c != '_' && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return excerpt(s)
		}
	}
	if s == "" || len(s) > maxWord {
		return excerpt(s)
	}
	return s
}

// maxWord is how much of a text of the document is shown.
const maxWord = 60

// excerpt quotes s and cuts it to what fits a line of a terminal.
func excerpt(s string) string {
	if runes := []rune(s); len(runes) > maxWord {
		s = string(runes[:maxWord]) + "…"
	}
	return strconv.Quote(s)
}
