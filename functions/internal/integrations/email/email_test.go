package email

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

func setting(s string) integration.Secret {
	return integration.Secret{Source: secret.Plain{Value: secret.New(s)}}
}

// valid are settings for a server on this machine; change may be nil.
func valid(at uint16, change func(*Settings)) *Settings {
	s := Kind().Settings().(*Settings)
	s.Host, s.Port, s.From, s.To = "127.0.0.1", at, "APSS <apss@example.com>", []string{"oncall@example.com"}
	s.Timeout = 20 * time.Second
	if change != nil {
		change(s)
	}
	return s
}

func newMailer(t *testing.T, at uint16, roots *x509.CertPool, log *slog.Logger, change func(*Settings)) *mailer {
	t.Helper()
	s := valid(at, change)
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	i, err := s.New(integration.Env{Name: "mail", Local: true, Log: log, Meter: noop.Meter{}})
	if err != nil {
		t.Fatal(err)
	}
	m := i.(*mailer)
	m.roots, m.now = roots, eventtest.Time
	return m
}

func opened() integration.Incident {
	return integrationtest.Incident(integration.Opened, "", eventtest.Alert())
}

var withLogin = func(s *Settings) { s.Username, s.Password = "apss", setting(integrationtest.Secret) }

// TestServers: over each kind of connection and by each way to log in a message arrives, and a check sends none.
func TestServers(t *testing.T) {
	cert, roots := certificate(t)
	for name, c := range map[string]struct {
		server *standIn
		change func(*Settings)
		steps  string // of a message
	}{
		"STARTTLS":       {&standIn{}, nil, "greeting EHLO STARTTLS EHLO MAIL RCPT <oncall@example.com> DATA message QUIT"},
		"implicit":       {&standIn{implicit: true}, func(s *Settings) { s.TLS = implicit }, "greeting EHLO MAIL RCPT <oncall@example.com> DATA message QUIT"},
		"none":           {&standIn{plain: true}, func(s *Settings) { s.TLS = none }, "greeting EHLO MAIL RCPT <oncall@example.com> DATA message QUIT"},
		"PLAIN":          {&standIn{auth: "LOGIN PLAIN XOAUTH2"}, withLogin, "greeting EHLO STARTTLS EHLO AUTH PLAIN MAIL RCPT <oncall@example.com> DATA message QUIT"},
		"LOGIN":          {&standIn{auth: "LOGIN"}, withLogin, "greeting EHLO STARTTLS EHLO AUTH LOGIN AUTH LOGIN AUTH LOGIN MAIL RCPT <oncall@example.com> DATA message QUIT"},
		"two recipients": {&standIn{}, func(s *Settings) { s.To = append(s.To, "B <b@example.com>") }, "greeting EHLO STARTTLS EHLO MAIL RCPT <oncall@example.com> RCPT <b@example.com> DATA message QUIT"},
	} {
		t.Run(name, func(t *testing.T) {
			c.server.cert, c.server.password = cert, integrationtest.Secret
			m := newMailer(t, c.server.start(t), roots, slog.New(slog.DiscardHandler), c.change)
			if status, err := m.Check(t.Context()); err != nil || status.Detail == "" {
				t.Errorf("check: got %v, %v", status, err)
			}
			before, mails := c.server.seen()
			if len(mails) != 0 || slices.Contains(before, "MAIL") || !slices.Contains(before, "NOOP") {
				t.Errorf("the check did %q", before)
			}
			ref, err := m.SendIncident(t.Context(), opened())
			if err != nil {
				t.Fatal(err)
			}
			steps, mails := c.server.seen()
			if got := strings.Join(steps[len(before):], " "); got != c.steps {
				t.Errorf("got the steps %s, want %s", got, c.steps)
			}
			if len(mails) != 1 || !strings.Contains(mails[0], "Message-ID: <"+ref+">\r\n") {
				t.Errorf("got %q, want one message with the id %s", mails, ref)
			}
		})
	}
}

// TestFaults: whatever a server does comes to an outcome, in time, and nothing tells the password.
func TestFaults(t *testing.T) {
	cert, roots := certificate(t)
	type fault struct {
		name   string
		server *standIn
		change func(*Settings)
		want   outcome.Class
		status int
		text   string
	}
	says := func(step, text string) *standIn { return &standIn{say: map[string]string{step: text}, auth: "PLAIN"} }
	faults := []fault{
		{"421 at the greeting", says("greeting", "421 busy"), nil, outcome.Retry, 421, "421 busy"},
		{"554 at the greeting", says("greeting", "554 not you"), nil, outcome.Retry, 554, "the greeting: 554 not you"},
		{"no SMTP", says("greeting", "HTTP/1.1 400 Bad Request"), nil, outcome.Retry, 0, "no valid SMTP reply"},
		{"endless greeting", says("greeting", strings.Repeat("x", maxRead+1)), nil, outcome.Retry, 0, "more than"},
		{"endless reply", says("EHLO", strings.Repeat("250-x\r\n", maxRead/7+1)), nil, outcome.Retry, 0, "more than"},
		{"550 at EHLO", says("EHLO", "550 no"), nil, outcome.Retry, 550, "EHLO: 550 no"},
		{"no STARTTLS", &standIn{plain: true}, nil, outcome.Retry, 0, "does not offer STARTTLS"},
		{"454 at STARTTLS", says("STARTTLS", "454 later"), nil, outcome.Retry, 454, "454 later"},
		{"no login offered", &standIn{}, withLogin, outcome.Auth, 0, "no login"},
		{"only strange logins", &standIn{auth: "GSSAPI"}, withLogin, outcome.Auth, 0, "GSSAPI"},
		{"535", &standIn{auth: "PLAIN", password: "another"}, withLogin, outcome.Auth, 535, "AUTH: 535"},
		{"535 to LOGIN", &standIn{auth: "LOGIN", password: "another"}, withLogin, outcome.Auth, 535, "AUTH: 535"},
		{"454 to AUTH", says("AUTH", "454 4.7.0 later"), withLogin, outcome.Retry, 454, "AUTH: 454"},
		{"500 to SCRAM", &standIn{auth: "PLAIN SCRAM-SHA-256", say: map[string]string{"AUTH SCRAM-SHA-256": "504 no"}}, withLogin, outcome.Auth, 504, "AUTH: 504"},
		{"a false SCRAM server", &standIn{auth: "SCRAM-SHA-1", say: map[string]string{"AUTH SCRAM-SHA-1": "334 cj1h"}}, withLogin, outcome.Auth, 0, "rules of the login"},
		{"530", says("MAIL", "530 5.7.0 log in first"), nil, outcome.Auth, 530, "log in first"},
		{"451", says("MAIL", "451 later"), nil, outcome.Retry, 451, "MAIL: 451 later"},
		{"550 to the sender", says("MAIL", "550 5.7.1 not from you"), nil, outcome.Permanent, 550, "not from you"},
		{"450 to all", says("RCPT", "450 greylisted"), nil, outcome.Retry, 450, "greylisted"},
		{"550 to all", says("RCPT", "550 unknown"), nil, outcome.Permanent, 550, "unknown"},
		{"421 in the middle", says("RCPT", "421 closing"), nil, outcome.Retry, 421, "closing"},
		{"451 to DATA", says("DATA", "451 later"), nil, outcome.Retry, 451, "later"},
		{"552", says("message", "552 too large"), nil, outcome.Permanent, 552, "too large"},
		{"554 spam", says("message", "554-no\r\n554 \x1b[31mspam"), nil, outcome.Permanent, 554, `\x1b[31mspam`},
		{"452 full", says("message", "452 full"), nil, outcome.Retry, 452, "full"},
		{"TLS unasked", &standIn{implicit: true}, nil, outcome.Retry, 0, ""},
		{"no TLS", &standIn{}, func(s *Settings) { s.TLS = implicit }, outcome.Retry, 0, "no TLS on this port"},
		{"another host's certificate", &standIn{}, func(s *Settings) { s.Host = "localhost" }, outcome.Retry, 0, "not for this host"},
	}
	for _, step := range []string{"greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "message"} {
		change := func(s *Settings) {
			withLogin(s)
			s.Timeout = time.Second
		}
		faults = append(faults, fault{"hangs at " + step, says(step, ""), change, outcome.Retry, 0, "no answer within 1s"},
			fault{"cut at " + step, says(step, "cut"), withLogin, outcome.Retry, 0, "connection closed"})
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.server.cert = cert
			if f.server.password == "" {
				f.server.password = integrationtest.Secret
			}
			var log bytes.Buffer
			m := newMailer(t, f.server.start(t), roots, slog.New(slog.NewTextHandler(&log, nil)), f.change)
			if f.name == "TLS unasked" {
				m.timeout = time.Second // both sides wait for the other's first word
			}
			_, err := m.SendIncident(t.Context(), opened())
			e := outcome.From(err)
			if e == nil || e.Class != f.want || e.Status != f.status || !strings.Contains(e.Reason, f.text) {
				t.Fatalf("got %+v, want %v with status %d and %q", e, f.want, f.status, f.text)
			}
			for _, told := range []string{err.Error(), log.String()} {
				for _, s := range []string{integrationtest.Secret, base64.StdEncoding.EncodeToString([]byte(integrationtest.Secret))[:20],
					base64.StdEncoding.EncodeToString([]byte("\x00apss\x00" + integrationtest.Secret))} {
					if strings.Contains(told, s) || strings.ContainsAny(err.Error(), "\n\r\x1b") {
						t.Errorf("it tells the password, or is not one line: %q", told)
					}
				}
			}
			if _, mails := f.server.seen(); len(mails) != 0 {
				t.Errorf("a message was accepted: %q", mails)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	_, err := newMailer(t, 1, nil, quiet, nil).Check(t.Context()) // tcpmux: nobody's
	if e := outcome.From(err); e == nil || e.Class != outcome.Retry || !strings.Contains(e.Reason, "connecting") {
		t.Errorf("a closed port: got %v", err)
	}
	cert, roots := certificate(t)
	server := &standIn{cert: cert}
	at := server.start(t)
	_, err = newMailer(t, at, x509.NewCertPool(), quiet, nil).Check(t.Context())
	if e := outcome.From(err); e == nil || e.Class != outcome.Retry || !strings.Contains(e.Reason, "authority is unknown") {
		t.Errorf("an unknown authority: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before, _ := server.seen()
	_, err = newMailer(t, at, roots, quiet, nil).Check(ctx)
	if e := outcome.From(err); e == nil || e.Class != outcome.Retry || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if after, _ := server.seen(); len(after) != len(before) {
		t.Errorf("cancelled: the server saw %q", after)
	}
}

// TestRecipients: those that are refused are named, the others get the message, and none gets it twice for it.
func TestRecipients(t *testing.T) {
	cert, roots := certificate(t)
	to := func(s *Settings) { s.To = []string{"a@example.com", "B <b@example.com>", "c@example.com"} }
	for _, c := range []struct {
		name  string
		say   map[string]string
		want  outcome.Class
		who   []string
		mails int
	}{
		{"all taken", nil, outcome.OK, nil, 1},
		{"one unknown", map[string]string{"RCPT <b@example.com>": "550 unknown"}, outcome.Partial, []string{"b@example.com"}, 1},
		{"one later", map[string]string{"RCPT <a@example.com>": "450 later"}, outcome.Partial, []string{"a@example.com"}, 1},
		{"one taken", map[string]string{"RCPT <a@example.com>": "450 later", "RCPT <c@example.com>": "550 unknown"}, outcome.Partial, []string{"a@example.com", "c@example.com"}, 1},
		{"all unknown", map[string]string{"RCPT": "550 unknown"}, outcome.Permanent, nil, 0},
		{"all refused, one for now", map[string]string{"RCPT <a@example.com>": "550 unknown", "RCPT <b@example.com>": "450 later", "RCPT <c@example.com>": "550 unknown"}, outcome.Retry, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := &standIn{cert: cert, say: c.say}
			var log bytes.Buffer
			m := newMailer(t, server.start(t), roots, slog.New(slog.NewTextHandler(&log, nil)), to)
			ref, err := m.SendIncident(t.Context(), opened())
			got := outcome.OK
			var who []string
			if e := outcome.From(err); e != nil {
				got = e.Class
				for _, r := range e.Rejected {
					who = append(who, r.ID)
					if !strings.Contains(e.Reason, r.ID) || !strings.Contains(log.String(), r.ID) {
						t.Errorf("%s is not named: %v, %s", r.ID, e, &log)
					}
				}
			}
			if got != c.want || ref == "" {
				t.Errorf("got %v and the reference %q, want %v", err, ref, c.want)
			}
			if diff := cmp.Diff(c.who, who); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
			if _, mails := server.seen(); len(mails) != c.mails {
				t.Errorf("got %d messages, want %d", len(mails), c.mails)
			}
		})
	}
}

// TestRotatedPassword: a password that was changed is read anew, once.
func TestRotatedPassword(t *testing.T) {
	cert, roots := certificate(t)
	server := &standIn{cert: cert, auth: "PLAIN", password: "the-new-one"}
	m := newMailer(t, server.start(t), roots, slog.New(slog.DiscardHandler), withLogin)
	m.password = &rotating{values: []string{"the-old-one", "the-new-one"}}
	if _, err := m.SendIncident(t.Context(), opened()); err != nil {
		t.Fatal(err)
	}
	if steps, mails := server.seen(); len(mails) != 1 || strings.Count(strings.Join(steps, " "), "AUTH PLAIN") != 2 {
		t.Errorf("got %q", steps)
	}
}

// rotating is a secret that changes when it is refreshed.
type rotating struct {
	values []string
	at     int
}

func (r *rotating) Get(context.Context) (secret.Value, error) { return secret.New(r.values[r.at]), nil }
func (r *rotating) Refresh()                                  { r.at = min(r.at+1, len(r.values)-1) }

// TestConcurrent: callers at the same time have each their own session.
func TestConcurrent(t *testing.T) {
	cert, roots := certificate(t)
	server := &standIn{cert: cert}
	m := newMailer(t, server.start(t), roots, slog.New(slog.DiscardHandler), nil)
	const callers = 8
	errs := make(chan error, callers)
	for range callers {
		go func() { _, err := m.SendIncident(t.Context(), opened()); errs <- err }()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, mails := server.seen(); len(mails) != callers {
		t.Errorf("got %d messages, want %d", len(mails), callers)
	}
}

func TestSettings(t *testing.T) {
	err := (&Settings{
		Host: "smtp.example.com:25", TLS: "maybe", Username: "apss\r\n", From: "nobody", Timeout: time.Hour,
		To: []string{"a@example.com\r\nBcc: b@example.com", "A@example.com", "a@example.com", "<>", "ü@example.com", `"a b"@example.com`, "\"x\r\ny\" <c@example.com>"},
	}).Validate()
	for _, want := range []string{"host: ", "tls: ", "username: it and password", "username: has a control", "from: ", "timeout: ",
		"a@example.com stands twice", `to: "a@example.com\r\nBcc`, `to: "<>"`, "xn--", `"\"a b\"`, `"\"x\r\ny\"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant it to say %q", err, want)
		}
	}
	if err := Kind().Settings().Validate(); err == nil || len(err.(interface{ Unwrap() []error }).Unwrap()) != 3 {
		t.Errorf("the defaults: got %v, want faults of host, from and to", err)
	}
	if err := valid(25, func(s *Settings) { withLogin(s); s.TLS = none }).Validate(); err == nil || !strings.Contains(err.Error(), "clear") {
		t.Errorf("a password in the clear: got %v", err)
	}
	if err := valid(0, func(s *Settings) { s.To = slices.Repeat([]string{"a@example.com"}, 101) }).Validate(); err == nil || !strings.Contains(err.Error(), "101 addresses") {
		t.Errorf("too many: got %v", err)
	}
	env := integration.Env{Meter: noop.Meter{}}
	if _, err := valid(0, func(s *Settings) { s.TLS = none }).New(env); err == nil {
		t.Error("tls: none is taken outside of local runs")
	}
	for way, want := range map[string]uint16{startTLS: 587, implicit: 465} {
		i, err := valid(0, func(s *Settings) { s.TLS = way }).New(env)
		if err != nil || i.(*mailer).port != want {
			t.Errorf("%s: got %v, %v, want port %d", way, i, err, want)
		}
	}
}

// FuzzAddress: what is taken for an address is one line that cannot end a command.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"a@b", "A <a@b.example>", "\"x\\\r\ny\" <a@b>", "a@b>\r\nRCPT TO:<c@d", "=?utf-8?q?=0d=0aBcc:_x?= <a@b>", "a@[127.0.0.1]", "(c\r\n c) a@b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(a.Address, "\r\n <>") || strings.ContainsAny(a.Name, "\r\n") || strings.Count(a.Address, "@") < 1 {
			t.Errorf("got %q <%q>", a.Name, a.Address)
		}
		b, err := mail.ParseAddress(a.String())
		if err != nil || b.Address != a.Address {
			t.Errorf("%s is read as %v, %v", a, b, err)
		}
		if fmt.Sprint(domain(a)) == "" {
			t.Errorf("%s has no domain", a)
		}
	})
}
