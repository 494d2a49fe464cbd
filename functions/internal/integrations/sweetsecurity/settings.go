package sweetsecurity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/apss-sensor/apss/functions/internal/integration"
)

// Kind makes integrations of this package.
func Kind() integration.Kind {
	return integration.Kind{Name: "sweetsecurity", Settings: func() integration.Settings { return new(settings) }}
}

// settings are an instance's own.
type settings struct {
	Endpoint  string             `yaml:"endpoint"`   // base URL
	AllowHTTP bool               `yaml:"allow_http"` // http to any address, else only to a loopback one
	APIKey    integration.Secret `yaml:"api_key"`
}

// Validate implements [integration.Settings].
func (s *settings) Validate() error {
	var errs []error
	if s.Endpoint == "" {
		errs = append(errs, errors.New("endpoint: is required"))
	} else if _, err := parseEndpoint(s.Endpoint, s.AllowHTTP); err != nil {
		errs = append(errs, fmt.Errorf("endpoint: %w", err))
	}
	if !s.APIKey.Set() {
		errs = append(errs, errors.New("api_key: is required"))
	}
	return errors.Join(errs...)
}

// New implements [integration.Settings].
func (s *settings) New(e integration.Env) (integration.Integration, error) {
	return New(Config{
		Endpoint: s.Endpoint, AllowHTTP: s.AllowHTTP || e.Local, APIKey: s.APIKey,
		Timeout: e.Timeout, MaxConns: e.MaxConns, UserAgent: strings.TrimSuffix("apss-functions/"+e.Version, "/"), Log: e.Log, Meter: e.Meter,
	})
}
