package email

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"

	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// server is where mail is handed over.
type server struct {
	host     string
	port     uint16
	tls      string
	username string
	hello    string // our name in EHLO: the sender's domain, since a function has no name of its own
	timeout  time.Duration
	roots    *x509.CertPool // nil: the system's
}

// maxRead is how many bytes a server may send in a session: its certificates and some replies.
const maxRead = 1 << 20

// bounded is a connection that reads so much and no more.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTalkative
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// session is one connection. Its methods' errors are those of [session.fault].
type session struct {
	*smtp.Client
	server
	//nolint:containedctx // a session lives as long as one call; whole is ctx with the time limit
	ctx, whole context.Context
}

// session connects, encrypts, logs in where there is a password, calls f, and ends the connection.
func (s server) session(ctx context.Context, password secret.Value, f func(*session) error) error {
	whole, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	n := &session{nil, s, ctx, whole}
	raw, err := new(net.Dialer).DialContext(whole, "tcp", net.JoinHostPort(s.host, strconv.Itoa(int(s.port))))
	if err != nil {
		return n.fault("connecting", err)
	}
	defer raw.Close()
	defer context.AfterFunc(whole, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })() // ends a read or write that waits
	if err := n.open(&bounded{raw, maxRead}); err != nil {
		return err
	}
	if !password.Empty() {
		if err := n.login(password.Reveal()); err != nil {
			return err
		}
	}
	if err := f(n); err != nil {
		return err
	}
	_ = n.Quit() // everything was accepted: what comes afterwards changes nothing
	return nil
}

// open makes the connection one that a message may be sent on.
func (n *session) open(conn net.Conn) (err error) {
	settings := &tls.Config{ServerName: n.host, MinVersion: tls.VersionTLS12, RootCAs: n.roots}
	if n.tls == implicit {
		secured := tls.Client(conn, settings)
		if err := secured.HandshakeContext(n.whole); err != nil {
			return n.fault("the TLS handshake", err)
		}
		conn = secured
	}
	if n.Client, err = smtp.NewClient(conn, n.host); err != nil {
		return n.fault("the greeting", err)
	}
	if err := n.Hello(n.hello); err != nil {
		return n.fault("EHLO", err)
	}
	if n.tls != startTLS {
		return nil
	}
	if ok, _ := n.Extension("STARTTLS"); !ok {
		return n.fault("EHLO", errNoStartTLS)
	}
	if err := n.StartTLS(settings); err != nil {
		return n.fault("STARTTLS", err)
	}
	return nil
}

// login logs in by the best way that the server offers and that needs nothing but a password.
func (n *session) login(password string) error {
	_, offered := n.Extension("AUTH")
	ways := strings.Fields(strings.ToUpper(offered))
	var way smtp.Auth
	switch has := func(name string) bool { return slices.Contains(ways, name) }; {
	case has("SCRAM-SHA-256"):
		way = smtp.ScramSHA256Auth(n.username, password)
	case has("SCRAM-SHA-1"):
		way = smtp.ScramSHA1Auth(n.username, password)
	case has("PLAIN"):
		way = smtp.PlainAuth("", n.username, password, n.host, false)
	case has("LOGIN"):
		way = smtp.LoginAuth(n.username, password, n.host, false)
	default:
		return &outcome.Error{Class: outcome.Auth, Reason: fmt.Sprintf("%s: it offers no login by password here: %.100q", n.host, offered)}
	}
	if err := n.Auth(way); err != nil {
		return n.fault("AUTH", err)
	}
	return nil
}

func (n *session) noop() error {
	if err := n.Noop(); err != nil {
		return n.fault("NOOP", err)
	}
	return nil
}

// deliver hands over a message for all of to. It returns those that the server refused while it took the others.
func (n *session) deliver(from string, to []*mail.Address, text []byte) (rejected []outcome.Rejection, err error) {
	if err := n.Mail("<" + from + ">"); err != nil {
		return nil, n.fault("MAIL", err)
	}
	var first, passing *outcome.Error // of those refused
	for _, a := range to {
		err := n.Rcpt("<" + a.Address + ">")
		if err == nil {
			continue
		}
		e := n.fault("RCPT", err)
		if e.Status == 0 || e.Status == statusClosing || e.Class == outcome.Auth { // this is about the session
			return nil, e
		}
		if first == nil {
			first = e
		}
		if passing == nil && e.Class == outcome.Retry {
			passing = e
		}
		rejected = append(rejected, outcome.Rejection{ID: a.Address, Reason: e.Reason})
	}
	if len(rejected) == len(to) {
		if passing != nil {
			first = passing
		}
		return nil, first
	}
	w, err := n.Data()
	if err != nil {
		return nil, n.fault("DATA", err)
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, n.fault("the message", err)
	}
	return rejected, nil
}
