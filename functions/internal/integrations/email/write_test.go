package email

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/event/eventtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// changes of an incident of a, and a digest, as the mailer writes them.
func messages(t *testing.T, m *mailer, a *event.Alert) map[string][]byte {
	t.Helper()
	thread := m.thread(integrationtest.Incident(integration.Opened, "", a))
	all := map[string][]byte{}
	for name, c := range map[string]integration.Change{"opened": integration.Opened, "repeated": integration.Repeated, "resolved": integration.Resolved} {
		b, err := m.incident(integrationtest.Incident(c, thread, a), thread)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	b, err := m.digest(integrationtest.Digest(a, integration.MaxDigest))
	if err != nil {
		t.Fatal(err)
	}
	all["digest"] = b
	return all
}

// parsed is what a mail program sees.
type parsed struct {
	header     mail.Header
	text, html string
}

// parse reads a message, and says what is wrong with it: its form, its headers, anything in the HTML that is not ours.
func parse(b []byte) (p parsed, err error) {
	m, err := mail.ReadMessage(strings.NewReader(string(b)))
	if err != nil {
		return p, err
	}
	p.header = m.Header
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	known := []string{"Auto-Submitted", "Content-Type", "Date", "From", "Importance", "In-Reply-To", "Message-Id", "Mime-Version",
		"Priority", "References", "Subject", "To", "X-Auto-Response-Suppress", "X-Msmail-Priority", "X-Priority"}
	for name, values := range m.Header {
		if !slices.Contains(known, name) || len(values) != 1 {
			fault("header %s: %q", name, values)
		}
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject == "" || len([]rune(subject)) > maxSubject || strings.ContainsFunc(subject, unicode.IsControl) {
		fault("subject %q, %v", subject, err)
	}
	for line := range strings.SplitSeq(string(b), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") { // RFC 5322 section 2.1.1
			fault("a line of %d bytes: %.100q", len(line), line)
		}
	}
	if len(b) > maxMessage {
		fault("%d bytes", len(b))
	}
	_, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return p, err
	}
	parts := multipart.NewReader(m.Body, parameters["boundary"])
	for _, into := range []*string{&p.text, &p.html} {
		part, err := parts.NextPart()
		if err != nil {
			return p, errors.Join(append(errs, err)...)
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return p, err
		}
		*into = string(text)
	}
	if _, err := parts.NextPart(); !errors.Is(err, io.EOF) {
		fault("there is a third part: %v", err)
	}
	return p, errors.Join(append(errs, inspectHTML(p.html))...)
}

// inspectHTML: only the form's own elements and attributes, and links to pages.
func inspectHTML(s string) error {
	attributes := []string{"name", "content", "charset", "lang", "style", "role", "cellpadding", "cellspacing", "href"}
	elements := []string{"html", "head", "meta", "title", "style", "body", "div", "p", "b", "h1", "table", "tr", "td", "pre", "ul", "li", "a", "br"}
	d := xml.NewDecoder(strings.NewReader(s))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("HTML: %w", err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if !slices.Contains(elements, e.Name.Local) {
			return fmt.Errorf("HTML: an element %q", e.Name.Local)
		}
		for _, a := range e.Attr {
			if !slices.Contains(attributes, a.Name.Local) || a.Name.Local == "href" && !message.IsLink(a.Value) || strings.Contains(a.Value, "url(") {
				return fmt.Errorf("HTML: an attribute %s=%q", a.Name.Local, a.Value)
			}
		}
	}
}

// TestHostileStrings: whatever is in an alert, the message is one message, of the same form, and the same each time.
func TestHostileStrings(t *testing.T) {
	m := newMailer(t, 25, nil, slog.New(slog.DiscardHandler), nil)
	for name, a := range integrationtest.Alerts() {
		again := messages(t, m, a)
		for kind, b := range messages(t, m, a) {
			p, err := parse(b)
			if err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if p.header.Get("From") != `"APSS" <apss@example.com>` || p.header.Get("To") != "<oncall@example.com>" {
				t.Errorf("%s, %s: from %q to %q", name, kind, p.header.Get("From"), p.header.Get("To"))
			}
			if diff := cmp.Diff(string(b), string(again[kind])); diff != "" {
				t.Errorf("%s, %s: the same message is written in two ways:\n%s", name, kind, diff)
			}
		}
	}
}

// TestGolden: the messages as they are sent.
func TestGolden(t *testing.T) {
	file := eventtest.Alert()
	file.Event, file.RuleName, file.Severity = eventtest.FileModify(), "Account file changed", event.High
	m := newMailer(t, 25, nil, slog.New(slog.DiscardHandler), func(s *Settings) { s.To = append(s.To, "Zoë <zoe@example.com>") })
	all := messages(t, m, eventtest.Alert())
	test := integrationtest.Incident(integration.Opened, "", file)
	test.Test = true
	b, err := m.incident(test, m.thread(test))
	if err != nil {
		t.Fatal(err)
	}
	all["file_test"] = b
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p, err := parse(all[name])
		if err != nil {
			t.Error(err)
		}
		head, _, _ := strings.Cut(string(all[name]), "\r\n\r\n")
		golden(t, name+".txt", strings.ReplaceAll(head, "\r\n", "\n")+"\n\n"+strings.ReplaceAll(p.text, "\r\n", "\n"))
		golden(t, name+".html", strings.ReplaceAll(p.html, "\r\n", "\n"))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestThread: an incident is one thread, with an id for each thing that is said in it, the same when it is said again.
func TestThread(t *testing.T) {
	m := newMailer(t, 25, nil, slog.New(slog.DiscardHandler), nil)
	first := integrationtest.Incident(integration.Opened, "", eventtest.Alert())
	thread := m.thread(first)
	more := first
	more.Change, more.Count, more.LastSeen = integration.Repeated, 42, first.LastSeen.Add(time.Minute)
	evenMore := more
	evenMore.Count++
	end := evenMore
	end.Change = integration.Resolved
	seen := map[string]bool{}
	subject := ""
	for _, i := range []integration.Incident{first, more, evenMore, end} {
		for _, ref := range []string{"", thread, "forged\r\nBcc: x@example.com"} { // "": the store has lost it
			i.Ref = ref
			if got := m.thread(i); got != thread {
				t.Fatalf("with the reference %q: got the thread %s, want %s", ref, got, thread)
			}
		}
		b, err := m.incident(i, thread)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		id, refers, want := p.header.Get("Message-Id"), p.header.Get("In-Reply-To"), "<"+thread+">"
		if i.Change == integration.Opened {
			subject = p.header.Get("Subject")
			if id != want || refers != "" {
				t.Errorf("opened: got %s which refers to %q", id, refers)
			}
		} else if refers != want || p.header.Get("References") != want || p.header.Get("Subject") != "Re: "+subject || seen[id] {
			t.Errorf("%v: got %s which refers to %q, subject %q", i.Change, id, refers, p.header.Get("Subject"))
		}
		seen[id] = true
	}
	later := first
	later.FirstSeen = first.FirstSeen.Add(time.Hour)
	other := newMailer(t, 25, nil, slog.New(slog.DiscardHandler), nil)
	other.name = "another"
	if m.thread(later) == thread || other.thread(first) == thread {
		t.Error("another opening, or another instance, has the same thread")
	}
}

func TestCut(t *testing.T) {
	a := eventtest.Alert()
	a.Metadata.RecommendedActions = slices.Repeat([]string{strings.Repeat("日", 1<<16)}, 10)
	a.Description, a.Event.Process.Cmdline = strings.Repeat("日", 1<<16), strings.Repeat("日", 1<<16)
	m := newMailer(t, 25, nil, slog.New(slog.DiscardHandler), nil)
	b, err := m.incident(integrationtest.Incident(integration.Opened, "", a), m.thread(integrationtest.Incident(integration.Opened, "", a)))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := parse(b); err != nil || !strings.Contains(p.text, "characters)") {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
}
