package detect

import (
	"encoding/json"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/apss-sensor/apss/shared/event"
)

// naive is the plain, slow evaluator that the engine must agree with. It walks every rule's tree for every event, reads
// fields from the event's JSON, and compares character by character; it shares nothing with the engine but the trees.
type naive struct {
	rules []*Rule
	trees map[*Rule]*node
}

func newNaive(rules []*Rule) *naive {
	n := &naive{rules: rules, trees: map[*Rule]*node{}}
	for _, r := range rules {
		n.trees[r] = r.detection.tree
	}
	return n
}

// match returns the ids of the rules that e matches.
func (n *naive) match(e *event.Event) []string {
	view := viewOf(e)
	var ids []string
	for _, r := range n.rules {
		if r.Kind == Detection && slices.Contains(r.source.types, e.Type) && view.holds(n.trees[r]) && !n.excluded(r, e, view) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// excluded reports whether a filter or an exception keeps r from matching e.
func (n *naive) excluded(r *Rule, e *event.Event, view view) bool {
	return slices.ContainsFunc(n.rules, func(f *Rule) bool {
		if f.Kind != Filter || f.targets != nil && !slices.Contains(f.targets, r.ID) || !slices.Contains(f.source.types, e.Type) {
			return false
		}
		tree := n.trees[f]
		if !f.exception {
			tree = exclusion(tree)
		}
		return view.holds(tree)
	})
}

// view is an event as its JSON.
type view struct{ root map[string]any }

func viewOf(e *event.Event) view {
	var v view
	d := json.NewDecoder(strings.NewReader(string(e.AppendJSON(nil))))
	d.UseNumber()
	if err := d.Decode(&v.root); err != nil {
		panic(err)
	}
	return v
}

func (v view) holds(n *node) bool {
	switch n.op {
	case opAnd:
		for _, k := range n.kids {
			if !v.holds(k) {
				return false
			}
		}
		return true
	case opOr:
		for _, k := range n.kids {
			if v.holds(k) {
				return true
			}
		}
		return false
	case opNot:
		return !v.holds(n.kids[0])
	case opLeaf:
		return v.leaf(n.leaf)
	default:
		return n.op == opTrue
	}
}

func (v view) leaf(l *leaf) bool {
	values := v.values(l.field)
	if l.kind == leafExists {
		return len(values) > 0
	}
	return slices.ContainsFunc(values, func(s string) bool {
		switch l.kind {
		case leafPattern:
			return like(l.pattern, s, l.cased)
		case leafRegexp:
			return l.regexp.match(s)
		case leafNetwork:
			a, err := netip.ParseAddr(s)
			return err == nil && l.network.Contains(a.WithZone("").Unmap())
		case leafCompare:
			if l.unit != noUnit {
				t, err := time.Parse(time.RFC3339, s)
				if err != nil {
					return false
				}
				t = t.UTC()
				_, week := t.ISOWeek()
				part := map[timeUnit]int{"minute": t.Minute(), "hour": t.Hour(), "day": t.Day(), "week": week, "month": int(t.Month()), "year": t.Year()}
				s = strconv.Itoa(part[l.unit])
			}
			f, err := strconv.ParseFloat(s, 64)
			b := l.compare.bound.float
			return err == nil && map[string]bool{"lt": f < b, "lte": f <= b, "gt": f > b, "gte": f >= b, "": f == b}[l.compare.op]
		case leafBefore:
			at, err := time.Parse(time.RFC3339, s)
			return err == nil && at.Before(l.before)
		case leafRef:
			return slices.ContainsFunc(v.values(l.ref), func(t string) bool {
				p := plain(t)
				return like(surround(p, l.refAt == atEnd || l.refAt == anywhere, l.refAt == atStart || l.refAt == anywhere), s, l.cased)
			})
		default:
			return false
		}
	})
}

// like compares character by character: a star tries every rest, of which none is tried twice.
func like(p pattern, s string, cased bool) bool {
	type rest struct{ pattern, text int }
	failed := map[rest]bool{}
	var try func(p pattern, s string) bool
	try = func(p pattern, s string) bool {
		if len(p) == 0 || failed[rest{len(p), len(s)}] {
			return s == "" && len(p) == 0
		}
		var ok bool
		switch p[0].kind {
		case anyOne:
			ok = s != "" && try(p[1:], s[charWidth(s):])
		case anyRun:
			ok = try(p[1:], s) || s != "" && try(p, s[charWidth(s):])
		default:
			tail, same := cutLike(s, p[0].text, cased)
			ok = same && try(p[1:], tail)
		}
		failed[rest{len(p), len(s)}] = !ok
		return ok
	}
	return try(p, s)
}

// cutLike cuts want, in whatever case, from the start of s.
func cutLike(s, want string, cased bool) (string, bool) {
	for want != "" {
		if s == "" {
			return "", false
		}
		x, y := want[:charWidth(want)], s[:charWidth(s)]
		if x != y && (cased || !utf8.ValidString(x+y) || !strings.EqualFold(x, y)) {
			return "", false
		}
		want, s = want[len(x):], s[len(y):]
	}
	return s, true
}

// values are the texts of a field, without the empty ones.
func (v view) values(f *field) []string {
	get := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, texts(v.root, strings.Split(n, "."))...)
		}
		return out
	}
	bases := func(from []string) (out []string) {
		for _, s := range from {
			out = append(out, path.Base(s))
		}
		return out
	}
	drop := func(from []string, none string) []string {
		return slices.DeleteFunc(from, func(s string) bool { return s == none })
	}
	if f.load == nil {
		return nil
	}
	typ := get("type")[0]
	switch name := f.name; name {
	case "auditd.type":
		if typ == "process_exec" {
			return []string{"EXECVE", "SYSCALL"}
		}
		return []string{"PATH"}
	case "auditd.nametype":
		switch typ {
		case "file_create":
			return []string{"CREATE"}
		case "file_delete":
			return []string{"DELETE"}
		case "process_exec":
			return nil
		}
		return []string{"NORMAL"}
	case "auditd.syscall":
		if typ == "process_exec" {
			return []string{"execve"}
		}
		return nil
	case "auditd.keywords":
		return get("process.cmdline", "file.path")
	case "keywords":
		return get("process.exe", "process.cmdline", "process.cwd", "process.user", "process.parent.exe",
			"process.parent.cmdline", "file.path", "file.diff", "file.writers.exe", "network.protocol", "network.direction",
			"network.src_ip", "network.dst_ip", "network.state", "container.name", "container.image", "pod_name", "workload",
			"metadata")
	case "process.name", "process.parent.name", "process.ancestors.name":
		return v.programs(strings.Split(strings.TrimSuffix(name, ".name"), "."))
	case "file.name":
		return bases(get("file.path"))
	case "network.initiated":
		d := get("network.direction")
		if len(d) == 0 {
			return nil
		}
		return []string{strconv.FormatBool(d[0] == "outbound")}
	case "network.src_port", "network.dst_port":
		return drop(get(name), "0")
	case "process.uid", "process.login_uid", "process.session_id":
		return drop(get(name), "4294967295")
	case "file.uid", "file.gid", "file.size", "file.previous.uid", "file.previous.gid", "file.previous.size", "file.previous.sha256":
		if len(get(name[:strings.LastIndex(name, ".")]+".mode")) == 0 {
			return nil
		}
		return drop(get(name), "4294967295")
	default:
		if i, ok := strings.CutPrefix(name, "process.args."); ok {
			n, _ := strconv.Atoi(i)
			p, _ := v.root["process"].(map[string]any)
			args, _ := p["args"].([]any)
			if n < len(args) {
				return texts(args[n], nil)
			}
			return nil
		}
		return get(name)
	}
}

// programs are the names of the programs at a path of keys.
func (v view) programs(keys []string) (out []string) {
	var x any = v.root
	for _, k := range keys {
		m, _ := x.(map[string]any)
		x = m[k]
	}
	list, ok := x.([]any)
	if !ok {
		list = []any{x}
	}
	for _, x := range list {
		p, _ := x.(map[string]any)
		exe, _ := p["exe"].(string)
		words := texts(p["args"], nil)
		if args, ok := p["args"].([]any); ok && len(args) > 0 && args[0] == "" {
			words = nil // an empty first argument says nothing
		}
		if len(keys) > 1 { // an ancestor has no arguments
			cmdline, _ := p["cmdline"].(string)
			words = strings.Split(cmdline, " ")
		}
		many := slices.Contains([]string{"busybox", "toybox", "coreutils"}, path.Base(exe))
		if exe != "" && !many {
			out = append(out, path.Base(exe))
			continue
		}
		words = append(words, "", "")
		word := words[0]
		if many && path.Base(word) == path.Base(exe) && words[1] != "" && !strings.HasPrefix(words[1], "-") {
			word = words[1]
		}
		word, _, _ = strings.Cut(strings.ReplaceAll(word, ":", " "), " ")
		switch word = strings.TrimPrefix(word, "-"); {
		case word != "":
			out = append(out, path.Base(word))
		case exe != "":
			out = append(out, path.Base(exe))
		}
	}
	return out
}

// texts follows a path of keys, into every element of a list on the way.
func texts(x any, keys []string) (out []string) {
	switch x := x.(type) {
	case map[string]any:
		if len(keys) == 0 {
			for _, y := range x {
				if _, nested := y.(map[string]any); !nested {
					out = append(out, texts(y, nil)...)
				}
			}
			return out
		}
		for i := len(keys); i > 0; i-- { // metadata's keys may have dots in them
			if y, ok := x[strings.Join(keys[:i], ".")]; ok {
				return texts(y, keys[i:])
			}
		}
		return nil
	case []any:
		for _, y := range x {
			out = append(out, texts(y, keys)...)
		}
		return out
	}
	if len(keys) > 0 {
		return nil
	}
	switch x := x.(type) {
	case string:
		if x != "" {
			out = []string{x}
		}
	case json.Number:
		out = []string{x.String()}
	case bool:
		out = []string{strconv.FormatBool(x)}
	}
	return out
}

func TestLikeAgreesWithPatternMatch(t *testing.T) {
	alphabet := []string{"", "a", "A", "b", "*", "?", "ab", "é", "É", "K", "k", "ſ"}
	var words []string
	for _, x := range alphabet {
		for _, y := range alphabet {
			for _, z := range alphabet {
				words = append(words, x+y+z)
			}
		}
	}
	matched := 0
	for _, w := range words {
		p := parsePattern(w)
		for _, s := range words {
			for _, cased := range []bool{false, true} {
				q, text := p, s
				if !cased {
					q, text = p.fold(), foldString(s)
				}
				got, want := q.match(text), like(p, s, cased)
				if got != want {
					t.Fatalf("pattern %q, text %q, cased %v: got %v want %v", w, s, cased, got, want)
				}
				if got {
					matched++
				}
			}
		}
	}
	if matched < len(words) {
		t.Errorf("only %d of the pairs match: the table shows nothing", matched)
	}
}
