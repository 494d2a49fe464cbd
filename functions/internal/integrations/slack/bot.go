package slack

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/credential"
	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/jsonapi"
	"github.com/apss-sensor/apss/functions/internal/message"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// bot is a bot's token for one channel.
type bot struct {
	http    *httpx.Client
	token   secret.Source
	base    string // of the API, with a slash at its end
	channel string
}

// reply is an answer of the API. Its status is 200 for most of what goes wrong.
type reply struct {
	OK      bool   `json:"ok"`
	Error   string `json:"error"`
	Channel string `json:"channel"` // the id, also where a name was given
	TS      string `json:"ts"`      // what a message is known by
	Team    string `json:"team"`
	User    string `json:"user"`
	elapsed time.Duration
}

// Check implements [integration.Integration].
func (b *bot) Check(ctx context.Context) (integration.Status, error) {
	r, err := credential.Use(ctx, b.token, "bot token", func(token secret.Value) (reply, error) {
		return b.call(ctx, token, "auth.test", struct{}{})
	})
	if err != nil {
		return integration.Status{}, err
	}
	return integration.Status{
		Latency: r.elapsed,
		Detail: "the token is of " + message.Line(r.User, 80) + " in " + message.Line(r.Team, 80) +
			"; whether it may write to the channel shows with the first message",
	}, nil
}

// SendIncident implements [integration.IncidentNotifier].
func (b *bot) SendIncident(ctx context.Context, i integration.Incident) (string, error) {
	return credential.Use(ctx, b.token, "bot token", func(token secret.Value) (string, error) {
		channel, ts, known := strings.Cut(i.Ref, ":")
		if i.Change == integration.Opened || !known {
			return b.open(ctx, token, incident(i))
		}
		// The edit first: it may be repeated when the reply fails, a reply may not.
		edit := incident(i)
		edit.Channel, edit.TS = channel, ts
		if r, err := b.call(ctx, token, "chat.update", edit); err != nil {
			switch {
			case b.gone(r.Error, channel) && i.Change == integration.Resolved:
				return "", nil // somebody deleted it: nobody waits for its end
			case b.gone(r.Error, channel):
				return b.open(ctx, token, incident(i))
			case r.Error == "edit_window_closed", r.Error == "cant_update_message": // the reply still tells
			default:
				return i.Ref, err
			}
		}
		note := change(i)
		note.Channel, note.ThreadTS = channel, ts
		_, err := b.call(ctx, token, "chat.postMessage", note)
		return i.Ref, err
	})
}

// gone reports whether an error says that a message of channel is not there any more, or that channel is not ours to write
// to since the settings name another one: it must not keep that from being told.
func (b *bot) gone(word, channel string) bool {
	return word == "message_not_found" ||
		channel != b.channel && slices.Contains([]string{"channel_not_found", "is_archived", "is_inactive", "not_in_channel"}, word)
}

// SendDigest implements [integration.IncidentNotifier].
func (b *bot) SendDigest(ctx context.Context, d integration.Digest) error {
	_, err := credential.Use(ctx, b.token, "bot token", func(token secret.Value) (string, error) {
		return b.open(ctx, token, digest(d))
	})
	return err
}

// open posts a message and returns its reference.
func (b *bot) open(ctx context.Context, token secret.Value, m payload) (string, error) {
	m.Channel = b.channel
	r, err := b.call(ctx, token, "chat.postMessage", m)
	if err != nil {
		return "", err
	}
	if r.Channel == "" || r.TS == "" {
		return "", nil
	}
	return r.Channel + ":" + r.TS, nil
}

// call calls a method. The reply's error is also set when err is not nil.
func (b *bot) call(ctx context.Context, token secret.Value, method string, m any) (reply, error) {
	body, err := jsonapi.Encode(m)
	if err != nil {
		return reply{}, err
	}
	answer, err := jsonapi.Do(ctx, b.http, http.MethodPost, b.base+method, token, body)
	if err != nil {
		return reply{}, err
	}
	return understand(answer, method, token)
}

// understand is what an answer comes to.
func understand(answer *httpx.Response, method string, token secret.Value) (reply, error) {
	var r reply
	readErr := json.Unmarshal(answer.Body, &r)
	r.elapsed = answer.Elapsed
	if err := jsonapi.Outcome(answer, token); err != nil {
		return r, err
	}
	switch {
	case readErr != nil, !r.OK && r.Error == "":
		return r, jsonapi.Vague(answer, "Slack", token)
	case !r.OK:
		e := &outcome.Error{
			Class: classOf(r.Error), Status: answer.Status, After: httpx.RetryAfter(answer.Header, time.Now()),
			Reason: "Slack's " + method + " says " + answer.Excerpt([]byte(r.Error), token),
		}
		if slices.Contains(slower(), r.Error) {
			e.Status = http.StatusTooManyRequests
		}
		return r, e
	}
	return r, nil
}

// classOf is the outcome of an error of the API. One that is not known is worth another try.
func classOf(word string) outcome.Class {
	switch {
	case slices.Contains(refused(), word):
		return outcome.Auth
	case strings.HasPrefix(word, "invalid_"), strings.HasPrefix(word, "msg_"), strings.HasPrefix(word, "too_many_"), word == "no_text",
		word == "cannot_reply_to_message":
		return outcome.Permanent
	default:
		return outcome.Retry
	}
}

// slower are the errors that mean what 429 does, also with 200 (docs.slack.dev/reference/methods/chat.postMessage#errors).
func slower() []string { return []string{"message_limit_exceeded", "rate_limited", "ratelimited"} }

// refused are the errors that speak of the token or the channel and not of the message
// (docs.slack.dev/reference/methods/chat.postMessage#errors, auth.test).
func refused() []string {
	return []string{
		"access_denied", "accesslimited", "account_inactive", "channel_not_found", "channel_type_not_supported",
		"ekm_access_denied", "enterprise_is_restricted", "invalid_auth", "is_archived", "is_inactive", "missing_scope",
		"no_permission", "not_allowed_token_type", "not_authed", "not_in_channel", "org_login_required", "restricted_action",
		"restricted_action_non_threadable_channel", "restricted_action_read_only_channel", "restricted_action_thread_locked",
		"restricted_action_thread_only_channel", "team_access_not_granted", "team_not_found", "token_expired", "token_revoked",
		"two_factor_setup_required",
	}
}
