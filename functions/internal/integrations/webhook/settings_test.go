package webhook

import (
	"strings"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/integration/integrationtest"
	"github.com/apss-sensor/apss/shared/event/eventtest"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestSecretsOfTheWrongForm are found with the first call, the check, and not quoted.
func TestSecretsOfTheWrongForm(t *testing.T) {
	var got record
	url := receiver(t, &got)
	for name, c := range map[string]struct {
		change func(*Settings)
		want   string
	}{
		"no prefix":   {func(s *Settings) { s.Secret = setting(strings.TrimPrefix(key(32), "whsec_")) }, "whsec_"},
		"no base64":   {func(s *Settings) { s.Secret = setting("whsec_" + integrationtest.Secret + "!") }, "whsec_"},
		"short":       {func(s *Settings) { s.Secret = setting(key(23)) }, "24 to 64"},
		"long":        {func(s *Settings) { s.Secret = setting(key(65)) }, "24 to 64"},
		"the old one": {func(s *Settings) { s.PreviousSecret = setting(integrationtest.Secret) }, "whsec_"},
		"no URL":      {func(s *Settings) { s.URL = setting(integrationtest.Secret) }, "https://example.com/hook"},
		"scheme":      {func(s *Settings) { s.URL = setting("ftp://" + integrationtest.Secret) }, "https://example.com/hook"},
		"user":        {func(s *Settings) { s.URL = setting("https://u:" + integrationtest.Secret + "@example.com") }, "secret_headers"},
		"a header's": {func(s *Settings) {
			s.SecretHeaders = map[string]integration.Secret{"X-Key": setting(integrationtest.Secret + "\nX: y")}
		}, "X-Key"},
		"a control character": {func(s *Settings) { s.URL = setting("https://\x7f" + integrationtest.Secret) }, "control character"},
	} {
		_, err := newWebhook(t, url, c.change).Check(t.Context())
		if e := outcome.From(err); e == nil || e.Class != outcome.Auth || !strings.Contains(e.Reason, c.want) || strings.Contains(e.Reason, integrationtest.Secret) {
			t.Errorf("%s: got %v, want an auth about %q", name, err, c.want)
		}
	}
	for _, n := range []int{24, 64} {
		if _, err := newWebhook(t, url, func(s *Settings) { s.Secret = setting(key(n)) }).Check(t.Context()); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if got.header.Get("webhook-id") != "check" || len(got.body) != 0 {
		t.Errorf("the check sent %q, %v", got.body, got.header)
	}
}

func TestSettings(t *testing.T) {
	err := (&Settings{
		Headers: map[string]string{"Webhook-Id": "1", "x y": "1", "X-Tenant": "a\r\nb", "Authorization": "Bearer x", "X-Two": "1"},
		SecretHeaders: map[string]integration.Secret{
			"host": setting("x"), "x-two": setting("x"), "X-Empty": {}, "content-type": setting("x"),
		},
		ContentType: "json", Body: "{{.nothing}}", MaxBody: 1, Timeout: time.Hour,
	}).Validate()
	for _, want := range []string{
		"url: ", "secret: ", "headers: Webhook-Id is set by", `"x y" is no name`, `"X-Tenant" is not one line`, "Authorization is a secret",
		"secret_headers: host is set by", "secret_headers: x-two stands twice", `"X-Empty" has no value`, "secret_headers: content-type is set",
		"content_type: ", "body: ", "max_body: ", "timeout: ",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant it to say %q", err, want)
		}
	}
	if err := Kind().Settings().Validate(); err == nil || len(err.(interface{ Unwrap() []error }).Unwrap()) != 2 {
		t.Errorf("the defaults: got %v, want faults of url and secret", err)
	}
	if err := settings("", func(s *Settings) { s.Unsigned = true }).Validate(); err == nil {
		t.Error("unsigned with a secret is taken")
	}
	unsigned := func(s *Settings) { s.Unsigned, s.Secret = true, integration.Secret{} }
	var got record
	if err := newWebhook(t, receiver(t, &got), unsigned).(*client).SendAlert(t.Context(), eventtest.Alert()); err != nil || got.header["Webhook-Signature"] != nil {
		t.Errorf("unsigned: got %v, %v", err, got.header)
	}
	if err := settings("", func(s *Settings) { s.ContentType = "text/plain" }).Validate(); err == nil || !strings.Contains(err.Error(), "content_type") {
		t.Errorf("got %v, want a fault of content_type", err)
	}
	if _, ok := newWebhook(t, "", nil).(integration.EventSink); ok {
		t.Error("a webhook takes events that nobody asked for")
	}
}
