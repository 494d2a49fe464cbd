package slack

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/apss-sensor/apss/functions/internal/jsonapi"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

func (w *webhook) tell(ctx context.Context, m payload) error {
	body, err := jsonapi.Encode(m)
	if err != nil {
		return err
	}
	_, err = w.post(ctx, body)
	return err
}

// send posts body. A refusal for want of a text is a success when body is the check's.
func (w *webhook) send(ctx context.Context, address string, body []byte) (*httpx.Response, error) {
	answer, err := jsonapi.Do(ctx, w.http, http.MethodPost, address, secret.Value{}, body)
	if err != nil {
		return nil, err
	}
	word := strings.TrimSpace(string(answer.Body))
	if string(body) == "{}" && answer.Status == http.StatusBadRequest && slices.Contains(wantsText(), word) {
		return answer, nil
	}
	if err := jsonapi.Outcome(answer); err != nil {
		e := outcome.From(err)
		if slices.Contains(webhookGone(), word) {
			e.Class = outcome.Auth
		}
		return nil, e
	}
	if word != "ok" {
		return nil, jsonapi.Vague(answer, "Slack")
	}
	return answer, nil
}

// wantsText are the words by which a live webhook refuses an object without a text.
func wantsText() []string {
	return []string{"no_text", "invalid_payload", "missing_text_or_fallback_or_attachments"}
}

// webhookGone are the words that speak of the webhook or its channel and not of the message, whatever the status
// (docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors; the 2016 changelog "Improving error
// conditions for Incoming Webhooks").
func webhookGone() []string {
	return []string{
		"action_prohibited", "channel_is_archived", "channel_not_found", "invalid_token", "no_active_hooks", "no_service",
		"no_service_id", "no_team", "posting_to_general_channel_denied", "team_disabled", "user_not_found",
	}
}
