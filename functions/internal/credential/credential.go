// Package credential makes calls with a secret that may be rotated at any time.
package credential

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Use calls with the secret of source, and once more when the receiver refused it (Auth) and reading it anew gave another
// one: a rotated secret heals by itself. The error is an *[outcome.Error] without the secret in it; name says in it what
// the secret is ("webhook URL").
func Use[T any](ctx context.Context, source secret.Source, name string, call func(secret.Value) (T, error)) (T, error) {
	var zero T
	value, err := source.Get(ctx)
	if err != nil {
		e := &outcome.Error{Class: outcome.Auth, Reason: "reading the " + name, Err: err}
		if ctx.Err() != nil {
			e.Class, e.Err = outcome.Retry, ctx.Err()
		}
		return zero, e
	}
	result, err := call(value)
	if err == nil || outcome.From(err).Class != outcome.Auth {
		return result, redact(err, value)
	}
	source.Refresh()
	fresh, freshErr := source.Get(ctx)
	if freshErr != nil || fresh.Equal(value) {
		return result, redact(err, value)
	}
	result, err = call(fresh)
	return result, redact(redact(err, value), fresh)
}

// redact takes v out of what err says: receivers quote requests in their answers. It returns nil for nil.
func redact(err error, v secret.Value) error {
	if err == nil {
		return nil
	}
	e := *outcome.From(err)
	if v.Empty() {
		return &e
	}
	hide := func(s string) string { return strings.ReplaceAll(s, v.Reveal(), "[redacted]") }
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
