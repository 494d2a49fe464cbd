package webhook

import (
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apss-sensor/apss/functions/internal/integration"
)

// Kind is a webhook. Its rate has no bound: the receiver is a program, and says 429 when it is too much.
func Kind() integration.Kind {
	return integration.Kind{
		Name: "webhook",
		// The specification asks for 15 to 30 s; nginx takes 1 MiB unless it is told otherwise
		// (nginx.org/en/docs/http/ngx_http_core_module.html#client_max_body_size).
		Settings: func() integration.Settings {
			return &Settings{ContentType: "application/json", MaxBody: 1 << 20, Timeout: 15 * time.Second}
		},
	}
}

// Settings are those of one endpoint.
type Settings struct {
	URL            integration.Secret            `yaml:"url"`
	Secret         integration.Secret            `yaml:"secret"`          // whsec_ and 24 to 64 bytes in base64
	PreviousSecret integration.Secret            `yaml:"previous_secret"` // signs, too, until the receiver knows the new one
	Unsigned       bool                          `yaml:"unsigned"`        // there is no secret, on purpose
	Headers        map[string]string             `yaml:"headers"`
	SecretHeaders  map[string]integration.Secret `yaml:"secret_headers"`
	Body           string                        `yaml:"body"` // a text/template on the alert; empty: its JSON in an envelope
	ContentType    string                        `yaml:"content_type"`
	MaxBody        int                           `yaml:"max_body"` // bytes
	Events         bool                          `yaml:"events"`   // takes events, too
	AllowPrivate   bool                          `yaml:"allow_private"`
	Timeout        time.Duration                 `yaml:"timeout"` // of a call
}

// Limits of the settings.
const (
	minMaxBody = 4 << 10
	maxMaxBody = 10 << 20
	maxBody    = 64 << 10 // of the template
	maxHeaders = 20
	maxValue   = 4 << 10
)

// Validate implements [integration.Settings].
func (s *Settings) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !s.URL.Set() {
		fault("url: is required")
	}
	switch {
	case s.Unsigned && (s.Secret.Set() || s.PreviousSecret.Set()):
		fault("unsigned: there is a secret as well; one of them is wrong")
	case !s.Unsigned && !s.Secret.Set():
		fault("secret: is required, so that the receiver can tell our messages; unsigned: true does without")
	}
	errs = append(errs, s.headerFaults()...)
	if t, _, err := mime.ParseMediaType(s.ContentType); err != nil || !strings.Contains(t, "/") || !headerValue(s.ContentType) {
		fault("content_type: %.60q is none; write it like application/json", s.ContentType)
	}
	switch {
	case len(s.Body) > maxBody:
		fault("body: has %d bytes, want at most %d", len(s.Body), maxBody)
	case s.Body != "":
		if _, err := newTemplate(s.Body, s.ContentType); err != nil {
			fault("body: %w", err)
		}
	case !isJSON(s.ContentType):
		fault("content_type: without a body of your own it is JSON")
	}
	if s.MaxBody < minMaxBody || s.MaxBody > maxMaxBody {
		fault("max_body: is %d, want %d to %d", s.MaxBody, minMaxBody, maxMaxBody)
	}
	if s.Timeout < time.Second || s.Timeout > time.Minute {
		fault("timeout: is %v, want 1s to 1m", s.Timeout)
	}
	return errors.Join(errs...)
}

var (
	token = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$") // RFC 9110 section 5.6.2
	// credentials are names of headers whose value is usually one.
	credentials = regexp.MustCompile(`(?i)^(authorization|cookie)$|token|secret|password|api-?key|signature`)
)

// reserved reports whether a header is ours, the connection's, or the trace's.
func reserved(name string) bool {
	name = http.CanonicalHeaderKey(name)
	for _, prefix := range []string{"Webhook-", "Proxy-", "Sec-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Accept-Encoding", "Connection",
		"Keep-Alive", "Te", "Trailer", "Upgrade", "Expect", "User-Agent", "Traceparent", "Tracestate", "Baggage",
	}, name)
}

func (s *Settings) headerFaults() (errs []error) {
	seen := map[string]bool{}
	check := func(key, name string) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !token.MatchString(name):
			errs = append(errs, fmt.Errorf("%s: %.60q is no name of a header", key, name))
		case reserved(name):
			errs = append(errs, fmt.Errorf("%s: %s is set by the function itself", key, name))
		case seen[canonical]:
			errs = append(errs, fmt.Errorf("%s: %s stands twice", key, name))
		}
		seen[canonical] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		check("headers", name)
		if value := s.Headers[name]; !headerValue(value) || len(value) > maxValue {
			errs = append(errs, fmt.Errorf("headers: the value of %.60q is not one line of at most %d ASCII characters", name, maxValue))
		}
		if credentials.MatchString(name) {
			errs = append(errs, fmt.Errorf("headers: the value of %.60s is a secret by its name: write it under secret_headers", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.SecretHeaders)) {
		check("secret_headers", name)
		if !s.SecretHeaders[name].Set() {
			errs = append(errs, fmt.Errorf("secret_headers: %.60q has no value", name))
		}
	}
	if n := len(s.Headers) + len(s.SecretHeaders); n > maxHeaders {
		errs = append(errs, fmt.Errorf("headers: there are %d with secret_headers, want at most %d", n, maxHeaders))
	}
	return errs
}
