// Package webhook hands alerts, and events where that is asked for, to any HTTP endpoint by the rules of Standard
// Webhooks (github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
//
// A message is signed: webhook-id is the alert's id, the same in every try; webhook-timestamp is that of the try;
// webhook-signature is the HMAC-SHA256 of "id.timestamp.body" with each secret that is set, so that a receiver may change
// from one to the next at any time between. Its body is {"type","timestamp","data"}, or what a template makes of the alert.
//
// What answers come to is what a status usually means (see [httpx.Response.Outcome]), but for three. 410 is to switch the
// webhook off by the specification, and 404 says that it is not there: both are Auth, so that health turns red, the alerts
// wait and are tried slowly with the URL read anew, and none is given up. 409 refuses the message (Permanent).
//
// A URL may be anybody's, so redirects are not followed, and addresses that are not public are not connected to unless
// allow_private says so (see [httpx.Options], PublicOnly, also of names that change their address, and of proxies).
package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/credential"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// client is a webhook that takes alerts.
type client struct {
	http        *httpx.Client
	secrets     []credential.Named // the URL, then keys, then the values of names
	keys        int
	names       []string          // of secret headers
	headers     map[string]string // others
	allowHTTP   bool
	body        *bodyTemplate // nil: the envelope
	contentType string
	maxBody     int
	now         func() time.Time
}

// sink is a webhook that takes events, too.
type sink struct{ *client }

var (
	_ integration.Notifier  = (*client)(nil)
	_ integration.Notifier  = sink{}
	_ integration.EventSink = sink{}
)

// New implements [integration.Settings].
func (s *Settings) New(e integration.Env) (integration.Integration, error) {
	c := &client{
		http: httpx.New(httpx.Options{
			Timeout: s.Timeout, MaxConns: e.MaxConns, UserAgent: "apss-functions/" + e.Version, PublicOnly: !s.AllowPrivate && !e.Local,
		}),
		secrets: []credential.Named{{Name: "url", Source: s.URL}}, headers: s.Headers, allowHTTP: s.AllowPrivate || e.Local,
		contentType: s.ContentType, maxBody: s.MaxBody, now: time.Now,
	}
	for _, k := range []credential.Named{{Name: "secret", Source: s.Secret.Source}, {Name: "previous_secret", Source: s.PreviousSecret.Source}} {
		if k.Source != nil {
			c.secrets = append(c.secrets, k)
			c.keys++
		}
	}
	c.names = slices.Sorted(maps.Keys(s.SecretHeaders))
	for _, name := range c.names {
		c.secrets = append(c.secrets, credential.Named{Name: "header " + name, Source: s.SecretHeaders[name]})
	}
	if s.Body != "" {
		var err error
		if c.body, err = newTemplate(s.Body, s.ContentType); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	}
	if s.Events {
		return sink{c}, nil
	}
	return c, nil
}

// Check implements [integration.Integration]. It asks with OPTIONS, the one method that must have no effect and needs
// no resource (RFC 9110 section 9.3.7), signed like a message. Receivers seldom know it: whatever they say, but for
// trouble and for a refusal of the credentials, shows that name, address, TLS and server are there. More only a message
// could show.
func (c *client) Check(ctx context.Context) (integration.Status, error) {
	answer, err := c.call(ctx, http.MethodOptions, "check", nil, func(answer *httpx.Response) error {
		switch s := answer.Status; {
		case s == http.StatusUnauthorized, s == http.StatusRequestTimeout, s == http.StatusGone, s == http.StatusTooEarly,
			s == http.StatusTooManyRequests, s == http.StatusProxyAuthRequired, s >= 500 && s != http.StatusNotImplemented, s < 400:
			return understand(answer)
		}
		return nil
	})
	if err != nil {
		return integration.Status{}, err
	}
	return integration.Status{
		Latency: answer.Elapsed,
		Detail:  fmt.Sprintf("the receiver is there: it answers OPTIONS with %d; whether it takes alerts a test shows", answer.Status),
	}, nil
}

// SendAlert implements [integration.Notifier].
func (c *client) SendAlert(ctx context.Context, a *event.Alert) error {
	data := a.AppendJSON(nil)
	body, err := c.alertBody(a, data)
	if err != nil {
		return err
	}
	return c.send(ctx, messageID(a.ID, data), body)
}

// SendEvents implements [integration.EventSink]. The id is made from those of the events, which a receiver tells repeats
// by: a batch may be cut differently when it comes again.
func (s sink) SendEvents(ctx context.Context, events []event.Raw) error {
	body := eventsBody(events, s.now())
	if len(body) > s.maxBody {
		return &outcome.Error{
			Class: outcome.Split, Status: http.StatusRequestEntityTooLarge,
			Reason: fmt.Sprintf("%d events have %d bytes, max_body is %d", len(events), len(body), s.maxBody),
		}
	}
	h := sha256.New()
	for _, e := range events {
		id, err := e.ID()
		if err != nil {
			h.Write(e)
		}
		fmt.Fprintf(h, "%s\x00", id)
	}
	return s.send(ctx, "events_"+hex.EncodeToString(h.Sum(nil)[:16]), body)
}

func (c *client) send(ctx context.Context, id string, body []byte) error {
	_, err := c.call(ctx, http.MethodPost, id, body, understand)
	return err
}

// understand is what the answer to a message comes to.
func understand(answer *httpx.Response) error {
	e := outcome.From(answer.Outcome())
	if e == nil {
		return nil
	}
	switch e.Status {
	case http.StatusNotFound:
		e.Class = outcome.Auth
	case http.StatusGone:
		e.Class = outcome.Auth
		e.Reason += " (the receiver has switched this webhook off: give it a new url, or enabled: false)"
	case http.StatusConflict: // another message with this id is there: a try of ours whose answer was lost, or it never will be taken
		e.Class = outcome.Permanent
	}
	return e
}

// call sends body, signed now, and what the secrets are for.
func (c *client) call(ctx context.Context, method, id string, body []byte, judge func(*httpx.Response) error) (*httpx.Response, error) {
	return credential.All(ctx, c.secrets, func(values []secret.Value) (*httpx.Response, error) {
		request, err := c.request(ctx, method, id, body, values)
		if err != nil {
			return nil, err
		}
		answer, err := c.http.Do(ctx, request)
		if err != nil {
			return nil, err
		}
		return answer, judge(answer)
	})
}

// request is one try, with the values of c.secrets. What is wrong with these is Auth: it heals with the next value.
func (c *client) request(ctx context.Context, method, id string, body []byte, values []secret.Value) (*http.Request, error) {
	target, err := address(values[0], c.allowHTTP)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil { // it quotes the URL
		return nil, &outcome.Error{Class: outcome.Auth, Reason: "url is not valid"}
	}
	for name, value := range c.headers {
		r.Header.Set(name, value)
	}
	for i, name := range c.names {
		value := values[1+c.keys+i].Reveal()
		if !headerValue(value) {
			return nil, &outcome.Error{Class: outcome.Auth, Reason: "the secret of the header " + name + " has a character in it that no header may have"}
		}
		r.Header.Set(name, value)
	}
	if body == nil {
		r.Body, r.GetBody = http.NoBody, nil
	} else {
		r.Header.Set("Content-Type", c.contentType)
	}
	return r, sign(r.Header, id, c.now(), body, values[1:1+c.keys])
}

// address is the URL, when it may be called. The error does not quote it.
func address(v secret.Value, allowHTTP bool) (string, error) {
	fault := func(why string) (string, error) { return "", &outcome.Error{Class: outcome.Auth, Reason: "url " + why} }
	u, err := url.Parse(v.Reveal())
	switch {
	case err != nil, u.Hostname() == "", u.Scheme != "https" && u.Scheme != "http":
		return fault("is no address such as https://example.com/hook")
	case u.Scheme == "http" && !allowHTTP:
		return fault("must be https: alerts would travel in the clear (allow_private: true allows http, too)")
	case u.User != nil:
		return fault("has a user in it: write it as secret_headers: {Authorization: ...}")
	}
	return u.String(), nil
}

// idPattern is of ids that may stand in a header and, having no dot, before one in what is signed.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// messageID is id, or a digest where it is unfit, or where there is none.
func messageID(id string, data []byte) string {
	if idPattern.MatchString(id) {
		return id
	}
	if id != "" {
		data = []byte(id)
	}
	sum := sha256.Sum256(data)
	return "alert_" + hex.EncodeToString(sum[:16])
}

// headerValue reports whether s may be a header's value (RFC 9110 section 5.5, without what is obsolete).
func headerValue(s string) bool {
	return s == strings.TrimSpace(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r > '~' })
}
