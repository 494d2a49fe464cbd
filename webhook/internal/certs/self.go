package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// RotateAnnotation of the Secret asks for a new authority each time that its value changes.
const RotateAnnotation = "apss.dev/rotate-ca"

// ErrNotFound and ErrConflict are what a store's error wraps when there is no such object, or it is another than was read.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("changed since it was read")
)

// Secret is a Secret as it was read.
type Secret struct {
	Version string
	Rotate  string // the value of RotateAnnotation
	Data    map[string][]byte
}

// Configuration is the webhook configuration as it was read.
type Configuration struct {
	Version  string
	Webhooks []Client // in order
}

// Client is how a webhook of a configuration is called.
type Client struct {
	Bundle []byte
	Path   string
	URL    bool // it is called by a URL, whose path is its author's
}

// is reports whether c is called with this bundle at this path.
func (c *Client) is(bundle []byte, path string) bool {
	return bytes.Equal(c.Bundle, bundle) && (c.URL || c.Path == path)
}

// store is where the state is: the API server. Reads are consistent, writes fail with ErrConflict unless the object still
// has the version given.
type store interface {
	Secret(ctx context.Context, name string) (*Secret, error)
	WriteSecret(ctx context.Context, name, version string, data map[string][]byte) error
	Configuration(ctx context.Context) (*Configuration, error)
	WriteClients(ctx context.Context, c *Configuration, bundle []byte, path string) error
	// Others reports whether replicas of another version of us run.
	Others(ctx context.Context) (bool, error)
}

// SelfConfig says what Self keeps. All fields but Changed and Now are required.
type SelfConfig struct {
	Store       store
	Secret      string   // with the authority and the webhook's certificate
	Names       []string // of the webhook's server
	RelaySecret string   // with the relay's certificate; empty: there is no relay
	RelayNames  []string
	Grace       time.Duration // see World
	// Changed is called, by one goroutine, with each new bundle.
	Changed func(bundle []byte)
	Log     *slog.Logger
	Now     func() time.Time
}

// Self keeps certificates of our own authority. Its methods but Run may be called concurrently.
type Self struct {
	cfg  SelfConfig
	look chan struct{} // holds one when it is to be looked at the state soon

	mu     sync.Mutex
	served *tls.Certificate
	bundle []byte
	paths  []string // that reviews come at
	looked time.Time
	ca     time.Time // when the authority ends
	relay  time.Time // when the relay's certificate ends
	trust  error     // why callers do not trust us; nil: they do
}

// NewSelf returns a Self, which has no certificate before Run.
func NewSelf(c SelfConfig) *Self {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Self{cfg: c, look: make(chan struct{}, 1), trust: errors.New("there is no certificate yet")}
}

// How often the state is looked at, and how soon after an error.
const (
	every = 30 * time.Second
	soon  = time.Second
	// atMost is how often it is looked because somebody asks at a path that is not served: anybody can.
	atMost = 5 * time.Second
)

// Run keeps the certificates until ctx ends.
func (s *Self) Run(ctx context.Context) {
	wait, pause := time.NewTimer(0), soon
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		case <-s.look:
		}
		if err := s.Sync(ctx); err == nil {
			pause = soon
			wait.Reset(every)
		} else {
			if ctx.Err() == nil {
				s.cfg.Log.WarnContext(ctx, "the certificates could not be kept; it is tried again", "error", err.Error())
			}
			wait.Reset(pause)
			pause = min(2*pause, every)
		}
	}
}

// tries bounds how often one Sync reads again: of n replicas that act at once, one gets its way each time.
const tries = 8

// Sync does what is due now.
func (s *Self) Sync(ctx context.Context) (err error) {
	for range tries {
		if err = s.once(ctx); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return err
}

func (s *Self) once(ctx context.Context) error {
	// This order, see the package comment.
	configuration, err := s.cfg.Store.Configuration(ctx)
	if errors.Is(err, ErrNotFound) {
		configuration = nil
	} else if err != nil {
		return fmt.Errorf("reading the webhook configuration: %w", err)
	}
	secret, err := s.cfg.Store.Secret(ctx, s.cfg.Secret)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("there is no Secret %s: create it, empty: %w", s.cfg.Secret, err)
	} else if err != nil {
		return fmt.Errorf("reading Secret %s: %w", s.cfg.Secret, err)
	}
	was, err := Decode(secret.Data)
	if err != nil {
		return err
	}
	w := World{
		Now: s.cfg.Now(), Names: s.cfg.Names, Grace: s.cfg.Grace, Force: secret.Rotate, Published: s.published(ctx, configuration), Path: called(configuration),
	}
	if !secretPath.MatchString(was.Paths.Now) || w.Path == PlainPath {
		if w.Others, err = s.cfg.Store.Others(ctx); err != nil {
			w.Others = true // the plain path is called on: no review is lost by that
			s.cfg.Log.WarnContext(ctx, "it is not known whether replicas of another version run: if so, reviews go on to come at "+PlainPath, "error", err.Error())
		}
	}
	state, changed, err := was.Next(w)
	if err != nil {
		return err
	}
	if changed {
		data, err := state.Encode()
		if err != nil {
			return err
		}
		if err := s.cfg.Store.WriteSecret(ctx, s.cfg.Secret, secret.Version, data); err != nil {
			return fmt.Errorf("writing Secret %s: %w", s.cfg.Secret, err)
		}
		s.tell(ctx, was, state)
	}
	bundle, path := state.Bundle(), state.Paths.publish(&w)
	if configuration != nil && slices.ContainsFunc(configuration.Webhooks, func(c Client) bool { return !c.is(bundle, path) }) {
		if err := s.cfg.Store.WriteClients(ctx, configuration, bundle, path); err != nil {
			return fmt.Errorf("writing the webhook configuration: %w", err)
		}
	}
	s.open(state.Paths, configuration)
	s.serve(state, bundle, configuration != nil, slices.ContainsFunc(w.Published, state.CA.Cert.Equal))
	return s.keepRelay(ctx, state, bundle)
}

// published are the authorities in every bundle of c.
func (s *Self) published(ctx context.Context, c *Configuration) (all []*x509.Certificate) {
	if c == nil {
		return nil
	}
	for i := range c.Webhooks {
		certs, err := ParseCerts(c.Webhooks[i].Bundle)
		if err != nil {
			s.cfg.Log.WarnContext(ctx, "a caBundle in the webhook configuration cannot be read; it is replaced", "webhook", i, "error", err.Error())
		}
		if i == 0 {
			all = certs
			continue
		}
		all = slices.DeleteFunc(all, func(a *x509.Certificate) bool { return !slices.ContainsFunc(certs, a.Equal) })
	}
	return all
}

// called is the path that API servers call, of the first webhook that has a Service; "" when none has.
func called(c *Configuration) string {
	if c == nil {
		return ""
	}
	for _, w := range c.Webhooks {
		if !w.URL {
			return w.Path
		}
	}
	return ""
}

// open takes the paths that reviews may come at: ours, and what is published, whoever did that.
func (s *Self) open(p Paths, c *Configuration) {
	paths := []string{p.Now, p.Next, p.Last}
	if c != nil {
		for _, w := range c.Webhooks {
			paths = append(paths, w.Path)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = paths
}

// Served reports whether reviews at path are API servers'. Of one that is not, it is looked soon what is published: it may
// have been changed a moment ago.
func (s *Self) Served(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if served(s.paths, path) {
		return true
	}
	if now := s.cfg.Now(); now.Sub(s.looked) >= atMost {
		s.looked = now
		select {
		case s.look <- struct{}{}:
		default:
		}
	}
	return false
}

// tell logs what a person wants to know of later. It names no path.
func (s *Self) tell(ctx context.Context, was, is State) {
	if old := was.Paths.Now; old != "" && old != is.Paths.Now {
		s.cfg.Log.InfoContext(ctx, "reviews come at another path from now on", "was_known_to_all", old == PlainPath)
	}
	switch {
	case was.CA == nil:
		s.cfg.Log.InfoContext(ctx, "made an authority", "authority", is.CA.Cert.Subject.CommonName)
	case !was.CA.Cert.Equal(is.CA.Cert):
		s.cfg.Log.InfoContext(ctx, "another authority signs from now on", "authority", is.CA.Cert.Subject.CommonName, "until_now", was.CA.Cert.Subject.CommonName)
	case was.Heir == nil && is.Heir != nil:
		s.cfg.Log.InfoContext(ctx, "made the next authority; it is published and will sign after the grace: pods that are older than this have to be replaced by then",
			"authority", is.Heir.Cert.Subject.CommonName, "grace", s.cfg.Grace.String())
	}
	if was.Leaf == nil || !was.Leaf.Cert.Equal(is.Leaf.Cert) {
		s.cfg.Log.InfoContext(ctx, "made a certificate", "names", s.cfg.Names, "until", is.Leaf.Cert.NotAfter)
	}
}

// serve takes the certificate of a state that is stored and, where there is a configuration, published. One that was not
// yet trusted when the configuration was read waits for the next time, if there is another: API servers learn late.
func (s *Self) serve(state State, bundle []byte, published, trusted bool) {
	s.mu.Lock()
	changed := !bytes.Equal(s.bundle, bundle)
	s.bundle, s.ca = bundle, state.CA.Cert.NotAfter
	if s.served == nil || trusted || !s.cfg.Now().Before(s.served.Leaf.NotAfter) {
		s.served = state.Leaf.TLS()
	}
	s.trust = nil
	if !published {
		s.trust = errors.New("there is no webhook configuration: no API server calls us")
	}
	s.mu.Unlock()
	if changed && s.cfg.Changed != nil {
		s.cfg.Changed(bundle)
	}
}

// keepRelay keeps the Secret of the relay's certificate.
func (s *Self) keepRelay(ctx context.Context, state State, bundle []byte) error {
	name := s.cfg.RelaySecret
	if name == "" {
		return nil
	}
	secret, err := s.cfg.Store.Secret(ctx, name)
	if err != nil {
		return fmt.Errorf("reading Secret %s of the relay's certificate (create it, empty): %w", name, err)
	}
	now := s.cfg.Now()
	relay, err := parsePair(secret.Data[keyLeafCert], secret.Data[keyLeafKey])
	if err != nil {
		s.cfg.Log.WarnContext(ctx, "the relay's certificate cannot be read; it is replaced", "secret", name, "error", err.Error())
		relay = nil
	}
	if renew := stale(relay, state.CA, s.cfg.RelayNames, now); renew || !bytes.Equal(secret.Data[keyBundle], bundle) {
		if renew {
			if relay, err = leaf(state.CA, s.cfg.RelayNames, now); err != nil {
				return err
			}
		}
		cert, key, err := relay.encode()
		if err != nil {
			return err
		}
		data := map[string][]byte{keyLeafCert: cert, keyLeafKey: key, keyBundle: bundle}
		if err := s.cfg.Store.WriteSecret(ctx, name, secret.Version, data); err != nil {
			return fmt.Errorf("writing Secret %s: %w", name, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relay = relay.Cert.NotAfter
	return nil
}

// Certificate returns what is served, for [tls.Config].
func (s *Self) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served == nil {
		return nil, errors.New("there is no certificate yet")
	}
	return s.served, nil
}

// Ready returns nil when a valid certificate is served that the API server trusts.
func (s *Self) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served != nil && !s.cfg.Now().Before(s.served.Leaf.NotAfter) {
		return fmt.Errorf("the certificate ended at %s", s.served.Leaf.NotAfter.Format(time.RFC3339))
	}
	return s.trust
}

// Expiry says when the certificates end, by whose they are: webhook, authority, relay.
func (s *Self) Expiry() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]time.Time{}
	if s.served != nil {
		all["webhook"], all["authority"] = s.served.Leaf.NotAfter, s.ca
	}
	if !s.relay.IsZero() {
		all["relay"] = s.relay
	}
	return all
}
