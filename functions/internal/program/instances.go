package program

import (
	"context"
	"fmt"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/secretmanager"
	"github.com/apss-sensor/apss/shared/secret"
)

// readTimeout bounds the reading of the document, with the secrets that stand for settings that are none.
const readTimeout = 15 * time.Second

// instances reads those of the document and of the shortcuts.
func (p *Program) instances(ctx context.Context, kinds []integration.Kind) ([]integration.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	text, err := integration.Text(p.settings.Integrations.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", documentName, err)
	}
	return integration.Document{
		Name: documentName, Kinds: kinds, Local: p.settings.Local,
		Schemes: secret.Schemes{secretmanager.Scheme: p.secrets.Parse},
	}.Read(ctx, text, p.settings.shortcuts()...)
}

const documentName = "APSS_INTEGRATIONS"

// shortcuts are the instances that the environment describes.
func (s *settings) shortcuts() (all []integration.Shortcut) {
	add := func(kind string, variables map[string]string, values map[string]secret.Value) {
		for key, v := range values {
			if v.Empty() {
				delete(values, key)
			}
		}
		if len(values) > 0 {
			all = append(all, integration.Shortcut{Kind: kind, Variables: variables, Values: values})
		}
	}
	sweet := map[string]secret.Value{"endpoint": s.SweetSecurityEndpoint, "api_key": s.SweetSecurityKey}
	if s.SweetSecurityAllowHTTP {
		sweet["allow_http"] = secret.New("true")
	}
	add("sweetsecurity", map[string]string{
		"endpoint": "SWEET_SECURITY_ENDPOINT", "api_key": "SWEET_SECURITY_API_KEY", "allow_http": "SWEET_SECURITY_ALLOW_HTTP",
	}, sweet)
	add("slack", map[string]string{"webhook_url": "SLACK_WEBHOOK_URL"}, map[string]secret.Value{"webhook_url": s.SlackWebhookURL})
	return all
}
