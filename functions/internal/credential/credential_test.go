package credential

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// rotating is a secret that changes when it is refreshed. The empty one cannot be read.
type rotating struct {
	values    []string
	refreshed int
}

func (r *rotating) Get(ctx context.Context) (secret.Value, error) {
	v := r.values[min(r.refreshed, len(r.values)-1)]
	if v == "" {
		return secret.Value{}, errors.New("the file is gone")
	}
	return secret.New(v), ctx.Err()
}
func (r *rotating) Refresh() { r.refreshed++ }

func TestUse(t *testing.T) {
	tests := []struct {
		name      string
		values    []string
		answers   map[string]outcome.Class
		calls     []string
		refreshed int
		want      outcome.Class
	}{
		{"accepted", []string{"a"}, nil, []string{"a"}, 0, outcome.OK},
		{"trouble", []string{"a", "b"}, map[string]outcome.Class{"a": outcome.Retry}, []string{"a"}, 0, outcome.Retry},
		{"rotated", []string{"a", "b"}, map[string]outcome.Class{"a": outcome.Auth}, []string{"a", "b"}, 1, outcome.OK},
		{"rotated to a bad one", []string{"a", "b"}, map[string]outcome.Class{"a": outcome.Auth, "b": outcome.Auth}, []string{"a", "b"}, 1, outcome.Auth},
		{"unchanged", []string{"a"}, map[string]outcome.Class{"a": outcome.Auth}, []string{"a"}, 1, outcome.Auth},
		{"lost meanwhile", []string{"a", ""}, map[string]outcome.Class{"a": outcome.Auth}, []string{"a"}, 1, outcome.Auth},
		{"not there", []string{""}, nil, nil, 0, outcome.Auth},
		{"of two lines", []string{"a\nb"}, nil, nil, 0, outcome.Auth},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source := &rotating{values: tt.values}
			var calls []string
			got, err := Use(t.Context(), source, "key", func(v secret.Value) (int, error) {
				calls = append(calls, v.Reveal())
				if c, ok := tt.answers[v.Reveal()]; ok {
					return 0, &outcome.Error{Class: c}
				}
				return 7, nil
			})
			class := outcome.OK
			if err != nil {
				class = outcome.From(err).Class
			}
			if class != tt.want || (class == outcome.OK) != (got == 7) {
				t.Errorf("got %d, %v, want class %v", got, err, tt.want)
			}
			if diff := cmp.Diff(tt.calls, calls); diff != "" || source.refreshed != tt.refreshed {
				t.Errorf("got %d refreshes, want %d; calls (-want +got):\n%s", source.refreshed, tt.refreshed, diff)
			}
		})
	}
}

func TestCancelledRead(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Use(ctx, &rotating{values: []string{"a"}}, "key", func(secret.Value) (int, error) { return 0, nil })
	if e := outcome.From(err); e == nil || e.Class != outcome.Retry || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a retry that is context.Canceled", err)
	}
}

func TestNoErrorTellsTheSecret(t *testing.T) {
	for _, class := range []outcome.Class{outcome.Auth, outcome.Retry} {
		source := &rotating{values: []string{"first-secret", "second-secret"}}
		_, err := Use(t.Context(), source, "key", func(v secret.Value) (int, error) {
			said := "you sent " + source.values[0] + " and " + v.Reveal()
			return 0, &outcome.Error{Class: class, Reason: said, Rejected: []outcome.Rejection{{ID: "1", Reason: said}}, Err: errors.New(said)}
		})
		e := outcome.From(err)
		for _, s := range []string{err.Error(), e.Reason, e.Rejected[0].Reason} {
			if strings.Contains(s, "-secret") || !strings.Contains(s, "[redacted]") {
				t.Errorf("%v: got %q, want it redacted", class, s)
			}
		}
	}
}

// TestAll: one of several that changed is reason enough for another call, and none of them is told.
func TestAll(t *testing.T) {
	same, changed := &rotating{values: []string{"same-secret"}}, &rotating{values: []string{"old-secret", "new-secret"}}
	var calls []string
	_, err := All(t.Context(), []Named{{"key", same}, {"header", changed}}, func(v []secret.Value) (int, error) {
		said := v[0].Reveal() + " " + v[1].Reveal()
		calls = append(calls, said)
		return 0, &outcome.Error{Class: outcome.Auth, Reason: "refused " + said}
	})
	if diff := cmp.Diff([]string{"same-secret old-secret", "same-secret new-secret"}, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if got, want := err.Error(), "auth: refused [redacted] [redacted]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = All(t.Context(), []Named{{"key", same}, {"header X-Key", &rotating{values: []string{""}}}}, func([]secret.Value) (int, error) { return 0, nil })
	if err == nil || !strings.Contains(err.Error(), "reading the header X-Key") {
		t.Errorf("got %v, want it to name the header", err)
	}
}
