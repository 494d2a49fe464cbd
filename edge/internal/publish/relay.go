package publish

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// What a relay says of a message in the header of its answer. An answer without it is not a relay's, whatever its status.
const (
	VerdictHeader   = "Apss-Verdict"
	VerdictAccepted = "accepted"
	VerdictRefused  = "refused" // it will never be accepted
)

const (
	// relayTimeout is more than the 15 s in which a relay answers.
	relayTimeout = 20 * time.Second
	// connectionAge is how long connections are used, and up to half as long again: then new ones find relays that were
	// added since, which a connection that is kept alive never does.
	connectionAge = 5 * time.Minute
	// tokenAge is how long a token is used before its file is read again: as long as client-go does. The kubelet replaces
	// it when a fifth of its life is left.
	tokenAge = time.Minute
	// maxRelayPause bounds what a relay may ask an agent to wait.
	maxRelayPause = time.Minute
)

// RelayConfig says where the relay is.
type RelayConfig struct {
	Endpoint  string // https://host:port
	TokenFile string
	CA        string // PEM; empty: the system's authorities
	UserAgent string
	// Dialer opens the connections, and ReadFile reads the token; nil: as usual.
	Dialer   *net.Dialer
	ReadFile func(path string) ([]byte, error)
}

// Relay publishes to the cluster's relay: a message is a request in the CloudEvents HTTP binding's binary mode. It proves
// who it is by the pod's token, which is read again when it gets old or is refused.
type Relay struct {
	c       RelayConfig
	url     string
	options httpx.Options

	mu     sync.Mutex
	client *httpx.Client
	until  time.Time // the client is used
	token  secret.Value
	read   time.Time // when token was
	closed bool
}

// NewRelay returns a publisher. It does not connect, and reads no token yet: the kubelet may put it there later.
func NewRelay(c RelayConfig) (*Relay, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("the relay's address %q is not like https://apss-relay.apss.svc:8444", c.Endpoint)
	}
	if c.ReadFile == nil {
		c.ReadFile = os.ReadFile
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(c.CA)) {
			return nil, errors.New("the relay's CA holds no certificate; PEM is wanted")
		}
	}
	return &Relay{
		c: c, url: "https://" + u.Host + "/v1/events",
		options: httpx.Options{Timeout: relayTimeout, MaxResponse: 4 << 10, UserAgent: c.UserAgent, TLS: config, Dialer: c.Dialer},
	}, nil
}

// Publish sends m to the relay and waits until that has published it.
func (r *Relay) Publish(ctx context.Context, m envelope.Message) error {
	if t := typeOf(m); t != envelope.TypeEvents && t != envelope.TypeAlert {
		return unknownType(m)
	}
	for again := false; ; again = true {
		client, token, err := r.prepare(again)
		if err != nil {
			return err
		}
		answer, err := client.Do(ctx, r.request(m, token)) //nolint:contextcheck // only ctx ends the exchange
		if err != nil {
			return unanswered(err)
		}
		if answer.Status == http.StatusUnauthorized && !again {
			if _, fresh, err := r.prepare(true); err == nil && !fresh.Equal(token) {
				continue // the kubelet has replaced it
			}
		}
		return r.verdict(answer, token)
	}
}

// unanswered makes what can not be sent a trouble that may pass: it is never about the message, but about the settings or
// the token.
func unanswered(err error) error {
	o := *outcome.From(err)
	o.Class = outcome.Retry
	o.Reason = "publishing to the relay: " + o.Reason
	return &o
}

func (r *Relay) request(m envelope.Message, token secret.Value) *http.Request {
	req, err := http.NewRequest(http.MethodPost, r.url, bytes.NewReader(m.Data)) //nolint:noctx // Do has one
	if err != nil {
		panic("publish: " + err.Error()) // NewRelay has parsed the address
	}
	for name, value := range m.Attributes {
		if strings.HasPrefix(name, "ce-") || name == "content-type" || name == "content-encoding" {
			req.Header.Set(name, value)
		}
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	return req
}

// prepare returns the client and the token for one exchange. The token is read anew when it is old, or when that is asked.
func (r *Relay) prepare(anew bool) (*httpx.Client, secret.Value, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, secret.Value{}, &outcome.Error{Class: outcome.Retry, Reason: "publishing to the relay", Err: ErrClosed}
	}
	now := time.Now()
	if r.client == nil || now.After(r.until) {
		r.renew(now)
	}
	if !anew && !r.read.IsZero() && now.Sub(r.read) < tokenAge {
		return r.client, r.token, nil
	}
	b, err := r.c.ReadFile(r.c.TokenFile)
	text := strings.TrimSpace(string(b))
	if err == nil && text == "" {
		err = fmt.Errorf("%s is empty", r.c.TokenFile)
	}
	if err != nil {
		return nil, secret.Value{}, &outcome.Error{Class: outcome.Auth, Err: err,
			Reason: "reading the token for the relay (RELAY_TOKEN_FILE: a projected serviceAccountToken)"}
	}
	r.token, r.read = secret.New(text), now
	return r.client, r.token, nil
}

// renew leaves the connections that are to those who use them, and looks the relay up again for the next. It is called with
// r.mu held.
func (r *Relay) renew(now time.Time) {
	if r.client != nil {
		r.client.Close()
	}
	r.client = httpx.New(r.options)
	r.until = now.Add(connectionAge + rand.N(connectionAge/2)) //nolint:gosec // no secret
}

// verdict says what an answer means. Only a relay's own word makes a message accepted, or one that never will be: a wrong
// address must not make the agent give up what it holds.
func (r *Relay) verdict(a *httpx.Response, token secret.Value) error {
	said := a.Header.Get(VerdictHeader)
	if a.Status == http.StatusOK && said == VerdictAccepted {
		return nil
	}
	o := &outcome.Error{Class: outcome.Retry, Status: a.Status, After: min(httpx.RetryAfter(a.Header, time.Now()), maxRelayPause)}
	o.Reason = fmt.Sprintf("the relay answered HTTP %d: %s", a.Status, a.Excerpt(a.Body, token))
	switch {
	case said == VerdictRefused && a.Status >= 400 && a.Status < 500:
		o.Class = outcome.Permanent
	case a.Status == http.StatusUnauthorized:
		o.Class = outcome.Auth
	case a.Status == http.StatusServiceUnavailable:
		r.mu.Lock()
		r.until = time.Time{} // another replica may do better
		r.mu.Unlock()
	case a.Status < 400 || a.Status == http.StatusNotFound:
		o.Reason = fmt.Sprintf("what answers at %s with HTTP %d is no relay; correct CONTROLLER_ENDPOINT", r.c.Endpoint, a.Status)
	}
	return o
}

// Close ends the connections that are idle. What is under way goes on.
func (r *Relay) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.client != nil {
		r.client.Close()
	}
	return nil
}
