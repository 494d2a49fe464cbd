package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hidden = "hunter2-hunter2"

// holder has the secret in every place where a printer may find it.
type holder struct {
	Exported   Value
	Pointer    *Value
	Any        any
	List       []Value
	Map        map[string]Value
	Source     Source
	unexported Value
	deep       struct{ pointer *Value }
}

func newHolder() *holder {
	v := New(hidden)
	h := &holder{Exported: v, Pointer: &v, Any: v, List: []Value{v}, Map: map[string]Value{"k": v},
		Source: Plain{v}, unexported: v}
	h.deep.pointer = &v
	return h
}

func TestNothingPrintsASecret(t *testing.T) {
	h := newHolder()
	v := New(hidden)
	subjects := map[string]any{
		"value": v, "pointer": &v, "slice": []Value{v}, "map": map[string]*Value{"k": &v},
		"struct": *h, "struct pointer": h, "plain": Plain{v}, "error": fmt.Errorf("wrapped %v: %w", v, errRedacted),
		"anonymous": struct{ v any }{v},
	}
	for name, subject := range subjects {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d %t %e %p %T %U %c %10.3s %-#v %z") {
			if got := fmt.Sprintf(verb, subject); strings.Contains(got, hidden) || strings.Contains(got, fmt.Sprintf("%x", hidden)) {
				t.Errorf("%s printed with %s: got %s", name, verb, got)
			}
		}
		got, err := json.Marshal(subject)
		if err == nil && bytes.Contains(got, []byte(hidden)) {
			t.Errorf("%s as JSON: got %s", name, got)
		}
		for format, handler := range map[string]func(*bytes.Buffer) slog.Handler{
			"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(handler(&b)).With("with", subject).Info("hello", "text", fmt.Sprint(subject), "attr", subject, slog.Group("g", "in", subject))
			if strings.Contains(b.String(), hidden) {
				t.Errorf("%s logged as %s: got %s", name, format, b.String())
			}
		}
		if got := cmp.Diff(subject, nil, cmp.Exporter(func(reflect.Type) bool { return true })); strings.Contains(got, hidden) {
			t.Errorf("%s in a diff: got %s", name, got)
		}
	}
}

func TestRedactedForm(t *testing.T) {
	v := New(hidden)
	text, _ := v.MarshalText()
	data, _ := json.Marshal(struct{ V Value }{v})
	for what, got := range map[string]string{
		"%v": fmt.Sprintf("%v", v), "%#v": fmt.Sprintf("%#v", v), "%x": fmt.Sprintf("%x", v), "%d": fmt.Sprintf("%d", v),
		"String": v.String(), "GoString": v.GoString(), "text": string(text), "log": v.LogValue().String(),
		"zero": Value{}.String(),
	} {
		if got != "[redacted]" {
			t.Errorf("%s: got %s want [redacted]", what, got)
		}
	}
	if got, want := string(data), `{"V":"[redacted]"}`; got != want {
		t.Errorf("JSON: got %s want %s", got, want)
	}
}

func TestValue(t *testing.T) {
	if !(Value{}).Empty() || !New("").Empty() || New("x").Empty() {
		t.Error("Empty is wrong")
	}
	if got := New(hidden).Reveal(); got != hidden {
		t.Errorf("Reveal: got %q want %q", got, hidden)
	}
	if got := (Value{}).Reveal(); got != "" {
		t.Errorf("Reveal of the zero value: got %q want nothing", got)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"a", "", false}} {
		if got := New(c.a).Equal(New(c.b)); got != c.want {
			t.Errorf("%q equal %q: got %v want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	var got struct{ Key Value }
	if err := json.Unmarshal([]byte(`{"key":"`+hidden+`"}`), &got); err != nil || got.Key.Reveal() != hidden {
		t.Errorf("from JSON: got %q, %v want %q", got.Key.Reveal(), err, hidden)
	}
	var v Value
	if err := v.EnvDecode(t.Context(), hidden); err != nil || v.Reveal() != hidden {
		t.Errorf("from the environment: got %q, %v want %q", v.Reveal(), err, hidden)
	}
	if err := v.UnmarshalText([]byte("[redacted]")); !errors.Is(err, errRedacted) || v.Reveal() != hidden {
		t.Errorf("from a printed document: got %v and %q want a refusal and the value kept", err, v.Reveal())
	}
}
