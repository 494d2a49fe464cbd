// Package secret holds values that never print themselves, and resolves references to them.
//
// A Value can be a field of any struct, exported or not: what prints, logs or encodes that struct shows "[redacted]"
// or an address, never the secret. The way out is Reveal, and only there should a reader have to look.
package secret

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Value is a secret. However it is printed, formatted, logged or encoded it is "[redacted]". The zero value is empty.
// Values are compared with Equal; == does not compile.
type Value struct {
	// A function, because fmt calls no methods on unexported fields and dumpers follow pointers: both stop at this.
	reveal func() string
}

// New wraps s.
func New(s string) Value {
	if s == "" {
		return Value{}
	}
	return Value{reveal: func() string { return s }}
}

// Reveal returns the secret. The only way to it: grep for it.
func (v Value) Reveal() string {
	if v.reveal == nil {
		return ""
	}
	return v.reveal()
}

// Empty reports whether there is nothing in it.
func (v Value) Empty() bool { return v.reveal == nil }

// Equal compares in a time that depends on neither value's content.
func (v Value) Equal(w Value) bool {
	a, b := sha256.Sum256([]byte(v.Reveal())), sha256.Sum256([]byte(w.Reveal()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String implements [fmt.Stringer].
func (Value) String() string { return redacted }

// GoString implements [fmt.GoStringer].
func (Value) GoString() string { return redacted }

// Format implements [fmt.Formatter] for every verb.
func (Value) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue implements [slog.LogValuer].
func (Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements [json.Marshaler].
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

var errRedacted = errors.New(`"[redacted]" stands for a secret and is none; give the secret itself or a reference to it`)

// UnmarshalText implements [encoding.TextUnmarshaler]. It refuses "[redacted]", which comes from a printed document.
func (v *Value) UnmarshalText(text []byte) error {
	if string(text) == redacted {
		return errRedacted
	}
	*v = New(string(text))
	return nil
}

// EnvDecode implements the decoder of go-envconfig.
func (v *Value) EnvDecode(_ context.Context, text string) error { return v.UnmarshalText([]byte(text)) }
