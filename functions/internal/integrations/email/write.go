package email

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the messages' forms
	"encoding/hex"
	"fmt"
	"html/template"
	"net/mail"
	"regexp"
	"strings"
	text "text/template"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/event"
)

// Limits of a message. Gmail hides what is beyond 102 KB of it (mailchimp.com/help/gmail-is-clipping-my-email); when one
// is larger its texts are halved.
const (
	maxMessage = 100 << 10 // bytes, encoded
	maxText    = 4000
	minText    = 100
	maxSubject = 200
)

//go:embed message.html
var htmlForm string

//go:embed message.txt
var textForm string

// writer makes messages.
type writer struct {
	name string // of the instance
	from *mail.Address
	to   []*mail.Address
	now  func() time.Time
	html *template.Template
	text *text.Template
}

func newWriter(name string, from *mail.Address, to []*mail.Address) writer {
	functions := map[string]any{
		"indent": func(s string) string { return strings.ReplaceAll(s, "\n", "\n  ") },
		"isLink": message.IsLink,
	}
	return writer{
		name: name, from: from, to: to, now: time.Now,
		html: template.Must(template.New("html").Funcs(functions).Parse(htmlForm)),
		text: text.Must(text.New("text").Funcs(functions).Parse(textForm)),
	}
}

// page is what the forms show.
type page struct {
	Color    string // of the bar; legible on white and on black
	Headline string
	Note     string // what changed, or why this is a digest
	Place    string
	Incident *message.Incident
	Digest   *message.Digest
	Test     string
}

// color of a severity: its contrast with white and with black is at least 3:1 (w3.org/TR/WCAG22/#non-text-contrast).
func color(s event.Severity, c integration.Change) string {
	switch {
	case c == integration.Resolved:
		return "#2e8b57"
	case s >= event.Critical:
		return "#d93025"
	case s == event.High:
		return "#d9730d"
	case s == event.Medium:
		return "#a67c00"
	default:
		return "#4a7fb5"
	}
}

// threadPattern is of references that came from here.
var threadPattern = regexp.MustCompile(`^apss\.[0-9a-f]{32}@[A-Za-z0-9.\[\]:-]+$`)

// thread is the Message-ID of an incident's first message.
func (w *writer) thread(i integration.Incident) string {
	if threadPattern.MatchString(i.Ref) {
		return i.Ref
	}
	return w.id(i.Fingerprint, i.FirstSeen.UTC().String())
}

// id is a Message-ID that depends on parts and on the instance.
func (w *writer) id(parts ...string) string {
	h := sha256.New()
	for _, p := range append(parts, w.name) {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return "apss." + hex.EncodeToString(h.Sum(nil)[:16]) + "@" + domain(w.from)
}

// incident is the message about a change of i.
func (w *writer) incident(i integration.Incident, thread string) ([]byte, error) {
	return w.fit(func(limit int) ([]byte, error) {
		m := message.Of(i, limit)
		p := page{Color: color(m.Severity, i.Change), Headline: m.Headline(), Place: m.Place, Incident: &m}
		opening := m // by its subject mail programs keep a thread together
		opening.Change = integration.Opened
		subject := "[APSS] " + opening.Summary()
		id := thread
		if i.Change != integration.Opened {
			subject = "Re: " + subject
			id = w.id(thread, fmt.Sprint(i.Change, i.Count, i.LastSeen.UTC()))
			p.Note = "It goes on: " + m.Seen() + "."
		}
		if i.Change == integration.Resolved {
			p.Note = "It is over, as far as can be seen: nothing more came for a while. It was " + m.Seen() + "."
		}
		if m.Test {
			p.Test = message.TestNote
		}
		return w.write(subject, id, thread, m.Severity, p)
	})
}

// digest is the message about many incidents.
func (w *writer) digest(d integration.Digest) ([]byte, error) {
	return w.fit(func(limit int) ([]byte, error) {
		m := message.OfDigest(d, limit)
		id := w.id("digest", d.From.UTC().String(), d.To.UTC().String())
		p := page{Color: color(m.Severity, integration.Opened), Headline: m.Headline, Note: m.Why, Digest: &m}
		return w.write("[APSS] "+m.Headline, id, id, m.Severity, p)
	})
}

// fit is what write makes with the longest texts that keep the message within its limit.
func (w *writer) fit(write func(limit int) ([]byte, error)) ([]byte, error) {
	for limit := maxText; ; limit /= 2 {
		b, err := write(limit)
		if err != nil || len(b) <= maxMessage || limit/2 < minText {
			return b, err
		}
	}
}

// write makes a message: every header is made here or encoded.
func (w *writer) write(subject, id, thread string, s event.Severity, p page) ([]byte, error) {
	var html, plain bytes.Buffer
	if err := w.html.Execute(&html, p); err != nil {
		return nil, err
	}
	if err := w.text.Execute(&plain, p); err != nil {
		return nil, err
	}
	// No part has the boundary in it: nobody can write a text that holds its own digest.
	digest := sha256.Sum256(append(append([]byte(id), html.Bytes()...), plain.Bytes()...))
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithBoundary("apss-"+hex.EncodeToString(digest[:])))
	m.FromMailAddress(w.from)
	for _, a := range w.to {
		m.AddToMailAddress(a)
	}
	m.Subject(message.Cut(subject, maxSubject))
	m.SetDateWithValue(w.now().UTC())
	m.SetMessageIDWithValue(id)
	if id != thread {
		m.SetGenHeader(gomail.HeaderInReplyTo, "<"+thread+">")
		m.SetGenHeader(gomail.HeaderReferences, "<"+thread+">")
	}
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's holiday answers
	m.SetGenHeader("X-Auto-Response-Suppress", "All")
	if s >= event.Critical {
		m.SetImportance(gomail.ImportanceHigh)
	}
	m.SetBodyString(gomail.TypeTextPlain, plain.String())
	m.AddAlternativeString(gomail.TypeTextHTML, html.String())
	var out bytes.Buffer
	_, err := m.WriteTo(&out)
	return out.Bytes(), err
}
