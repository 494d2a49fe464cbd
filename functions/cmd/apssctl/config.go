package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

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
	asJSON := flags.Bool("json", false, "print what was found as JSON")
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
	found := findings{File: operands[0], Integrations: []instance{}, Faults: []string{}}
	for _, in := range instances {
		found.Integrations = append(found.Integrations, instance{in.Name, in.Kind, in.Enabled})
		if in.Enabled {
			found.Enabled++
		}
	}
	if faults != nil {
		found.Integrations, found.Enabled = nil, 0 // what was read of a document with faults is not what it means
		for line := range strings.Lines(faults.Error()) {
			found.Faults = append(found.Faults, printable(strings.TrimSuffix(line, "\n")))
		}
	}
	if err := c.findings(found, *asJSON); err != nil {
		return err
	}
	if faults != nil {
		return errUnwell
	}
	if found.Enabled == 0 {
		fmt.Fprintln(c.stderr, "apssctl: no integration is enabled: every message would go to the dead letters")
	}
	return nil
}

// findings are what config check has to say of a document.
type findings struct {
	File         string     `json:"file"`
	Integrations []instance `json:"integrations"` // none when there are faults
	Enabled      int        `json:"enabled"`
	Faults       []string   `json:"faults"`
}

type instance struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Enabled bool   `json:"enabled"`
}

func (c *control) findings(f findings, asJSON bool) error {
	if asJSON {
		return c.json(f)
	}
	for _, fault := range f.Faults {
		fmt.Fprintln(c.stdout, fault)
	}
	if len(f.Faults) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(c.stdout, "%s: %d integrations, %d of them enabled, no fault\n", printable(f.File), len(f.Integrations), f.Enabled)
	return err
}
