// Package redact takes credentials out of what a sensor is about to keep or publish: [Redactor.Args] out of the
// arguments of a program, [Redactor.Text] out of a file's text before a diff of it is made.
//
// A credential is known by the name beside it (password, token, api_key, Authorization, ...), by where it stands (the
// user info of a URL, the argument after a program's own flag), or by its shape (a key's prefix that its maker
// documents, a JWT, a PEM block, a hash of crypt(5)). What names a credential without being one stays: a file, an id, a
// variable, a substitution.
//
// Promises:
//
//   - Nothing else changes: rules read what is left. Valid UTF-8 stays valid, lines stay lines.
//   - Redacting twice is redacting once. The input is never changed.
//   - The time is linear in the input, whatever is in it, but for a small factor (BenchmarkArgs, BenchmarkText).
//
// Limits: a password that nothing beside it names, and a name that we do not know, are not seen. In a text a value ends
// with its line, unless it is a block of YAML.
//
// A redactor with hashes puts a part of a hash in the place of each credential, so that a person can tell whether two
// programs were given the same one, or whether a file's password changed. It is HMAC-SHA-256 (RFC 2104), cut to 48 bits.
// The key is random, made anew for each redactor, and kept in memory alone. A password that people choose is found from
// a plain hash by hashing guesses; who has only events can guess nothing here, for without the key every guess fits as
// well as any other, and who has the agent's memory still gets 48 bits of what may have had more. The price is that hashes
// of two agents, or of two runs of one, cannot be compared.
package redact

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
)

// Mark stands where a credential stood, here and in shared/secret.
const Mark = "[redacted]"

// Redactor takes credentials out. The zero value puts [Mark] in the place of each. It may be used concurrently.
type Redactor struct{ key []byte }

// WithHashes returns a redactor that puts a keyed hash in the place of each credential.
func WithHashes() Redactor {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never returns an error
	return Redactor{key: key}
}

// mark returns what stands in the place of a credential.
func (r Redactor) mark(value string) string {
	if r.key == nil {
		return Mark
	}
	h := hmac.New(sha256.New, r.key)
	_, _ = io.WriteString(h, value) // a hash takes everything
	return hashMark + hex.EncodeToString(h.Sum(nil))[:hashDigits] + "]"
}

// hashMark is how a mark with a hash begins, hashDigits how many follow and a bracket.
const (
	hashMark   = "[redacted:sha256:"
	hashDigits = 12
)

// markLen returns the length of the mark that s begins with, 0 when it begins with none.
func markLen(s string) int {
	const whole = len(hashMark) + hashDigits + 1
	switch {
	case strings.HasPrefix(s, Mark):
		return len(Mark)
	case strings.HasPrefix(s, hashMark) && strings.IndexByte(s, ']') == whole-1:
		return whole
	}
	return 0
}
