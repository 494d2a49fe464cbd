// Package credential makes calls with a secret that may be rotated at any time.
package credential

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Named is a secret with what it is, for errors: "webhook URL".
type Named struct {
	Name string
	secret.Source
}

// Use is [All] with one secret.
func Use[T any](ctx context.Context, source secret.Source, name string, call func(secret.Value) (T, error)) (T, error) {
	return All(ctx, []Named{{name, source}}, func(values []secret.Value) (T, error) { return call(values[0]) })
}

// All calls with the secrets of sources, in their order, and once more when the receiver refused them (Auth) and reading
// them anew gave another one: a rotated secret heals by itself. The error is an *[outcome.Error] with none of them in it.
func All[T any](ctx context.Context, sources []Named, call func([]secret.Value) (T, error)) (T, error) {
	values, err := get(ctx, sources)
	if err != nil {
		var zero T
		return zero, err
	}
	httpx.Hide(ctx, values...)
	result, err := call(values)
	if err == nil || outcome.From(err).Class != outcome.Auth {
		return result, redact(err, values)
	}
	for _, s := range sources {
		s.Refresh()
	}
	fresh, freshErr := get(ctx, sources)
	if freshErr != nil || slices.EqualFunc(values, fresh, secret.Value.Equal) {
		return result, redact(err, values)
	}
	httpx.Hide(ctx, fresh...)
	result, err = call(fresh)
	return result, redact(err, append(values, fresh...))
}

func get(ctx context.Context, sources []Named) ([]secret.Value, error) {
	values := make([]secret.Value, 0, len(sources))
	for _, s := range sources {
		v, err := s.Get(ctx)
		if err != nil {
			e := &outcome.Error{Class: outcome.Auth, Reason: "reading the " + s.Name, Err: err}
			if ctx.Err() != nil {
				e.Class, e.Err = outcome.Retry, ctx.Err()
			}
			return nil, e
		}
		if strings.ContainsFunc(v.Reveal(), unicode.IsControl) { // no header, URL or password has any
			return nil, &outcome.Error{Class: outcome.Auth, Reason: "the " + s.Name + " has a line end or another control character in it"}
		}
		values = append(values, v)
	}
	return values, nil
}

// redact takes values out of what err says: receivers quote requests in their answers. It returns nil for nil.
func redact(err error, values []secret.Value) error {
	if err == nil {
		return nil
	}
	e := *outcome.From(err)
	hide := func(s string) string {
		for _, v := range values {
			if !v.Empty() {
				s = strings.ReplaceAll(s, v.Reveal(), "[redacted]")
			}
		}
		return s
	}
	e.Reason = hide(e.Reason)
	e.Rejected = slices.Clone(e.Rejected)
	for i := range e.Rejected {
		e.Rejected[i].Reason = hide(e.Rejected[i].Reason)
	}
	if e.Err != nil && hide(e.Err.Error()) != e.Err.Error() {
		e.Err = errors.New(hide(e.Err.Error()))
	}
	return &e
}
