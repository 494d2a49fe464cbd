// Package jsonapi speaks to receivers that take one message a call, as JSON.
//
// What a status comes to there: 400, 413 and 422 refuse the message (Permanent: there is nothing to split). 401, 403, 404
// and 410 refuse the credential, or say that what it belongs to is gone: the webhook, the channel, the service (Auth, so
// that health turns red and the next message waits for a new credential). 408, 425, 429 and 5xx pass (Retry). Every other
// answer, redirects included, speaks of the way to the receiver, and no alert is given up for that (Retry).
package jsonapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Encode is v as JSON, with <, > and & as they are: receivers count what they are sent.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, &outcome.Error{Class: outcome.Permanent, Reason: "encoding the message", Err: err}
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Do sends body, nil for none, to url. A bearer token that is not empty goes into the header. The error is that of the
// exchange; what the answer means is asked of [Outcome].
func Do(ctx context.Context, c *httpx.Client, method, url string, bearer secret.Value, body []byte) (*httpx.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil { // it quotes the URL, which may be the secret
		return nil, &outcome.Error{Class: outcome.Auth, Reason: "the URL is not valid"}
	}
	if body == nil {
		r.Body, r.GetBody = http.NoBody, nil
	} else {
		// Slack takes JSON only with the character set named (docs.slack.dev/apis/web-api#posting_json).
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if !bearer.Empty() {
		r.Header.Set("Authorization", "Bearer "+bearer.Reveal())
	}
	return c.Do(ctx, r)
}

// Outcome is what an answer comes to, nil for 2xx. hide is as in [httpx.Response.Outcome].
func Outcome(answer *httpx.Response, hide ...secret.Value) error {
	err := answer.Outcome(hide...)
	if err == nil {
		return nil
	}
	e := outcome.From(err)
	switch {
	case answer.Status == http.StatusNotFound, answer.Status == http.StatusGone:
		e.Class = outcome.Auth
	case e.Class == outcome.Split:
		e.Class = outcome.Permanent
	}
	return e
}

// Vague is the outcome of a 2xx without the receiver's own word for having accepted: any proxy on the way could have sent
// it.
func Vague(answer *httpx.Response, receiver string, hide ...secret.Value) error {
	return &outcome.Error{
		Class: outcome.Retry, Status: answer.Status,
		Reason: "a success that is not an answer of " + receiver + ": " + answer.Excerpt(answer.Body, hide...),
	}
}
