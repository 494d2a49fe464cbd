// Package secret holds values that never print themselves, and resolves references to them.
package secret

import "context"

// Value is a secret. However it is printed, formatted, logged or encoded it is "[redacted]". The zero value is empty.
type Value struct{}

// New wraps s.
func New(s string) Value { panic("unwritten") }

// Reveal returns the secret. The only way to it: grep for it.
func (v Value) Reveal() string { panic("unwritten") }

// Empty reports whether there is nothing in it.
func (v Value) Empty() bool { panic("unwritten") }

// Source is a secret that may change: file:// re-read on change, env://, a plain value, or a scheme that a program
// registered (secret:// in the functions).
type Source interface {
	// Get returns the current value.
	Get(ctx context.Context) (Value, error)
	// Refresh drops what is cached: the receiver refused it.
	Refresh()
}

// Parse reads a reference: "file:///etc/key", "env://NAME", or else the secret itself.
func Parse(ref string) (Source, error) { panic("unwritten") }
