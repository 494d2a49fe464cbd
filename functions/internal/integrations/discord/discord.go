// Package discord tells a Discord channel of incidents, by a webhook.
//
// An incident is one message with one embed, which is edited when the incident repeats or ends. Nothing in it mentions
// anybody: allowed_mentions is empty, and text of others is escaped or stands in code.
//
// Answers of the kind 401, 403, 404 and 429 are counted: 10,000 in 10 minutes shut out the whole address
// (docs.discord.com/developers/topics/rate-limits#invalid-request-limit-aka-cloudflare-bans), so the first three are Auth,
// on which the core stops calling.
//
// Sources: docs.discord.com/developers/resources/webhook (get with token, execute, edit message), /resources/message
// (embed limits), /topics/rate-limits.
package discord

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/apss-sensor/apss/functions/internal/credential"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/jsonapi"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Kind is Discord. 5 calls in 2 seconds and 30 messages a minute are what users measure; Discord says that its limits
// move and are to be read from the answers (docs.discord.com/developers/topics/rate-limits).
func Kind() integration.Kind {
	return integration.Kind{
		Name:     "discord",
		Settings: func() integration.Settings { return new(settings) },
		Rate:     integration.Rate{PerMinute: 30, Burst: 5},
	}
}

// settings are those of one channel.
type settings struct {
	WebhookURL integration.Secret `yaml:"webhook_url"` // of the channel's integrations; ?thread_id= for a thread in it
}

// Validate implements [integration.Settings].
func (s *settings) Validate() error {
	if !s.WebhookURL.Set() {
		return errors.New("webhook_url: is required; it is made in the channel's settings, under Integrations")
	}
	return nil
}

// New implements [integration.Settings].
func (s *settings) New(e integration.Env) (integration.Integration, error) {
	return &webhook{
		http: httpx.New(httpx.Options{Timeout: e.Timeout, MaxConns: e.MaxConns, UserAgent: e.UserAgent()}),
		url:  s.WebhookURL, local: e.Local,
	}, nil
}

type webhook struct {
	http  *httpx.Client
	url   secret.Source
	local bool
}

var (
	_ integration.Integration      = (*webhook)(nil)
	_ integration.IncidentNotifier = (*webhook)(nil)
)

// hosts serve webhooks; the path is the credential, so it goes to nobody else.
func hosts() []string {
	return []string{"discord.com", "ptb.discord.com", "canary.discord.com", "discordapp.com"}
}

// path of a webhook: /api/webhooks/{id}/{token}, with a version or without.
var path = regexp.MustCompile(`^/api(/v\d+)?/webhooks/\d+/[\w-]+$`)

// address is the webhook's URL, when it is one. The error does not quote it.
func (w *webhook) address(v secret.Value) (*url.URL, error) {
	u, err := url.Parse(v.Reveal())
	switch {
	case err == nil && w.local && u.Hostname() != "":
	case err == nil && u.Scheme == "https" && slices.Contains(hosts(), u.Host) && path.MatchString(u.Path):
	default:
		return nil, &outcome.Error{Class: outcome.Auth, Reason: "the webhook URL is not one of Discord: https://discord.com/api/webhooks/..."}
	}
	return u, nil
}

// said is an answer: a webhook, a message or an error.
type said struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Code    int    `json:"code"`
	elapsed time.Duration
}

// What an edit comes to when the message is not there, or is another webhook's since the settings name a new one
// (docs.discord.com/developers/topics/opcodes-and-status-codes#json).
const (
	unknownMessage = 10008
	authorIsOther  = 50005
)

// Check implements [integration.Integration]: it asks for the webhook.
func (w *webhook) Check(ctx context.Context) (integration.Status, error) {
	s, err := credential.Use(ctx, w.url, "webhook URL", func(v secret.Value) (said, error) {
		return w.call(ctx, v, http.MethodGet, "", nil)
	})
	if err != nil {
		return integration.Status{}, err
	}
	return integration.Status{Latency: s.elapsed, Detail: "the webhook is live: " + message.Line(s.Name, 80)}, nil
}

// SendIncident implements [integration.IncidentNotifier]. The reference is the message's id.
func (w *webhook) SendIncident(ctx context.Context, i integration.Incident) (string, error) {
	return credential.Use(ctx, w.url, "webhook URL", func(v secret.Value) (string, error) {
		m := incident(i)
		if i.Change == integration.Opened || !snowflake.MatchString(i.Ref) {
			s, err := w.call(ctx, v, http.MethodPost, "", &m)
			return s.ID, err
		}
		s, err := w.call(ctx, v, http.MethodPatch, "/messages/"+i.Ref, &m)
		if err != nil && (s.Code == unknownMessage || s.Code == authorIsOther) {
			if i.Change == integration.Resolved {
				return "", nil // somebody deleted it: nobody waits for its end
			}
			s, err = w.call(ctx, v, http.MethodPost, "", &m)
			return s.ID, err
		}
		return i.Ref, err
	})
}

// snowflake is the form of an id.
var snowflake = regexp.MustCompile(`^\d{1,20}$`)

// SendDigest implements [integration.IncidentNotifier].
func (w *webhook) SendDigest(ctx context.Context, d integration.Digest) error {
	m := digest(d)
	_, err := credential.Use(ctx, w.url, "webhook URL", func(v secret.Value) (said, error) {
		return w.call(ctx, v, http.MethodPost, "", &m)
	})
	return err
}

// call calls the webhook, or what is below it. A message is confirmed (wait): without that Discord answers before it
// knows whether it can keep the message. The error's code is set also when err is not nil.
func (w *webhook) call(ctx context.Context, v secret.Value, method, below string, m *payload) (said, error) {
	u, err := w.address(v)
	if err != nil {
		return said{}, err
	}
	u.Path += below
	var body []byte
	if m != nil {
		if body, err = jsonapi.Encode(m); err != nil {
			return said{}, err
		}
	}
	if method == http.MethodPost {
		q := u.Query()
		q.Set("wait", "true")
		u.RawQuery = q.Encode()
	}
	answer, err := jsonapi.Do(ctx, w.http, method, u.String(), secret.Value{}, body)
	if err != nil {
		return said{}, err
	}
	return understand(answer)
}

// understand is what an answer comes to: a webhook or a message, each with its id, accepts.
func understand(answer *httpx.Response) (said, error) {
	var s said
	readErr := json.Unmarshal(answer.Body, &s)
	s.elapsed = answer.Elapsed
	if err := jsonapi.Outcome(answer); err != nil {
		e := outcome.From(err)
		if answer.Status == http.StatusTooManyRequests {
			e.After = max(e.After, resetAfter(answer.Header))
		}
		return s, e
	}
	if readErr != nil || !snowflake.MatchString(s.ID) {
		return s, jsonapi.Vague(answer, "Discord")
	}
	return s, nil
}

// resetAfter reads X-RateLimit-Reset-After: seconds with decimals until the limit of this webhook is over. For the
// global one Retry-After counts. The retry_after of the body was milliseconds once and is seconds now: it is not read.
func resetAfter(h http.Header) time.Duration {
	const longest = time.Hour // as for Retry-After, see httpx.RetryAfter
	seconds, err := strconv.ParseFloat(h.Get("X-RateLimit-Reset-After"), 64)
	if err != nil || math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, longest.Seconds()) * float64(time.Second))
}
