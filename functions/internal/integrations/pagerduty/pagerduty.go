// Package pagerduty opens, updates and resolves alerts of a PagerDuty service by the Events API v2.
//
// An incident is one PagerDuty alert: its fingerprint is the dedup_key, so a repeat is a trigger with the same key, and
// the end is a resolve. Sending the same change twice changes nothing, which is why whatever is not PagerDuty's own word
// for having taken it is sent again.
//
// The check is a resolve of a key that nobody triggers: it is documented to be dropped without an effect
// (developer.pagerduty.com/docs/send-alert-event, Alert De-Duplication), and PagerDuty refuses a routing key that it does
// not know with 400. Go-pagerduty knows one region only; these are plain calls.
package pagerduty

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/apss-sensor/apss/functions/internal/credential"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/jsonapi"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Kind is PagerDuty. Its staff speak of 120 events a minute and integration key (community.pagerduty.com/forum/t/
// monitoring-api-rate-limiting/3318); the documents say that the limit moves (developer.pagerduty.com/docs/events-api-v2-overview).
func Kind() integration.Kind {
	return integration.Kind{
		Name:     "pagerduty",
		Settings: func() integration.Settings { return &settings{Region: "us"} },
		Rate:     integration.Rate{PerMinute: 120, Burst: 20},
	}
}

// settings are those of one service.
type settings struct {
	RoutingKey integration.Secret `yaml:"routing_key"` // the integration key of "Events API v2"
	Region     string             `yaml:"region"`      // of the account: us, eu
	// APIURL is the base of a stand-in for PagerDuty, for local runs only.
	APIURL string `yaml:"api_url"`
}

// bases of the API by region (support.pagerduty.com/docs/service-regions).
func bases() map[string]string {
	return map[string]string{"us": "https://events.pagerduty.com", "eu": "https://events.eu.pagerduty.com"}
}

// Validate implements [integration.Settings].
func (s *settings) Validate() error {
	var errs []error
	if !s.RoutingKey.Set() {
		errs = append(errs, errors.New("routing_key: is required: the integration key of a service's Events API v2 integration"))
	}
	if bases()[s.Region] == "" {
		errs = append(errs, fmt.Errorf("region: %.40q is none of us, eu", s.Region))
	}
	return errors.Join(errs...)
}

// New implements [integration.Settings].
func (s *settings) New(e integration.Env) (integration.Integration, error) {
	base := bases()[s.Region]
	if s.APIURL != "" {
		if !e.Local {
			return nil, errors.New("api_url: is for local runs; remove it")
		}
		base = strings.TrimRight(s.APIURL, "/")
	}
	return &client{
		http: httpx.New(httpx.Options{Timeout: e.Timeout, MaxConns: e.MaxConns, UserAgent: e.UserAgent()}),
		key:  s.RoutingKey, url: base + "/v2/enqueue", instance: e.Name,
	}, nil
}

type client struct {
	http     *httpx.Client
	key      secret.Source
	url      string
	instance string
}

var (
	_ integration.Integration      = (*client)(nil)
	_ integration.IncidentNotifier = (*client)(nil)
)

// Check implements [integration.Integration].
func (c *client) Check(ctx context.Context) (integration.Status, error) {
	answer, err := c.enqueue(ctx, enqueued{Action: "resolve", Dedup: "apss/check"})
	if err != nil {
		return integration.Status{}, err
	}
	return integration.Status{
		Latency: answer.Elapsed,
		Detail:  "PagerDuty takes the routing key; asked by resolving an alert that does not exist",
	}, nil
}

// SendIncident implements [integration.IncidentNotifier]. The reference is the dedup_key.
func (c *client) SendIncident(ctx context.Context, i integration.Incident) (string, error) {
	key := i.Ref
	if key == "" {
		key = dedupKey(i.Fingerprint)
	}
	e := enqueued{Action: "resolve", Dedup: key}
	if i.Change != integration.Resolved {
		e = trigger(i, key)
	}
	_, err := c.enqueue(ctx, e)
	return key, err
}

// SendDigest implements [integration.IncidentNotifier]. All digests of an instance are one alert, which a person resolves:
// a storm rings once.
func (c *client) SendDigest(ctx context.Context, d integration.Digest) error {
	_, err := c.enqueue(ctx, digest(d, dedupKey("digest/"+c.instance)))
	return err
}

// keyForm is what PagerDuty demands of a routing key: 32 letters and digits (the errors of a 400 say so).
var keyForm = regexp.MustCompile(`^[A-Za-z0-9]{32}$`)

func (c *client) enqueue(ctx context.Context, e enqueued) (*httpx.Response, error) {
	return credential.Use(ctx, c.key, "routing key", func(key secret.Value) (*httpx.Response, error) {
		if !keyForm.MatchString(key.Reveal()) {
			return nil, &outcome.Error{Class: outcome.Auth, Reason: "the routing key is not of 32 letters and digits: is it a key of the Events API v2?"}
		}
		e.Key = key.Reveal()
		body, err := encode(e)
		if err != nil {
			return nil, err
		}
		answer, err := jsonapi.Do(ctx, c.http, http.MethodPost, c.url, secret.Value{}, body)
		if err != nil {
			return nil, err
		}
		return answer, understand(answer, key)
	})
}

// understand is what an answer comes to: 202 {"status":"success"} accepts
// (developer.pagerduty.com/docs/events-api-v2-overview, Response Codes & Retry Logic).
func understand(answer *httpx.Response, key secret.Value) error {
	var said struct {
		Status string   `json:"status"`
		Errors []string `json:"errors"`
	}
	readErr := json.Unmarshal(answer.Body, &said)
	if err := jsonapi.Outcome(answer, key); err != nil {
		e := outcome.From(err)
		// There is no code for it: {"errors":["Invalid routing key"]}, or that text alone.
		if text := strings.ToLower(strings.Join(append(said.Errors, string(answer.Body)), " ")); answer.Status == http.StatusBadRequest &&
			(strings.Contains(text, "routing key") || strings.Contains(text, "routing_key")) {
			e.Class = outcome.Auth
		}
		return e
	}
	if readErr != nil || said.Status != "success" {
		return jsonapi.Vague(answer, "PagerDuty", key)
	}
	return nil
}
