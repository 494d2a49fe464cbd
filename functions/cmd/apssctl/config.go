package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/apss-sensor/apss/functions/internal/integration"
	"github.com/apss-sensor/apss/functions/internal/registry"
	"github.com/apss-sensor/apss/functions/internal/secretmanager"
	"github.com/apss-sensor/apss/shared/secret"
)

// check prints every fault of a document of integrations. References that are no secrets are read, as at the functions'
// start.
func (c *control) check(ctx context.Context, args []string) error {
	flags := c.flags("config check", "FILE")
	local := flags.Bool("local", false, "allow secrets in the document, as APSS_LOCAL=true does")
	operands, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	text, err := integration.Text("file://" + operands[0])
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	secrets := secretmanager.New(slog.New(slog.DiscardHandler))
	instances, faults := integration.Document{
		Name: operands[0], Kinds: registry.Kinds(), Local: *local, Schemes: secret.Schemes{secretmanager.Scheme: secrets.Parse},
	}.Read(ctx, text)
	if err := secrets.Close(); err != nil {
		return fmt.Errorf("closing the connection to Secret Manager: %w", err)
	}
	if faults != nil {
		fmt.Fprintln(c.stdout, faults)
		return errUnwell
	}
	enabled := 0
	for _, in := range instances {
		if in.Enabled {
			enabled++
		}
	}
	fmt.Fprintf(c.stdout, "%s: %d integrations, %d of them enabled, no fault\n", operands[0], len(instances), enabled)
	return nil
}
