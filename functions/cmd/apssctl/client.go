package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/deadletter"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
)

// functions are the program's HTTP side.
type functions struct {
	base     *url.URL
	topics   map[string]*url.URL // where it is not base
	token    string
	identity string
	unset    string // what is to be said of an address that nobody gave
	client   *httpx.Client
}

// longest is how long an answer may take: a push's is the function's own timeout, 45 s unless it is set.
const longest = 2 * time.Minute

// maxReport is more than a report of a hundred integrations and a hundred silent agents.
const maxReport = 4 << 20

func (c *control) functions() (*functions, error) {
	f := &functions{
		topics: map[string]*url.URL{}, token: c.env("APSS_ADMIN_TOKEN"), identity: c.env("APSS_IDENTITY_TOKEN"),
		client: httpx.New(httpx.Options{Timeout: longest, MaxResponse: maxReport, UserAgent: "apssctl/" + version}),
	}
	for _, v := range []struct{ key, topic string }{{"APSS_URL", ""}, {"APSS_EVENTS_URL", "events"}, {"APSS_ALERTS_URL", "alerts"}} {
		text := c.env(v.key)
		if text == "" && v.topic == "" {
			text = "http://localhost:8080"
			f.unset = ", and is not set"
		}
		if text == "" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			return nil, fmt.Errorf("%s is no http or https URL of a host; %w", v.key, errUsage)
		}
		if v.topic == "" {
			f.base = u
		} else {
			f.topics[v.topic] = u
		}
	}
	return f, nil
}

// do makes a request and returns the answer, whatever its status.
func (f *functions) do(ctx context.Context, method string, base *url.URL, path, query string, body []byte) (*httpx.Response, error) {
	u := *base
	u.Path, u.RawQuery = strings.TrimSuffix(u.Path, "/")+path, query
	r, err := http.NewRequest(method, u.String(), bytes.NewReader(body)) //nolint:noctx // Do takes it
	if err != nil {
		return nil, fmt.Errorf("making a request to %s: %w", u.Host, err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if f.token != "" {
		r.Header.Set("Authorization", "Bearer "+f.token)
	}
	if f.identity != "" { // https://cloud.google.com/run/docs/authenticating/service-to-service
		r.Header.Set("X-Serverless-Authorization", "Bearer "+f.identity)
	}
	a, err := f.client.Do(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("the functions at %s cannot be reached (%s); APSS_URL says where they are%s", base.Host, outcome.From(err).Reason, f.unset)
	}
	return a, nil
}

// ask decodes the answer to a question about health into v, when its status is one of those that have one.
func (f *functions) ask(ctx context.Context, method, path, query string, v any, statuses ...int) error {
	a, err := f.do(ctx, method, f.base, path, query, nil)
	if err != nil {
		return err
	}
	for _, s := range statuses {
		if a.Status == s {
			if err := json.Unmarshal(a.Body, v); err != nil {
				return fmt.Errorf("the answer of %s%s is none of ours; is APSS_URL right? %w", f.base.Host, path, err)
			}
			return nil
		}
	}
	var refusal struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(a.Body, &refusal) // of somebody else, when there is none
	hint := ""
	switch a.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = "; set APSS_ADMIN_TOKEN to the functions' token, and on Cloud Run APSS_IDENTITY_TOKEN to $(gcloud auth print-identity-token)"
	case http.StatusNotFound:
		if refusal.Error == "" {
			hint = "; is APSS_URL that of the function Health?"
		}
	}
	return fmt.Errorf("%s answers HTTP %d: %s%s", f.base.Host, a.Status, cmp.Or(refusal.Error, "no reason given"), hint)
}

// push brings a letter's message to the integration that it was for, as Pub/Sub would, and returns nil when it is done
// with. The push's id is the letter's: the same one brought twice is known as one.
func (f *functions) push(ctx context.Context, k *deadletter.Kept) error {
	base := f.base
	if u := f.topics[k.Topic]; u != nil {
		base = u
	}
	body, err := json.Marshal(map[string]any{
		"subscription": k.Subscription,
		"message": map[string]any{
			"data": base64.StdEncoding.EncodeToString(k.Message.Data), "attributes": k.Message.Attributes, "messageId": "replay-" + k.ID,
			"publishTime": k.Time.UTC().Format(time.RFC3339Nano),
		},
	})
	if err != nil {
		return fmt.Errorf("encoding a push: %w", err)
	}
	if len(body) > envelope.MaxPush {
		return fmt.Errorf("the message is too large for a push: %d bytes", len(body))
	}
	a, err := f.do(ctx, http.MethodPost, base, "/"+k.Topic+"/"+url.PathEscape(k.Integration), "", body)
	if err != nil {
		return err
	}
	if a.Status < 200 || a.Status > 299 {
		return fmt.Errorf("HTTP %d: %s", a.Status, a.Excerpt(a.Body))
	}
	return nil
}
