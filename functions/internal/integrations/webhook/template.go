package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/apss-sensor/apss/functions/internal/jsonapi"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Bounds of one execution of a template. A step is the start of a template or of one pass of a range: nothing else
// repeats.
const (
	maxSteps  = 10_000
	maxTime   = 5 * time.Second // a thousand times what an ordinary one takes: the steps bound the work, this the wait
	maxFormat = 256             // bytes of printf's format
)

var (
	errTooLarge = errors.New("it makes more than max_body bytes")
	errEndless  = fmt.Errorf("it takes more than %d steps", maxSteps)
	errSlow     = fmt.Errorf("it takes more than %v", maxTime)
)

// bodyTemplate makes bodies of alerts. Its data are the members of the alert's JSON: plain values, without methods that
// a template could call. Its functions see nothing else.
type bodyTemplate struct {
	parsed *template.Template
	json   bool // what it makes must be JSON
}

// newTemplate reads text and tries it on the sample alerts, so that what is wrong with it is known at the start.
func newTemplate(text, contentType string) (*bodyTemplate, error) {
	t, err := template.New("body").Option("missingkey=error").Funcs(functions(new(run))).Parse(text)
	if err != nil {
		return nil, errors.New(show(err))
	}
	step := template.Must(template.New("").Funcs(functions(new(run))).Parse("{{apssStep}}")).Root.Nodes[0]
	for _, one := range t.Templates() {
		if one.Tree != nil {
			count(one.Root, step)
			one.Root.Nodes = append([]parse.Node{step}, one.Root.Nodes...)
		}
	}
	b := &bodyTemplate{t, isJSON(contentType)}
	for _, s := range samples() {
		if _, err := b.execute(s.alert.AppendJSON(nil), "", maxMaxBody); err != nil {
			return nil, fmt.Errorf("tried on an alert %s: %s", s.about, outcome.From(err).Reason)
		}
	}
	return b, nil
}

// count puts step at the start of each range within n.
func count(n parse.Node, step parse.Node) {
	branch := func(b *parse.BranchNode) {
		count(b.List, step)
		if b.ElseList != nil {
			count(b.ElseList, step)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, m := range n.Nodes {
			count(m, step)
		}
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
		n.List.Nodes = append([]parse.Node{step}, n.List.Nodes...)
	}
}

// execute makes the body of an alert's JSON, of which cut says what is missing. The error is Permanent, since
// the same alert would come to the same, but for one about time: that was the machine.
func (b *bodyTemplate) execute(data []byte, cut string, limit int) ([]byte, error) {
	v, err := decode(data)
	if err != nil {
		return nil, err
	}
	members, _ := plain(v).(map[string]any)
	if members == nil {
		members = map[string]any{}
	}
	members["truncated"] = cut
	t, err := b.parsed.Clone()
	if err != nil {
		return nil, &outcome.Error{Class: outcome.Permanent, Reason: "the template of the body", Err: err}
	}
	r := &run{limit: limit, until: time.Now().Add(maxTime)}
	err = t.Funcs(functions(r)).Execute(r, members)
	if err == nil && b.json && !json.Valid(r.out.Bytes()) {
		err = errors.New("what it makes is not JSON; put values in by the function json, without quotes: {{json .description}}")
	}
	if err != nil {
		return nil, refusal(err)
	}
	return r.out.Bytes(), nil
}

// refusal is what err of an execution comes to.
func refusal(err error) *outcome.Error {
	e := &outcome.Error{Class: outcome.Permanent, Reason: "the template of the body: " + show(err)}
	switch {
	case errors.Is(err, errTooLarge):
		e.Err = errTooLarge
	case errors.Is(err, errSlow):
		e.Class = outcome.Retry
	}
	return e
}

// show is err on one line. It may quote the alert.
func show(err error) string {
	return message.Line(strings.TrimPrefix(err.Error(), "template: "), 300)
}

// run is one execution: what it has made, and how far it may go.
type run struct {
	out   bytes.Buffer
	limit int
	steps int
	until time.Time
}

// Write implements io.Writer.
func (r *run) Write(p []byte) (int, error) {
	if r.out.Len()+len(p) > r.limit {
		return 0, errTooLarge
	}
	return r.out.Write(p)
}

func (r *run) step() (string, error) {
	if r.steps++; r.steps > maxSteps {
		return "", errEndless
	}
	if time.Now().After(r.until) {
		return "", errSlow
	}
	return "", nil
}

// functions are what a template may call, beside the built-in ones that compare and choose. Those that make texts make
// none above the limit, and are not handed more: doubling a text forty times ends at the limit.
func functions(r *run) template.FuncMap {
	small := func(s string) (string, error) {
		if len(s) > r.limit {
			return "", errTooLarge
		}
		return s, nil
	}
	of := func(f func(...any) string) func(...any) (string, error) {
		return func(args ...any) (string, error) {
			size := 0
			for _, a := range args {
				if s, ok := a.(string); ok {
					size += len(s)
				}
			}
			if size > r.limit {
				return "", errTooLarge
			}
			return small(f(args...))
		}
	}
	return template.FuncMap{
		"apssStep": r.step,
		"json": func(v any) (string, error) {
			b, err := jsonapi.Encode(v)
			if err != nil {
				return "", err
			}
			return small(string(b))
		},
		"get": func(v any, names ...string) any {
			if v = below(v, names); v == nil {
				return ""
			}
			return v
		},
		"list": func(v any, names ...string) []any {
			l, _ := below(v, names).([]any)
			return l
		},
		"cut":      func(n int, s string) string { return message.Cut(s, n) },
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"print":    of(fmt.Sprint),
		"println":  of(fmt.Sprintln),
		"html":     of(template.HTMLEscaper),
		"js":       of(template.JSEscaper),
		"urlquery": of(template.URLQueryEscaper),
		"printf": func(format string, args ...any) (string, error) {
			if len(format) > maxFormat {
				return "", fmt.Errorf("the format of printf has more than %d bytes", maxFormat)
			}
			return of(func(args ...any) string { return fmt.Sprintf(format, args...) })(args...)
		},
	}
}

// below is the value that names lead to from v, or nil: not every alert has a process.
func below(v any, names []string) any {
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// plain makes numbers of JSON those that templates compare and print.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = plain(v[name])
		}
	}
	return v
}

// isJSON reports whether a content type is JSON or built on it (RFC 6839 section 3.1).
func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}
