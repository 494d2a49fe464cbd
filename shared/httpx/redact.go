package httpx

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/shared/secret"
)

const (
	// redactSpan is how much of a body is searched: an excerpt shows a small part of it.
	redactSpan = 8 << 10
	// minSecret is the length from which a value is looked for on its own. A shorter one is no secret worth the name,
	// and cutting every "v1" out would leave no message to read.
	minSecret = 6
)

// openHeaders hold no secret, and their values are what a receiver's complaint is about.
var openHeaders = []string{"Accept", "Content-Encoding", "Content-Type", "Idempotency-Key", "Traceparent", "User-Agent"}

// redact returns the start of text without what the request held and without hide.
func (r *Response) redact(text []byte, hide []secret.Value) []byte {
	text = text[:min(len(text), redactSpan)]
	var found []string
	for _, v := range hide {
		found = append(found, v.Reveal())
	}
	if r.request != nil {
		found = append(found, requestSecrets(r.request)...)
	}
	slices.SortFunc(found, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, s := range found {
		if s != "" {
			text = bytes.ReplaceAll(text, []byte(s), []byte("[redacted]"))
		}
	}
	return text
}

// requestSecrets lists what must not be repeated of req.
func requestSecrets(req *http.Request) []string {
	var list []string
	whole := func(s string) {
		if len(s) >= minSecret {
			list = append(list, s)
		}
	}
	u := req.URL
	for _, path := range []string{u.Path, u.EscapedPath()} {
		whole(path)
		for segment := range strings.SplitSeq(path, "/") {
			if !isWord(segment) {
				whole(segment)
			}
		}
	}
	whole(u.RawQuery)
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		whole(value)
	}
	for _, values := range u.Query() {
		for _, value := range values {
			whole(value)
		}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		whole(u.User.Username())
		whole(password)
		whole(u.User.String())
	}
	for name, values := range req.Header {
		if slices.Contains(openHeaders, name) {
			continue
		}
		for _, value := range values {
			whole(value)
			// What follows the name of an authentication scheme, and each part of a structured one.
			_, rest, _ := strings.Cut(value, " ")
			for _, piece := range strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune(" ,;=\"", r) }) {
				whole(piece)
			}
		}
	}
	return list
}

// isWord reports whether a segment of a path is a plain word, like "services", which a message may well need, rather
// than a token.
func isWord(s string) bool {
	const longest = 12
	return len(s) <= longest && !strings.ContainsFunc(s, func(r rune) bool { return r < 'a' || r > 'z' })
}
