package httpx

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/propagation"
)

// Options are a client's limits. Zero values take the defaults named in New.
type Options struct {
	Timeout     time.Duration // whole exchange
	MaxResponse int64         // bytes of a response that are read
	UserAgent   string
	MaxConns    int         // to one host
	TLS         *tls.Config // nil trusts the system's authorities
	// PublicOnly refuses addresses that are not of the public internet, for URLs that come from where our networks are
	// not meant. It looks at the address of each connection that is made, not at the name: a name whose address changes
	// does not get around it. No proxy is used: it would make the connection, to an address that we do not see.
	PublicOnly bool
	// Dialer opens the connections; its Control is ours where PublicOnly is set. Nil: one with Timeout.
	Dialer *net.Dialer
}

const (
	maxHeader = 64 << 10 // bytes of a response's header; net/http would take 10 MiB
	idleTime  = 90 * time.Second
	// What is left of an answer beyond MaxResponse is read so far and so long, because a connection read to its end is
	// used again and any other has to be closed.
	maxDrain  = 64 << 10
	drainTime = 100 * time.Millisecond
)

// Client sends requests. Safe for concurrent use. It has a pool of HTTP/1.1 connections of its own: of HTTP/2 one lost
// packet would stall every request to a receiver.
type Client struct {
	options   Options
	transport *http.Transport
}

// New returns a client: 10 s, 64 KiB, "apss", 100 connections unless o says otherwise. It honours HTTPS_PROXY,
// HTTP_PROXY and NO_PROXY, but for a PublicOnly one.
func New(o Options) *Client {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.MaxResponse = cmp.Or(o.MaxResponse, 64<<10)
	o.UserAgent = cmp.Or(o.UserAgent, "apss")
	o.MaxConns = cmp.Or(o.MaxConns, 100)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer, proxy := net.Dialer{Timeout: o.Timeout}, http.ProxyFromEnvironment
	if o.Dialer != nil {
		dialer = *o.Dialer
	}
	if o.PublicOnly {
		dialer.Control, proxy = onlyPublic, nil
	}
	return &Client{o, &http.Transport{
		Proxy:                  proxy,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        o.TLS,
		TLSHandshakeTimeout:    o.Timeout,
		MaxConnsPerHost:        o.MaxConns,
		MaxIdleConnsPerHost:    o.MaxConns,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
		Protocols:              protocols,
	}}
}

// Close closes the connections that are idle.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Do sends req. An error is always an *outcome.Error (Retry: no answer; Permanent: the request can never be sent) and
// names the host, never path, query or user info of the URL.
//
// Only ctx ends the exchange, not a context in req; when ctx did, the error wraps its error. An answer of any status,
// redirects included, is a Response; one that ends in the midst of its body is none. User info in the URL becomes basic
// authentication. The exchange is a span when ctx has one, and ctx's trace context is sent.
func (c *Client) Do(ctx context.Context, req *http.Request) (*Response, error) {
	if why := unsendable(req); why != "" {
		if req.Body != nil {
			_ = req.Body.Close() // as http.RoundTripper would
		}
		return nil, permanent(req, why)
	}
	begin := time.Now()
	whole, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	whole, span := startSpan(whole, req)
	out := c.prepare(whole, req)

	answer, err := c.transport.RoundTrip(out)
	if err != nil {
		err := c.noAnswer(ctx, whole, req, err)
		endSpan(span, 0, err)
		return nil, err
	}
	r := &Response{Status: answer.StatusCode, Header: answer.Header, request: out}
	r.Body, r.Truncated, err = c.read(answer, cancel)
	if err != nil {
		err := c.cutShort(ctx, whole, req)
		endSpan(span, r.Status, err)
		return nil, err
	}
	r.Elapsed = time.Since(begin)
	endSpan(span, r.Status, nil)
	r.note(ctx)
	return r, nil
}

// prepare returns the request as it goes out; req stays as it is.
func (c *Client) prepare(ctx context.Context, req *http.Request) *http.Request {
	out := req.WithContext(ctx)
	if out.Header = req.Header.Clone(); out.Header == nil {
		out.Header = make(http.Header)
	}
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", c.options.UserAgent)
	}
	if user := out.URL.User; user != nil && out.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		out.SetBasicAuth(user.Username(), password)
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(out.Header))
	return out
}

// read reads the body within the limit, and drains what is left where that is cheap.
func (c *Client) read(answer *http.Response, cancel context.CancelFunc) (body []byte, truncated bool, err error) {
	defer answer.Body.Close()
	limit := c.options.MaxResponse
	body, err = io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil || int64(len(body)) <= limit {
		return body, false, err
	}
	if answer.ContentLength <= limit+maxDrain {
		defer time.AfterFunc(drainTime, cancel).Stop()
		_, _ = io.CopyN(io.Discard, answer.Body, maxDrain)
	}
	return body[:limit], true, nil
}
