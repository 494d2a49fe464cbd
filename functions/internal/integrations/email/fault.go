package email

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"syscall"

	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/outcome"
)

var (
	errNoStartTLS = errors.New("it does not offer STARTTLS, and nothing is sent in the clear; is it tls: implicit?")
	errTalkative  = fmt.Errorf("it says more than %d bytes", maxRead)
)

// Replies that mean more than their first digit.
const (
	statusClosing         = 421 // RFC 5321 section 4.2.2: the server ends the session
	statusAuthRequired    = 530 // RFC 4954 section 6
	statusAuthTooWeak     = 534
	statusAuthRefused     = 535
	statusAuthNeedsSecure = 538
)

// maxReply is how much of a reply is shown.
const maxReply = 300

// fault is what err, during a step of the session, comes to.
func (n *session) fault(during string, err error) *outcome.Error {
	e := &outcome.Error{Class: outcome.Retry, Reason: n.host + ": " + during + ": "}
	var reply *textproto.Error
	switch {
	case n.ctx.Err() != nil:
		e.Reason += "given up by the caller"
		e.Err = n.ctx.Err()
	case n.whole.Err() != nil:
		e.Reason += "no answer within " + n.timeout.String()
	case errors.As(err, &reply):
		e.Status = reply.Code
		e.Class = class(during, reply.Code)
		e.Reason += fmt.Sprint(reply.Code)
		if during != "AUTH" { // a reply to the login may repeat it
			e.Reason += " " + message.Line(reply.Msg, maxReply)
		}
	case during == "AUTH" && !isNetwork(err):
		e.Class = outcome.Auth
		e.Reason += "the server does not follow the rules of the login, or is not who it should be"
	default:
		e.Reason += why(err)
	}
	return e
}

// class is that of a reply. See the package's comment.
func class(during string, code int) outcome.Class {
	switch code {
	case statusAuthRequired, statusAuthTooWeak, statusAuthRefused, statusAuthNeedsSecure:
		return outcome.Auth
	}
	switch {
	case code < 500 || code > 599:
		return outcome.Retry
	case during == "AUTH":
		return outcome.Auth
	case during == "MAIL", during == "RCPT", during == "DATA", during == "the message":
		return outcome.Permanent
	}
	return outcome.Retry
}

func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errTalkative)
}

// why says what err is in words of our own: its text may hold anything that the server sent.
func why(err error) string {
	var (
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		host        x509.HostnameError
		unknown     x509.UnknownAuthorityError
		invalid     x509.CertificateInvalidError
		record      tls.RecordHeaderError
		protocol    textproto.ProtocolError
		network     net.Error
		errno       syscall.Errno
	)
	switch {
	case errors.Is(err, errNoStartTLS), errors.Is(err, errTalkative):
		return err.Error()
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "the name server did not answer"
	case errors.As(err, &host):
		return "certificate not accepted: it is not for this host"
	case errors.As(err, &unknown):
		return "certificate not accepted: its authority is unknown"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "certificate not accepted: it has expired or is not yet valid"
	case errors.As(err, &certificate):
		return "certificate not accepted: it is not valid"
	case errors.As(err, &record):
		return "no TLS on this port; is it tls: starttls?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &protocol):
		return "no valid SMTP reply"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection closed before the end"
	case errors.As(err, &network) && network.Timeout():
		return "timed out"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return "no valid SMTP session"
}
