// Package httpx is HTTP with limits: the only way out for every integration (timeouts, bounded reads, no redirects, no
// secrets in errors, status to outcome), and servers that drain.
package httpx

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Options are a client's limits. Zero values take the defaults named in New.
type Options struct {
	Timeout     time.Duration // whole exchange
	MaxResponse int64         // bytes of a response that are read
	UserAgent   string
	MaxConns    int // to one host
}

// Client sends requests. Safe for concurrent use.
type Client struct{}

// New returns a client: 10 s, 64 KiB, "apss", 100 connections unless o says otherwise.
func New(o Options) *Client { panic("unwritten") }

// Response is an answer, read whole within the limit.
type Response struct {
	Status    int
	Header    http.Header
	Body      []byte
	Truncated bool
	Elapsed   time.Duration
}

// Do sends req. An error is always an *outcome.Error (Retry: no answer; Permanent: the request can never be sent) and
// names the host, never path, query or user info of the URL.
func (c *Client) Do(ctx context.Context, req *http.Request) (*Response, error) { panic("unwritten") }

// Outcome maps r's status: 2xx nil; 401 403 Auth; 413 422 400 Split; 408 425 429 5xx Retry with After from Retry-After
// (seconds or date); redirects and the rest Permanent. Reason holds an excerpt of the body, one line, control
// characters escaped.
func (r *Response) Outcome() error { panic("unwritten") }

// Serve serves h on l with timeouts until ctx ends, then drains for at most grace. It returns nil after a clean drain.
func Serve(ctx context.Context, l net.Listener, h http.Handler, grace time.Duration) error {
	panic("unwritten")
}
