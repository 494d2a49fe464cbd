package httpx

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Response is an answer, read whole within the limit. Printed or logged it shows its status and size only: a receiver
// may well repeat the request's path in a header or in the body.
type Response struct {
	Status    int
	Header    http.Header
	Body      []byte
	Truncated bool
	Elapsed   time.Duration

	request *http.Request // for the host's name and for what must not be shown; nil in a Response not made by Do
}

// Format implements [fmt.Formatter] for every verb.
func (r Response) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, r.summary()) }

// LogValue implements [slog.LogValuer].
func (r Response) LogValue() slog.Value { return slog.StringValue(r.summary()) }

func (r Response) summary() string {
	more := ""
	if r.Truncated {
		more = " and more"
	}
	return fmt.Sprintf("HTTP %d, %d bytes%s in %s", r.Status, len(r.Body), more, r.Elapsed)
}

// Outcome maps r's status: 2xx nil; 401 403 Auth; 413 422 400 Split; all else Retry with After from Retry-After (seconds
// or date): what is neither accepted nor refused for its content or key, as by 404, 405 and redirects, was not looked at,
// and nothing is given up for a wrong address or a proxy in the midst of a roll-out. Reason holds an excerpt of the body,
// one line, control characters escaped.
//
// For the excerpt, and for hide, see Excerpt.
func (r *Response) Outcome(hide ...secret.Value) error {
	if r.Status >= 200 && r.Status < 300 {
		return nil
	}
	e := &outcome.Error{Status: r.Status, Reason: fmt.Sprintf("HTTP %d", r.Status)}
	if text := http.StatusText(r.Status); text != "" {
		e.Reason += " " + text
	}
	if r.request != nil {
		e.Reason += " from " + r.request.URL.Host
	}
	switch r.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Class = outcome.Auth
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		e.Class = outcome.Split
	default:
		e.Class = outcome.Retry
		e.After = RetryAfter(r.Header, time.Now())
	}
	if r.Status >= 300 && r.Status < 400 {
		e.Reason += ": redirects are not followed"
		return e
	}
	if text := r.Excerpt(r.Body, hide...); text != "" {
		e.Reason += ": " + text
	}
	return e
}

// Excerpt makes text, which is of r's body, fit to be shown: its beginning, on one line, control characters escaped.
// From it is removed what the receiver may repeat of the request: its path, the values in its query, user info and
// headers. An integration that sends a secret in the body names it in hide.
func (r *Response) Excerpt(text []byte, hide ...secret.Value) string {
	return excerpt(r.redact(text, hide))
}

// maxRetryAfter bounds what a receiver may ask: beyond it, it is a fault or a way to silence us.
const maxRetryAfter = time.Hour

// RetryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds, or a date in any of its three forms. It is 0 when
// there is none, when it is malformed or past, and at most an hour.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if strings.Trim(v, "0123456789") == "" {
		seconds := time.Duration(0)
		for _, digit := range []byte(v) {
			if seconds = seconds*10 + time.Duration(digit-'0')*time.Second; seconds > maxRetryAfter {
				return maxRetryAfter
			}
		}
		return seconds
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

const maxExcerpt = 200 // runes

// excerpt shows the beginning of b on one line: runs of white space are one blank, what does not print is escaped.
func excerpt(b []byte) string {
	var s strings.Builder
	runes, blank := 0, false
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		var piece string
		switch {
		case unicode.IsSpace(r):
			blank = runes > 0
			b = b[size:]
			continue
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, b[0])
		case !unicode.IsPrint(r):
			piece = strings.Trim(fmt.Sprintf("%+q", r), "'")
		default:
			piece = string(r)
		}
		if blank {
			piece, blank = " "+piece, false
		}
		if runes += utf8.RuneCountInString(piece); runes >= maxExcerpt {
			s.WriteString("…")
			break
		}
		s.WriteString(piece)
		b = b[size:]
	}
	return s.String()
}
