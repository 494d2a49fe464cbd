// Package slack tells a Slack channel of incidents.
//
// With an incoming webhook (webhook_url) each change of an incident is a message: the whole one when it opens, a short one
// when it repeats or ends. With a bot's token (bot_token, channel; scope chat:write) the message of the incident is edited
// and each change is a reply in its thread. The calls are plain HTTP: slack-go would hide status and body behind its own
// errors, of which neither Retry-After nor a redacted excerpt can be had, and these are three calls of one form.
//
// Sources: docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, docs.slack.dev/reference/methods/chat.postMessage,
// chat.update and auth.test.
package slack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/functions/internal/credential"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Kind is Slack. One message a second and channel, with short bursts (docs.slack.dev/apis/web-api/rate-limits); chat.update
// is of tier 3, 50 a minute.
func Kind() integration.Kind {
	return integration.Kind{
		Name:     "slack",
		Settings: func() integration.Settings { return new(settings) },
		Rate:     integration.Rate{PerMinute: 50, Burst: 5},
	}
}

// settings are those of one channel: webhook_url, or bot_token and channel.
type settings struct {
	WebhookURL integration.Secret `yaml:"webhook_url"`
	BotToken   integration.Secret `yaml:"bot_token"`
	Channel    string             `yaml:"channel"` // its id
	Gov        bool               `yaml:"gov"`     // a bot of GovSlack
	// APIURL is the base of a stand-in for Slack's API, for local runs only.
	APIURL string `yaml:"api_url"`
}

// channelID: a public channel, a private one, or a direct message. Names change, and a private channel is not found by its
// name.
var channelID = regexp.MustCompile(`^[CGD][A-Z0-9]{6,}$`)

// Validate implements [integration.Settings].
func (s *settings) Validate() error {
	var errs []error
	switch {
	case s.WebhookURL.Set() && s.BotToken.Set():
		errs = append(errs, errors.New("bot_token: is a second way to the channel that webhook_url has; set one"))
	case !s.WebhookURL.Set() && !s.BotToken.Set():
		errs = append(errs, errors.New("webhook_url: is required, or bot_token with channel"))
	}
	if s.BotToken.Set() && !channelID.MatchString(s.Channel) {
		errs = append(errs, fmt.Errorf("channel: %.40q is no id such as C0123456789; Slack shows it below the channel's details", s.Channel))
	}
	if s.WebhookURL.Set() && (s.Channel != "" || s.Gov || s.APIURL != "") {
		errs = append(errs, errors.New("webhook_url: knows its channel and host; channel, gov and api_url are for bot_token"))
	}
	return errors.Join(errs...)
}

// New implements [integration.Settings].
func (s *settings) New(e integration.Env) (integration.Integration, error) {
	// 64 KiB hold any answer of the three methods: they repeat the message.
	client := httpx.New(httpx.Options{Timeout: e.Timeout, MaxResponse: 64 << 10, MaxConns: e.MaxConns, UserAgent: e.UserAgent()})
	if s.WebhookURL.Set() {
		return &webhook{client, s.WebhookURL, e.Local}, nil
	}
	base := "https://slack.com/api/"
	if s.Gov {
		base = "https://slack-gov.com/api/"
	}
	if s.APIURL != "" {
		if !e.Local {
			return nil, errors.New("api_url: is for local runs; remove it")
		}
		base = strings.TrimRight(s.APIURL, "/") + "/"
	}
	return &bot{client, s.BotToken, base, s.Channel}, nil
}

// webhook is an incoming webhook.
type webhook struct {
	http  *httpx.Client
	url   secret.Source
	local bool
}

var (
	_ integration.IncidentNotifier = (*webhook)(nil)
	_ integration.IncidentNotifier = (*bot)(nil)
	_ integration.Integration      = (*webhook)(nil)
	_ integration.Integration      = (*bot)(nil)
)

// hosts are those of webhooks; the path is the credential, so it goes to nobody else.
func hosts() []string { return []string{"hooks.slack.com", "hooks.slack-gov.com"} }

// address returns the webhook's URL when it is one. The error does not quote it.
func (w *webhook) address(v secret.Value) (string, error) {
	u, err := url.Parse(v.Reveal())
	switch {
	case err == nil && w.local && u.Hostname() != "":
	case err == nil && u.Scheme == "https" && slices.Contains(hosts(), u.Host) && strings.HasPrefix(u.Path, "/services/"):
	default:
		return "", &outcome.Error{Class: outcome.Auth, Reason: "the webhook URL is not one of Slack: https://hooks.slack.com/services/..."}
	}
	return u.String(), nil
}

func (w *webhook) post(ctx context.Context, body []byte) (*httpx.Response, error) {
	return credential.Use(ctx, w.url, "webhook URL", func(v secret.Value) (*httpx.Response, error) {
		address, err := w.address(v)
		if err != nil {
			return nil, err
		}
		return w.send(ctx, address, body)
	})
}

// Check implements [integration.Integration]: an object without a text is refused as such when the webhook is live.
func (w *webhook) Check(ctx context.Context) (integration.Status, error) {
	answer, err := w.post(ctx, []byte("{}"))
	if err != nil {
		return integration.Status{}, err
	}
	return integration.Status{Latency: answer.Elapsed, Detail: "the webhook is live: it asks for the text of a message"}, nil
}

// SendIncident implements [integration.IncidentNotifier].
func (w *webhook) SendIncident(ctx context.Context, i integration.Incident) (string, error) {
	m := incident(i)
	if i.Change != integration.Opened {
		m = change(i)
	}
	return "", w.tell(ctx, m)
}

// SendDigest implements [integration.IncidentNotifier].
func (w *webhook) SendDigest(ctx context.Context, d integration.Digest) error {
	return w.tell(ctx, digest(d))
}
