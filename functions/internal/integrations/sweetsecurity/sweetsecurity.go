// Package sweetsecurity delivers events and alerts to Sweet Security.
//
// The API: POST /api/v1/events/batch {"events":[...]}, POST /api/v1/alerts with one alert, GET /health, Authorization:
// Bearer <key>, Idempotency-Key made from the ids of what is sent in their order. Events are passed on byte for byte.
//
// What answers come to: any 2xx accepts, but for the ids its body rejects (Partial; of an alert Permanent). 400, 413 and
// 422 speak of the content (Split). 401 and 403 refuse the key: it is read anew once, and when it changed the call is repeated
// at once; else Auth. Every other answer is Retry: 404, a redirect and their like speak of the endpoint, and events must
// not be given up for a wrong setting.
package sweetsecurity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/apss-sensor/apss/functions/internal/credential"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// maxAnswer holds a rejection with a reason of 200 bytes for each of 4,000 events.
const maxAnswer = 1 << 20

// Config says where Sweet Security is.
type Config struct {
	Endpoint  string        // base URL; https, or http to a loopback address
	AllowHTTP bool          // http to any address
	APIKey    secret.Source // read anew for each call
	Timeout   time.Duration // of one call
	MaxConns  int
	UserAgent string
	Log       *slog.Logger
	Meter     metric.Meter
}

// Client is the integration. Safe for concurrent use.
type Client struct {
	batch, alerts, health string
	key                   secret.Source
	http                  *httpx.Client
	log                   *slog.Logger
	unreadable            metric.Int64Counter
}

var (
	_ integration.Integration = (*Client)(nil)
	_ integration.EventSink   = (*Client)(nil)
	_ integration.Notifier    = (*Client)(nil)
)

// New returns a client, or what is wrong with c.
func New(c Config) (*Client, error) {
	base, err := parseEndpoint(c.Endpoint, c.AllowHTTP)
	if err != nil {
		return nil, err
	}
	unreadable, err := c.Meter.Int64Counter("apss.sweetsecurity.unreadable_answers",
		metric.WithDescription("Accepting answers of Sweet Security whose body could not be read; what was sent counts as accepted."))
	if err != nil {
		return nil, err
	}
	return &Client{
		batch:      base + "/api/v1/events/batch",
		alerts:     base + "/api/v1/alerts",
		health:     base + "/health",
		key:        c.APIKey,
		http:       httpx.New(httpx.Options{Timeout: c.Timeout, MaxResponse: maxAnswer, UserAgent: c.UserAgent, MaxConns: c.MaxConns}),
		log:        c.Log,
		unreadable: unreadable,
	}, nil
}

// parseEndpoint returns the endpoint without a slash at its end. Its errors do not hold the endpoint: people put keys
// into URLs.
func parseEndpoint(endpoint string, allowHTTP bool) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" {
		return "", errors.New("the endpoint is not a URL such as https://api.example.com")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("the endpoint must not have user info, a query or a fragment")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && (allowHTTP || loopback(u.Hostname())):
	case u.Scheme == "http":
		return "", fmt.Errorf("the endpoint on %s must be https: the API key would travel in the clear", u.Hostname())
	default:
		return "", fmt.Errorf("the endpoint's scheme is %q, want https", u.Scheme)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Check implements [integration.Integration].
func (c *Client) Check(ctx context.Context) (integration.Status, error) {
	return credential.Use(ctx, c.key, keyName, func(key secret.Value) (integration.Status, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.health, nil)
		if err != nil {
			return integration.Status{}, unmade(err)
		}
		answer, err := c.send(ctx, request, key)
		if err != nil {
			return integration.Status{}, err
		}
		return integration.Status{Latency: answer.Elapsed}, nil
	})
}

// SendEvents implements [integration.EventSink].
func (c *Client) SendEvents(ctx context.Context, events []event.Raw) error {
	open := func() io.Reader { return &body{events: events} }
	return c.post(ctx, c.batch, open, bodyLen(events), idempotencyKey(events), func(answer *httpx.Response) error {
		rejected := c.rejected(ctx, answer)
		if len(rejected) == 0 {
			return nil
		}
		return &outcome.Error{
			Class: outcome.Partial, Status: answer.Status, Rejected: rejected,
			Reason: fmt.Sprintf("%d of %d events rejected", len(rejected), len(events)),
		}
	})
}

// SendAlert implements [integration.Notifier].
func (c *Client) SendAlert(ctx context.Context, a *event.Alert) error {
	data := a.AppendJSON(nil)
	open := func() io.Reader { return bytes.NewReader(data) }
	return c.post(ctx, c.alerts, open, int64(len(data)), idempotencyKey([]event.Raw{data}), func(answer *httpx.Response) error {
		for _, r := range c.rejected(ctx, answer) {
			if r.ID == a.ID {
				return &outcome.Error{Class: outcome.Permanent, Status: answer.Status, Reason: "rejected: " + r.Reason}
			}
		}
		return nil
	})
}

// keyName is what errors call the credential.
const keyName = "API key"

// post sends what open reads, size bytes of JSON, and returns what judge makes of an accepting answer.
func (c *Client) post(ctx context.Context, url string, open func() io.Reader, size int64, idempotency string, judge func(*httpx.Response) error) error {
	_, err := credential.Use(ctx, c.key, keyName, func(key secret.Value) (struct{}, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, open())
		if err != nil {
			return struct{}{}, unmade(err)
		}
		r.ContentLength = size
		// Lets the transport repeat a request on another connection when the idle one it took was closed meanwhile.
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(open()), nil }
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", idempotency)
		answer, err := c.send(ctx, r, key)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, judge(answer)
	})
	return err
}

// rejected is what an accepting answer does not accept, with reasons that may be shown: they are logged, and end in dead
// letters.
func (c *Client) rejected(ctx context.Context, answer *httpx.Response) []outcome.Rejection {
	rejected, err := rejections(answer.Body)
	if err != nil {
		c.unreadable.Add(ctx, 1)
		c.log.WarnContext(ctx, "Sweet Security accepted with an answer that cannot be read; what was sent counts as accepted",
			"status", answer.Status, "bytes", len(answer.Body), "truncated", answer.Truncated)
	}
	for i := range rejected {
		rejected[i].Reason = answer.Excerpt([]byte(rejected[i].Reason))
	}
	return rejected
}

func unmade(err error) error {
	return &outcome.Error{Class: outcome.Retry, Reason: "making the request", Err: err}
}

// send sends request with key. An answer comes without an error when it accepts.
func (c *Client) send(ctx context.Context, request *http.Request, key secret.Value) (*httpx.Response, error) {
	request.Header.Set("Authorization", "Bearer "+key.Reveal())
	answer, err := c.http.Do(ctx, request)
	if err != nil {
		return nil, err
	}
	return answer, answer.Outcome()
}

// idempotencyKey depends on the ids in their order: 32 hex digits. An event without an id stands for itself.
func idempotencyKey(events []event.Raw) string {
	h := sha256.New()
	var room [64]byte
	for _, e := range events {
		id, err := e.ID()
		if err != nil {
			h.Write(e)
		}
		h.Write(append(append(room[:0], id...), 0))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
