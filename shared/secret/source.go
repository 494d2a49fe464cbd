package secret

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Source is a secret that may change: file:// re-read on change, env://, a plain value, or a scheme that a program
// registered (secret:// in the functions). Safe for concurrent use.
type Source interface {
	// Get returns the current value, never an empty one.
	Get(ctx context.Context) (Value, error)
	// Refresh drops what is cached: the receiver refused it.
	Refresh()
}

// Plain is a Source of one fixed value: what Parse makes of a secret that is not a reference.
type Plain struct{ Value }

// Get returns the value.
func (p Plain) Get(context.Context) (Value, error) { return p.Value, nil }

// Refresh does nothing.
func (Plain) Refresh() {}

// Parse reads a reference: "file:///etc/key", "env://NAME", or else the secret itself, as a [Plain].
func Parse(ref string) (Source, error) { return Schemes(nil).Parse(ref) }

// Schemes are the schemes that a program adds to file and env. Each function is handed the whole reference.
type Schemes map[string]func(ref string) (Source, error)

// Parse reads a reference in one of s or of the built-in schemes, or else the secret itself.
//
// What has the form of a reference in another scheme is refused rather than taken for the secret; URLs of the usual
// network protocols are no references, so a Slack webhook or a Sentry DSN is the secret itself. Because ref may be a
// secret, an error does not quote it.
func (s Schemes) Parse(ref string) (Source, error) {
	ref = strings.TrimSpace(ref)
	if ref == "" {
		return nil, errors.New("the secret is empty")
	}
	scheme, rest, ok := strings.Cut(ref, ":")
	scheme = strings.ToLower(scheme)
	if !ok || !validScheme(scheme) {
		return Plain{New(ref)}, nil
	}
	name, isURL := strings.CutPrefix(rest, "//")
	parse := s[scheme]
	switch scheme {
	case "file":
		parse = func(string) (Source, error) { return newFile(name) }
	case "env":
		parse = func(string) (Source, error) { return newEnv(name) }
	}
	switch {
	case parse != nil && isURL:
		return parse(ref)
	case parse != nil:
		return nil, fmt.Errorf("a secret reference needs two slashes after the colon: %s://", scheme)
	case isURL && !isAddress(scheme, name):
		known := slices.Sorted(maps.Keys(s))
		return nil, fmt.Errorf("a secret reference of unknown scheme; here work %s",
			strings.Join(append([]string{"file:///path", "env://NAME"}, suffixed(known, "://")...), ", "))
	}
	return Plain{New(ref)}, nil
}

func suffixed(list []string, suffix string) []string {
	for i := range list {
		list[i] += suffix
	}
	return list
}

// validScheme reports whether s is a URI scheme in lower case (RFC 3986, section 3.1).
func validScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// isAddress tells the URL of a service from a reference: a known protocol, or credentials before the host.
func isAddress(scheme, rest string) bool {
	switch scheme {
	case "http", "https", "ws", "wss", "grpc", "grpcs", "tcp", "tls", "udp", "unix", "smtp", "smtps",
		"redis", "rediss", "postgres", "postgresql", "mysql", "mongodb", "mongodb+srv",
		"amqp", "amqps", "nats", "kafka", "mqtt", "mqtts", "s3", "gs":
		return true
	}
	authority, _, _ := strings.Cut(rest, "/")
	return strings.Contains(authority, "@")
}

// env is a variable of the process's environment, read at every Get.
type env string

func newEnv(name string) (Source, error) {
	for i, c := range []byte(name) {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return nil, errors.New("env:// is not followed by the name of an environment variable; write it like env://API_KEY")
		}
	}
	if name == "" {
		return nil, errors.New("env:// is not followed by a name; write it like env://API_KEY")
	}
	return env(name), nil
}

func (e env) Get(context.Context) (Value, error) {
	s := strings.TrimSpace(os.Getenv(string(e)))
	if s == "" {
		return Value{}, fmt.Errorf("the environment variable %s, which should hold a secret, is unset or empty", string(e))
	}
	return New(s), nil
}

func (env) Refresh() {}
