package httpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/apss-sensor/apss/shared/outcome"
)

// unsendable says why req can never be sent, or "". Net/http finds the same faults, but tells them from trouble that
// passes by text only.
func unsendable(req *http.Request) string {
	switch {
	case req.URL == nil:
		return "the request has no URL"
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return "the URL does not start with https:// or http://"
	case req.URL.Hostname() == "":
		return "the URL names no host"
	case !isToken(method(req)):
		return "the method is no word"
	}
	if port := req.URL.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "the URL's port is none from 1 to 65535"
		}
	}
	for name, values := range req.Header {
		if !isToken(name) {
			return "a header has no valid name"
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return "the value of the header " + name + " has a control character in it; does a secret end with a line end?"
			}
		}
	}
	return ""
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

func method(req *http.Request) string { return cmp.Or(req.Method, http.MethodGet) }

func permanent(req *http.Request, why string) *outcome.Error {
	if req.URL != nil && req.URL.Host != "" {
		why = req.URL.Host + ": " + why
	}
	return &outcome.Error{Class: outcome.Permanent, Reason: why}
}

func (c *Client) retry(ctx, whole context.Context, req *http.Request, why string) *outcome.Error {
	e := &outcome.Error{Class: outcome.Retry, Reason: method(req) + " " + req.URL.Host + ": "}
	switch {
	case ctx.Err() != nil:
		e.Reason += "given up by the caller"
		e.Err = ctx.Err()
	case whole.Err() != nil:
		e.Reason += "no whole answer within " + c.options.Timeout.String()
	default:
		e.Reason += why
	}
	return e
}

// cutShort is the outcome of an answer that broke off.
func (c *Client) cutShort(ctx, whole context.Context, req *http.Request) *outcome.Error {
	return c.retry(ctx, whole, req, "answer cut short")
}

// noAnswer is the outcome of a round trip that came to err.
func (c *Client) noAnswer(ctx, whole context.Context, req *http.Request, err error) *outcome.Error {
	return c.retry(ctx, whole, req, why(err))
}

// why says what err is without its text, which may hold the URL, the proxy's password or bytes of the answer; a
// certificate's fault names hosts only.
func why(err error) string {
	var (
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		alert       tls.AlertError
		record      tls.RecordHeaderError
		errno       syscall.Errno
		timeout     net.Error
		op          *net.OpError
		private     notPublicError
	)
	switch {
	case errors.As(err, &private):
		return private.Error()
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "proxy: " + why(op.Err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "the name server did not answer"
	case errors.As(err, &certificate):
		return "certificate not accepted: " + certificateFault(certificate.Err)
	case errors.As(err, &alert):
		return "TLS handshake refused: " + alert.Error()
	case errors.As(err, &record):
		return "no TLS on this port"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection closed before an answer"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "connecting timed out"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return "no valid HTTP answer"
}

func certificateFault(err error) string {
	var (
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &host):
		return "it is not for this host"
	case errors.As(err, &unknown):
		return "its authority is unknown"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired or is not yet valid"
	}
	return "it is not valid"
}
