// Package email tells people of incidents by SMTP.
//
// An incident is one thread: its first message has a Message-ID made from the fingerprint and the opening, which repeats
// and the end refer to. An id depends on what a message says, so that a message that is sent twice, because the answer
// to the first one was lost, is one message to servers and mail programs that look at it.
//
// The connection is encrypted before anything is said (tls: implicit) or before anything but EHLO (starttls); a server
// that does not offer that, or whose certificate is not right, gets neither password nor message. All recipients stand
// in one message. When the server refuses some of them the others get it: that is Partial, with the refused ones named,
// logged and counted, because to send it again would be to send it twice to the others. When it refuses all, nobody got
// it: 4yz of one of them is Retry, else Permanent.
//
// What replies come to (RFC 5321 section 4.2.1, RFC 4954 section 6): 4yz passes (Retry); 5yz refuses the message
// (Permanent), once there is one, that is from MAIL on; before that it speaks of the way (Retry); 530, 534, 535 and 538
// refuse the login (Auth).
package email

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/functions/internal/credential"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Kind is email. Servers bear more; a person does not.
func Kind() integration.Kind {
	return integration.Kind{
		Name:     "email",
		Settings: func() integration.Settings { return &Settings{TLS: startTLS, Timeout: 15 * time.Second} },
		Rate:     integration.Rate{PerMinute: 20, Burst: 10},
	}
}

// How a connection is encrypted.
const (
	startTLS = "starttls"
	implicit = "implicit"
	none     = "none"
)

// Settings are those of one list of recipients.
type Settings struct {
	Host     string             `yaml:"host"`
	Port     uint16             `yaml:"port"` // 587, or 465 for implicit TLS, 25 for none
	TLS      string             `yaml:"tls"`  // starttls, implicit; none in local runs
	Username string             `yaml:"username"`
	Password integration.Secret `yaml:"password"`
	From     string             `yaml:"from"` // APSS <apss@example.com>
	To       []string           `yaml:"to"`
	Timeout  time.Duration      `yaml:"timeout"` // of a message, with everything before it
}

// maxRecipients is what every server takes (RFC 5321 section 4.5.3.1.8).
const maxRecipients = 100

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// Validate implements [integration.Settings].
func (s *Settings) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !hostPattern.MatchString(s.Host) && net.ParseIP(s.Host) == nil {
		fault("host: %.60q is no name of a mail server; the port has its own key", s.Host)
	}
	if !slices.Contains([]string{startTLS, implicit, none}, s.TLS) {
		fault("tls: is %.60q, want starttls or implicit", s.TLS)
	}
	if (s.Username != "") != s.Password.Set() {
		fault("username: it and password belong together, and one of them is missing")
	}
	if s.TLS == none && s.Password.Set() {
		fault("password: would travel in the clear; want tls: starttls or implicit")
	}
	if strings.ContainsFunc(s.Username, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		fault("username: has a control character in it")
	}
	if _, err := parseAddress(s.From); err != nil {
		fault("from: %w", err)
	}
	if len(s.To) == 0 || len(s.To) > maxRecipients {
		fault("to: has %d addresses, want 1 to %d", len(s.To), maxRecipients)
	}
	seen := map[string]bool{}
	for _, text := range s.To {
		a, err := parseAddress(text)
		switch {
		case err != nil:
			fault("to: %w", err)
		case seen[strings.ToLower(a.Address)]:
			fault("to: %s stands twice", a.Address)
		default:
			seen[strings.ToLower(a.Address)] = true
		}
	}
	if s.Timeout < time.Second || s.Timeout > time.Minute {
		fault("timeout: is %v, want 1s to 1m", s.Timeout)
	}
	return errors.Join(errs...)
}

// Limits of an address (RFC 5321 section 4.5.3.1.3, without the brackets) and of the name before it.
const (
	maxAddress = 254
	maxName    = 100
)

// parseAddress reads "name <address>" or an address (RFC 5322 section 3.4). No part of it can end a line or a command.
func parseAddress(text string) (*mail.Address, error) {
	a, err := mail.ParseAddress(text)
	if err != nil {
		return nil, fmt.Errorf("%.60q is no address such as oncall@example.com or On call <oncall@example.com>", text)
	}
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	switch {
	case strings.ContainsFunc(a.Name, control) || len(a.Name) > maxName || len(a.Address) > maxAddress:
		return nil, fmt.Errorf("%.60q is too long or has a control character in it", text)
	case strings.ContainsFunc(a.Address, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`<>"`, r) }):
		return nil, fmt.Errorf("%.60q has characters that not every mail server takes; of a domain write the xn-- form", text)
	}
	return a, nil
}

// New implements [integration.Settings].
func (s *Settings) New(e integration.Env) (integration.Integration, error) {
	if s.TLS == none && !e.Local {
		return nil, errors.New("tls: none is for local runs: want starttls or implicit")
	}
	from, err := parseAddress(s.From)
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	to := make([]*mail.Address, 0, len(s.To))
	for _, text := range s.To {
		a, err := parseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("to: %w", err)
		}
		to = append(to, a)
	}
	refused, err := e.Meter.Int64Counter("apss.email.refused_recipients",
		metric.WithDescription("Recipients that the mail server refused of messages that others got."))
	if err != nil {
		return nil, err
	}
	port := s.Port
	if port == 0 {
		port = map[string]uint16{startTLS: 587, implicit: 465, none: 25}[s.TLS] // RFC 6409, RFC 8314, RFC 5321
	}
	return &mailer{
		server: server{
			host: s.Host, port: port, tls: s.TLS, username: s.Username, timeout: s.Timeout, hello: domain(from),
		},
		writer: newWriter(e.Name, from, to), password: s.Password.Source, log: e.Log, refused: refused,
	}, nil
}

func domain(a *mail.Address) string { return a.Address[strings.LastIndexByte(a.Address, '@')+1:] }

type mailer struct {
	server
	writer
	password secret.Source // nil: there is no login
	log      *slog.Logger
	refused  metric.Int64Counter
}

var (
	_ integration.Integration      = (*mailer)(nil)
	_ integration.IncidentNotifier = (*mailer)(nil)
)

// Check implements [integration.Integration]: everything up to a message, and then none.
func (m *mailer) Check(ctx context.Context) (integration.Status, error) {
	began := time.Now()
	err := m.connected(ctx, func(s *session) error { return s.noop() })
	if err != nil {
		return integration.Status{}, err
	}
	detail := "the mail server takes us"
	if m.password != nil {
		detail = "the mail server takes the login"
	}
	return integration.Status{Latency: time.Since(began), Detail: detail + "; whether it takes sender and recipients a test shows"}, nil
}

// SendIncident implements [integration.IncidentNotifier]. The reference is the Message-ID of the thread's first message.
func (m *mailer) SendIncident(ctx context.Context, i integration.Incident) (string, error) {
	thread := m.thread(i)
	return thread, m.send(ctx, func() ([]byte, error) { return m.incident(i, thread) })
}

// SendDigest implements [integration.IncidentNotifier].
func (m *mailer) SendDigest(ctx context.Context, d integration.Digest) error {
	return m.send(ctx, func() ([]byte, error) { return m.digest(d) })
}

func (m *mailer) send(ctx context.Context, write func() ([]byte, error)) error {
	text, err := write()
	if err != nil {
		return &outcome.Error{Class: outcome.Permanent, Reason: "writing the message", Err: err}
	}
	var rejected []outcome.Rejection
	err = m.connected(ctx, func(s *session) error {
		var err error
		rejected, err = s.deliver(m.from.Address, m.to, text)
		return err
	})
	if err != nil || len(rejected) == 0 {
		return err
	}
	names := make([]string, 0, len(rejected))
	for _, r := range rejected {
		names = append(names, r.ID)
		m.log.WarnContext(ctx, "the mail server refused a recipient; the others got the message", "recipient", r.ID, "reason", r.Reason)
	}
	m.refused.Add(ctx, int64(len(rejected)), metric.WithAttributes(attribute.String("integration", m.name)))
	return &outcome.Error{
		Class: outcome.Partial, Rejected: rejected,
		Reason: fmt.Sprintf("the mail server refused %d of %d recipients: %s", len(rejected), len(m.to), strings.Join(names, ", ")),
	}
}

// connected calls f in a session in which we are logged in where there is a login.
func (m *mailer) connected(ctx context.Context, f func(*session) error) error {
	if m.password == nil {
		return m.session(ctx, secret.Value{}, f)
	}
	_, err := credential.Use(ctx, m.password, "password", func(v secret.Value) (struct{}, error) {
		return struct{}{}, m.session(ctx, v, f)
	})
	return err
}
